"""Guard beside a run that has started Ray: if the run is killed, it ends what is left of Ray, and deletes its folder.

Most of Ray ends by itself then, but helpers of its node may stay for minutes. The guard is started as a file, with
Ray's token in its environment, and reads its standard input: ids of processes, and `end` if the run ends in order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

PATIENCE = 9.0
"""Seconds in which processes may end by themselves."""

END = "end"


def main() -> None:
    """Wait for the end of the run, and clean up unless it was in order."""
    lines = sys.stdin.read().split()
    if END not in lines:
        time.sleep(PATIENCE)
        for pid in {*_marked(os.environ["RAY_AUTH_TOKEN"].encode()), *filter(_is_of_ray, map(int, lines))}:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(sys.argv[1], ignore_errors=True)


def _marked(token: bytes) -> list[int]:
    """Return the processes that have the token in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if token in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def _is_of_ray(pid: int) -> bool:
    """Return whether a process that was one of Ray's still is: its id may be another's by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, where the system can tell."""
    try:
        return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main()

"""The command with the world broken around it: `python -m tests.sabotage WHAT[:ARGUMENT...] run ...`.

The program itself knows nothing of this: what is replaced is the clock, the disk, or a step that dies.

clock:SECONDS:FILE      the wall clock jumps by SECONDS when FILE appears
full:PATTERN:NUMBER     from the NUMBER-th on, files whose path matches PATTERN find no room, after their first bytes
sizes:BYTES             no file grows beyond BYTES
bug:NUMBER              the NUMBER-th answer meets a bug
die:NUMBER              the process kills itself just before its NUMBER-th fsync, rename or commit
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def _clock(seconds: str, file: str) -> None:
    real = time.time
    time.time = lambda: real() + (float(seconds) if os.path.exists(file) else 0.0)  # noqa: PTH110 - asked all the time


class _FullDisk(io.FileIO):
    """A file of which a few bytes fit."""

    def write(self, content: Any) -> int:
        if self.tell() >= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        return super().write(bytes(content)[:10])


def _full(pattern: str, number: str) -> None:
    real, opened = io.open, itertools.count(1)

    def open_on_full_disk(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        writes = not set(mode).isdisjoint("wax+")
        if not (writes and re.search(pattern, str(file)) and next(opened) >= int(number)):
            return real(file, mode, *args, **more)
        raw = io.BufferedWriter(_FullDisk(os.fspath(file), mode.replace("b", "").replace("t", "")))
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8")

    io.open = builtins.open = open_on_full_disk


def _sizes(most: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))


def _bug(number: str) -> None:
    from pipeline.engine import journal

    real, answered = journal.answered, itertools.count(1)

    def stumbling(*args: Any, **more: Any) -> Any:
        if next(answered) >= int(number):
            raise RuntimeError(f"a bug that a drill has put here, with {os.environ.get('STAGE_KEY')} in its words")
        return real(*args, **more)

    journal.answered = stumbling


def _die(number: str) -> None:
    from pipeline.engine.writer import Writer

    steps = itertools.count(1)

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            if next(steps) >= int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return step

    os.fsync, os.replace = dying(os.fsync), dying(os.replace)
    Writer._commit = dying(Writer._commit)  # type: ignore[method-assign]


KINDS: dict[str, Callable[..., None]] = {"clock": _clock, "full": _full, "sizes": _sizes, "bug": _bug, "die": _die}


def main() -> None:
    """Break what the first argument says, then run the command with the others."""
    name, *arguments = sys.argv[1].split(":")
    KINDS[name](*arguments)
    from pipeline.cli import main as command

    command(sys.argv[2:])


if __name__ == "__main__":
    main()

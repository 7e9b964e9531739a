"""Whether the process that is recorded as a folder's owner lives, and when it started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

_MOST_DAYS = 100_000  # `ps` of Linux prints more for a process that began a moment ago, by its rounded clock


def is_alive(pid: int) -> bool:
    """Return whether a process exists; on Windows, always true."""
    if os.name == "nt":  # there, signal 0 ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def started_at(pid: int) -> float | None:
    """Return when a process started, in seconds since 1970, right to a second or two.

    None if it has ended, though its parent has not noticed yet, and if the system does not tell.
    """
    try:
        return _from_proc(pid) if sys.platform == "linux" else _from_ps(pid)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _from_proc(pid: int) -> float | None:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    if fields[0] in {"Z", "X"}:
        return None
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _from_ps(pid: int) -> float | None:
    """Read the state and the elapsed time, as [[days-]hours:]minutes:seconds, from the `ps` of POSIX."""
    command = ["ps", "-o", "stat=", "-o", "etime=", "-p", str(pid)]
    fields = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split()  # noqa: S603
    if fields[0].startswith("Z"):
        return None
    days, _, clock = fields[1].rpartition("-")
    if int(days or 0) > _MOST_DAYS:
        return time.time()
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return time.time() - int(days or 0) * 86_400 - seconds

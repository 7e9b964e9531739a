"""Where the tests keep their files: in memory, if it has room for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOM = 2 * 2**30
"""What is free before the tests begin; a run of the whole suite needs a tenth of it at once."""

_FOLDER = Path("/dev/shm")  # noqa: S108 - the fixtures of pytest make folders of their own there
_LIMITS = [Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory/memory.limit_in_bytes")]  # of a container


def folder_in_memory() -> Path | None:
    """Return a folder in memory with room for the files of all tests, which may run programs; None without one.

    SQLite and the images wait for the disk at each fsync, which is a third of the time of many tests.
    """
    if not (_FOLDER.is_dir() and os.access(_FOLDER, os.W_OK)) or os.statvfs(_FOLDER).f_flag & os.ST_NOEXEC:
        return None
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [path.read_text().strip() for path in _LIMITS if path.exists()]
    most = [int(limit) // 2 for limit in limits if limit.isdecimal()]
    return _FOLDER if min(shutil.disk_usage(_FOLDER).free, free, *most) >= ROOM else None

"""Open a file whose name comes from outside: an ordinary one, which ends, and which is no view of the machine."""

from __future__ import annotations

import functools
import itertools
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_PIECE_BYTES = 64 * 1024
_VIEWS = tuple(f"{os.sep}{name}{os.sep}" for name in ("proc", "sys"))  # their files show processes and their secrets


def open_ordinary(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError, also for a pipe, a device, a socket or a file below /proc or /sys.

    ValueError is raised for a name with a zero byte.
    """
    file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or os.path.realpath(path).startswith(_VIEWS):
        file.close()
        raise OSError("it is no ordinary file")
    return file


def read_up_to(file: BinaryIO, most: int) -> bytes:
    """Return the bytes of a file, or somewhat more than `most` of them if it is larger.

    `read(most + 1)` would allocate as much for the smallest file, and fail where memory is limited.
    """
    pieces = iter(functools.partial(file.read, _PIECE_BYTES), b"")
    return b"".join(itertools.islice(pieces, most // _PIECE_BYTES + 1))


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer does not wait for one."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

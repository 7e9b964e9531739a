"""A file written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

PART = ".part"
"""How the name of a file ends while it is being written; such a file may be deleted at any start."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` when the with-block ends, whole and on disk, or not at all.

    Temporary file in the same folder, fsync, rename, fsync of the folder. Raises OSError.
    """
    part = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}{PART}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first reason is the one to tell
            part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write `content` under `path`, whole or not at all. Raises OSError."""
    with whole_file(path) as file:
        file.write(content)


_MAKING = threading.RLock()  # a folder that is there for one thread is on disk for all


def make_folder(path: Path) -> None:
    """Make the folder and its parents, each on disk before the next. Raises OSError."""
    with _MAKING:
        if not path.is_dir() and path.parent != path:
            make_folder(path.parent)
            path.mkdir(exist_ok=True)
            sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring a folder's entries to disk; where the platform cannot open a folder (Windows), its rename has done so."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Files on disk: written atomically and durably; `StoredImage` describes one stored result image."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import DiskFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

IMAGES_FOLDER = "images"
"""Folder of the result images, below the job's folder."""

PART = ".part"
"""How the name of a file ends while it is being written; such a file may be deleted at any start."""


_names = random.Random()  # its own, so that nobody's seed makes two names alike


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` when the with-block ends, whole and on disk, or not at all.

    Temporary file in the same folder, fsync, rename, fsync of the folder. Raises OSError.
    """
    with _whole(path) as descriptor, open(descriptor, "wb", closefd=False) as file:
        yield file
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write `content` under `path`, whole or not at all. Raises OSError."""
    write_unnamed(path, content)
    sync_folder(path.parent)


def write_unnamed(path: Path, content: bytes | memoryview) -> None:
    """Do the same, save that the name is on disk only after the `sync_folder` that the caller owes. Raises OSError."""
    with _whole(path) as descriptor:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[int]:
    """Give the descriptor of a new file, which becomes `path` once it is on disk."""
    part = f"{path.parent}{os.sep}.{path.name[:200]}.{_names.getrandbits(32):08x}{PART}"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, path)  # noqa: PTH105 - pathlib would hold the interpreter longer than the call itself takes
    except BaseException:
        with contextlib.suppress(OSError):  # the first reason is the one to tell
            os.unlink(part)  # noqa: PTH108 - as above
        raise


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


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture that is whole under its final name. `file` is relative to the job's folder."""

    number: int
    file: str
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    revised_prompt: str | None


def disk_error(reason: OSError, folder: Path) -> DiskFull:
    """Say what keeps us from writing, and what to do."""
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"no room left for pictures in {folder}; make room, then `pipeline run` goes on")
    return DiskFull(f"{folder} cannot be written: {reason.strerror or reason}; mend that, then `pipeline run` goes on")

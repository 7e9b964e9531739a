"""Files and folders on disk, written atomically and durably."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import threading
from typing import TYPE_CHECKING

from pipeline.errors import DiskFull
from pipeline.file_descriptors import is_exhausted, none_was_free, when_free

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

PART = ".part"
"""How the name of a file ends while it is being written; such a file may be deleted at any start."""

_PIECE = 2**20  # bytes that are read at once

_names = random.Random()  # its own generator, so that a seed set elsewhere cannot make two names equal
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_names.seed)  # nor a process that is forked from another


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open a file that appears under `path` when the with-block ends, whole and on disk, or not at all.

    Temporary file in the same folder, fsync, rename, fsync of the folder. The umask applies to `mode`. Raises OSError.
    """
    with _whole(path, mode) as descriptor, open(descriptor, "wb", closefd=False) as file:
        yield file
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes | memoryview, mode: int = 0o666) -> None:
    """Write `content` under `path`, whole or not at all. The umask applies to `mode`. Raises OSError."""
    with _whole(path, mode) as descriptor:
        _write(descriptor, content)
    sync_folder(path.parent)


def write_new(path: str, content: bytes | memoryview, dir_fd: int | None = None) -> None:
    """Do the same under a name that nothing has, relative to `dir_fd` if that is set. Raises FileExistsError.

    The name is durable only after a `sync_folder` by the caller.
    """
    with _whole(path, is_new=True, dir_fd=dir_fd) as descriptor:
        _write(descriptor, content)


def _write(descriptor: int, content: bytes | memoryview) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextlib.contextmanager
def _whole(path: Path | str, mode: int = 0o666, *, is_new: bool = False, dir_fd: int | None = None) -> Iterator[int]:
    """Open the descriptor of a temporary file, which is renamed to `path` once its content is on disk."""
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name[:200]}.{_names.getrandbits(32):08x}{PART}")  # noqa: PTH118 - see os.replace
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = when_free(lambda: os.open(part, flags, mode, dir_fd=dir_fd))
    try:
        try:
            yield descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _rename_new(part, path, dir_fd)
        else:
            os.replace(part, path)  # noqa: PTH105 - pathlib would hold the interpreter longer than the call takes
    except BaseException:
        with contextlib.suppress(OSError):  # the first reason is the one to report
            os.unlink(part, dir_fd=dir_fd)
        raise


def _rename_new(part: str, path: Path | str, dir_fd: int | None) -> None:
    """Rename a file to a name that nothing has. Raises FileExistsError.

    A second link is refused by the kernel if the name is taken, while a rename replaces what has it. On a file system
    without links, the name is looked up first: nobody else writes there while the folder is locked.
    """
    try:
        os.link(part, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except FileExistsError:
        raise
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(part, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    else:
        os.unlink(part, dir_fd=dir_fd)


class GrowingFile:
    """A text file that grows under `<path>.part`, over several runs if need be, and gets its name once it is whole.

    Its methods block their thread, and raise OSError.
    """

    def __init__(self, path: Path, mode: int = 0o666) -> None:
        self.size = 0
        self._path = path
        self._part = path.with_name(f"{path.name}{PART}")
        self._mode = mode
        self._descriptor: int | None = None

    def open(self) -> None:
        """Create the file, or go on behind what an earlier run has written. The umask applies to the mode.

        The file is cut where a power failure has left zeros in place of text.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = when_free(lambda: os.open(self._part, flags, self._mode))
        while piece := os.read(self._descriptor, _PIECE):
            end = piece.find(0)
            self.size += len(piece) if end < 0 else end
            if end >= 0:
                break
        self.cut(self.size)

    def append(self, content: bytes) -> None:
        """Write at the end."""
        assert self._descriptor is not None
        rest = memoryview(content)
        while rest:
            written = os.write(self._descriptor, rest)
            self.size += written
            rest = rest[written:]

    def cut(self, size: int) -> None:
        """Remove what is behind the first `size` bytes."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        self.size = size

    def finish(self) -> None:
        """Rename the file to its own name, once it is on disk."""
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        self.close()
        self._part.replace(self._path)
        sync_folder(self._path.parent)

    def close(self) -> None:
        """Close the file; it stays under the name that it has."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_MAKING = threading.RLock()  # a folder that one thread finds is durable for all


def make_folder(path: Path, dir_fd: int | None = None, mode: int = 0o777) -> None:
    """Create the folder and its parents, each durable before the next; `mode` is its own. Raises OSError.

    With `dir_fd`, the path is relative to this folder, which is not created again if it was removed.
    """
    with _MAKING:
        if not _is_folder(path, dir_fd) and path.parent != path:
            make_folder(path.parent, dir_fd)
            try:
                os.mkdir(path, mode, dir_fd=dir_fd)
            except FileExistsError:
                if not _is_folder(path, dir_fd):
                    raise
            sync_folder(path.parent, dir_fd)


def _is_folder(path: Path, dir_fd: int | None) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, dir_fd=dir_fd).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def make_private(folder: Path, names: Iterable[str]) -> None:
    """Take these files from all but their owner, by name alone: to open a file of SQLite's would end its locks."""
    for name in names:
        with contextlib.suppress(OSError):  # there is none, or it is another's, or the file system knows no modes
            mode = stat.S_IMODE((folder / name).stat().st_mode)
            if mode & 0o077:
                (folder / name).chmod(mode & 0o700)


def sync_folder(path: Path | str, dir_fd: int | None = None) -> None:
    """Make a folder's entries durable. Windows cannot open a folder; there, the rename has done so."""
    if os.name == "nt":
        return
    descriptor = when_free(lambda: os.open(path, os.O_RDONLY, dir_fd=dir_fd))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all() -> None:
    """Make everything durable that was written until now: cheaper than many files one by one. Windows cannot."""
    if hasattr(os, "sync"):
        os.sync()


def move_aside(path: Path, folder: Path) -> Path | None:
    """Move a file into `folder`, durably, and return its new path, None if there is no such file. Raises OSError.

    A file of that name in `folder` is kept; the new one gets a `+` behind its stem.
    """
    if not path.exists():
        return None
    make_folder(folder)
    target = folder / path.name
    while target.exists():
        target = target.with_name(f"{target.stem}+{target.suffix}")
    path.replace(target)
    sync_folder(folder)
    sync_folder(path.parent)
    return target


def disk_error(reason: OSError, folder: Path) -> DiskFull:
    """Return the error that says why a folder cannot be written, and what to do."""
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"no room left in {folder}; free some space, then run `pipeline run` to continue")
    if is_exhausted(reason):
        return none_was_free(f"{folder} cannot be written")
    what = f"{folder} cannot be written: {reason.strerror or reason}"
    return DiskFull(f"{what}; correct that, then run `pipeline run` to continue")

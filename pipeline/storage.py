"""Files on disk: written atomically and durably; `StoredImage` describes one stored result image."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import random
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.descriptors import is_exhausted, none_was_free, when_free
from pipeline.errors import DiskFull, FolderGone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

LEDGER_FILE = "ledger.sqlite3"
LEDGER_BACKUP_FILE = "ledger.backup.sqlite3"
RUN_LOCK_FILE = "run.lock"
SUBMIT_LOCK_FILE = "submit.lock"
LOG_FILE = "run.log"

OUTPUT_FILES = (LEDGER_FILE, LEDGER_BACKUP_FILE, RUN_LOCK_FILE, SUBMIT_LOCK_FILE, LOG_FILE)
"""Files of the output folder, beside the folders of the jobs; others begin with one of these names."""

IMAGES_FOLDER = "images"
"""Folder of the result images, below the job's folder."""

QUARANTINE_FOLDER = "quarantine"
"""Folder of damaged files, below the job's folder."""

PART = ".part"
"""How the name of a file ends while it is being written; such a file may be deleted at any start."""

_names = random.Random()  # its own generator, so that a seed set elsewhere cannot make two names equal


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


class StoredImage(NamedTuple):
    """An image that is whole under its final name. `file` is relative to the job's folder."""

    number: int
    file: str
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    revised_prompt: str | None
    remark: str | None = None  # what deviates in its file and harms no pixel


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """Bytes that a provider returned as an image and that are not valid. `file` is relative to the job's folder."""

    file: str
    sha256: str
    bytes: int
    reason: str


class ImageStore:
    """All result images below one folder, today as local files.

    A name is `<job>/images/<file>`, with slashes on every platform. It is the only way to result images: a store in
    another place needs these methods and nothing else.

    With `dir_fd`, an open descriptor of the folder, images are written to that folder even after it was moved, and
    never to another one that took its place.
    """

    def __init__(self, folder: Path, dir_fd: int | None = None) -> None:
        self.folder = folder
        self._dir_fd = dir_fd

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Store an image, whole or not at all. Raises DiskFull, and FileExistsError if other content has the name.

        The content is on disk when this returns, the name only after `flush_folder`. A caller that stores many images
        flushes once for all of them, before the transaction that records them commits (see `Writer.flush_folder`).
        """
        path = self._place(name)
        try:
            try:
                write_new(path, content, self._dir_fd)
            except FileNotFoundError:
                make_folder(Path(path).parent, self._dir_fd)
                write_new(path, content, self._dir_fd)
        except FileExistsError:
            if not self._has(path, content):
                raise
        except OSError as reason:
            raise self._error(reason, name) from None

    def flush_folder(self, job: str) -> None:
        """Make the names of a job's images durable. Raises DiskFull."""
        try:
            sync_folder(self._place(f"{job}/{IMAGES_FOLDER}"), self._dir_fd)
        except OSError as reason:
            raise self._error(reason, job) from None

    def _place(self, name: str) -> str:
        """Return the path of a name, relative to the open folder if there is one."""
        return f"{self.folder}{os.sep}{name}" if self._dir_fd is None else name

    def _has(self, path: str, content: bytes | memoryview) -> bool:
        """Return whether a file has exactly this content, which is then on disk. Raises DiskFull."""
        try:
            descriptor = when_free(lambda: os.open(path, os.O_RDONLY, dir_fd=self._dir_fd))
            with os.fdopen(descriptor, "rb") as file:
                os.fsync(descriptor)
                return file.read(len(content) + 1) == content
        except OSError as reason:
            if is_exhausted(reason):
                raise self._error(reason, path) from None
            return False  # a folder, or a file that may not be read

    def _error(self, reason: OSError, name: str) -> DiskFull:
        if self._dir_fd is not None and isinstance(reason, FileNotFoundError):
            return folder_gone(self.folder)
        return disk_error(reason, self.folder / name.partition("/")[0])

    def read(self, name: str) -> bytes:
        """Return the content of an image. Raises OSError, FileNotFoundError if there is none of this name."""
        return when_free(self.local_path(name).read_bytes)

    def size(self, name: str) -> int | None:
        """Return the number of bytes of an image, None if there is none of this name. Raises OSError."""
        try:
            return self.local_path(name).stat().st_size
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        """Delete an image if there is one of this name. Raises OSError."""
        self.local_path(name).unlink(missing_ok=True)

    def quarantine(self, name: str) -> str | None:
        """Move a damaged image to `<job>/quarantine/`; return its new name, None if it is missing. Raises OSError."""
        path = self.local_path(name)
        target = move_aside(path, path.parents[1] / QUARANTINE_FOLDER)
        return None if target is None else target.relative_to(self.folder).as_posix()

    def put_aside(self, job: str, stem: str, content: bytes, reason: str) -> QuarantinedFile:
        """Store bytes that are not a valid image in `<job>/quarantine/`, the reason beside them. Raises DiskFull."""
        sha256 = hashlib.sha256(content).hexdigest()
        name = f"{QUARANTINE_FOLDER}/{stem}-{sha256[:8]}"
        folder = self._place(f"{job}/{QUARANTINE_FOLDER}")
        try:
            make_folder(Path(folder), self._dir_fd)
            for end, written in ((".bin", content), (".txt", f"{reason}\n".encode())):
                with contextlib.suppress(FileExistsError):  # the same bytes, quarantined before
                    write_new(self._place(f"{job}/{name}{end}"), written, self._dir_fd)
            sync_folder(folder, self._dir_fd)
        except OSError as error:
            raise self._error(error, job) from None
        return QuarantinedFile(f"{name}.bin", sha256, len(content), reason)

    def names(self) -> list[str]:
        """Return the names of all images that are on disk, in no order."""
        folders = {path.parent.name: path for path in self.folder.glob(f"*/{IMAGES_FOLDER}/")}
        pairs = [(job, file) for job, folder in folders.items() for file in os.listdir(folder)]  # noqa: PTH208 - 20 x
        return [f"{job}/{IMAGES_FOLDER}/{file}" for job, file in pairs if not file.startswith(".")]

    def leftovers(self) -> list[str]:
        """Return the names of half-written images of a killed run, which may be deleted while no run is at work."""
        found = self.folder.glob(f"*/{IMAGES_FOLDER}/.*{PART}")
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def local_path(self, name: str) -> Path:
        """Return the path of an image, whether it exists or not."""
        return self.folder / name

    def job_folder(self, job: str) -> Path:
        """Return the folder that holds the images of a job, whether it exists or not."""
        return self.folder / job / IMAGES_FOLDER


_PART_NAME = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(PART)}", re.DOTALL)
PART_SECONDS = 3600.0
"""Age from which a half-written file outside `images/` is a killed process's: other commands write beside a run."""


def sweep_parts(folder: Path, now: float) -> None:
    """Delete the half-written files that killed processes left in an output folder and its jobs' folders.

    Only names that `whole_file` makes count. Half-written images are the image store's `leftovers`. A file that cannot
    be deleted stays.
    """
    inner = (path for path in folder.glob("*/*/") if path.name != IMAGES_FOLDER)
    for path in itertools.chain(*(one.glob(f".*{PART}") for one in (folder, *folder.glob("*/"), *inner))):
        if not _PART_NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and now - state.st_mtime > PART_SECONDS:
                path.unlink()


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


def folder_gone(path: Path) -> FolderGone:
    """Return the error that says that a folder, or the ledger in it, is not where the run found it."""
    return FolderGone(
        f"{path} was moved, removed or replaced while the run was at work, so nothing more is bought; put it back in"
        " place, or name its new place with `--output`, then run `pipeline run` to continue"
    )


def disk_error(reason: OSError, folder: Path) -> DiskFull:
    """Return the error that says why a folder cannot be written, and what to do."""
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"no room left in {folder}; free some space, then run `pipeline run` to continue")
    if is_exhausted(reason):
        return none_was_free(f"{folder} cannot be written")
    what = f"{folder} cannot be written: {reason.strerror or reason}"
    return DiskFull(f"{what}; correct that, then run `pipeline run` to continue")

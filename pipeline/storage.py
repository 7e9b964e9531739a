"""The store of result images, and what an output folder contains; `StoredImage` describes one stored image."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from pipeline.errors import DiskFull, FolderGone
from pipeline.file_descriptors import is_exhausted, when_free
from pipeline.files import PART, disk_error, make_folder, move_aside, sync_folder, write_new
from pipeline.ordinary_file import open_ordinary

LEDGER_FILE = "ledger.sqlite3"
LEDGER_BACKUP_FILE = "ledger.backup.sqlite3"
RUN_LOCK_FILE = "run.lock"
SUBMIT_LOCK_FILE = "submit.lock"
LOG_FILE = "run.log"

OUTPUT_FILES = (LEDGER_FILE, LEDGER_BACKUP_FILE, RUN_LOCK_FILE, SUBMIT_LOCK_FILE, LOG_FILE)
"""Files of the output folder, beside the folders of the jobs; others begin with one of these names."""

IMAGES_FOLDER = "images"
"""Folder of the result images, below the job's folder."""

SIDECAR = ".json"
"""How the name of a file ends that describes the image beside it, and is none."""

SPOOL_FOLDER = "spool"
"""Folder of images that wait until an object store has them, below the job's folder."""

QUARANTINE_FOLDER = "quarantine"
"""Folder of damaged files, below the job's folder."""

_MEDIA_TYPES = {"svg": "image/svg+xml"} | {
    kind: f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "avif")
}

_READ_AT_ONCE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)  # a pipe without a writer does not wait for one


def candidate_names(file: str, sha256: str) -> tuple[str, str, str]:
    """Return the names that an image may have: `<stem>-<number>`, then such as contain a part of its hash, or all."""
    stem, _, number = file.rpartition("-")
    return file, f"{stem}-{sha256[:8]}-{number}", f"{stem}-{sha256}-{number}"


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
    root: str | None = None  # the URL of the store that has it; None for the output folder
    spooled: int = 0  # 1: it waits on the local disk until the store at `root` has it


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """Bytes that a provider returned as an image and that are not valid. `file` is relative to the job's folder."""

    file: str
    sha256: str
    bytes: int
    reason: str


class ImageStore(Protocol):
    """All result images below one root: a local folder, or an object store. `Stores` chooses the one of an image.

    A name is `<job>/images/<file>`, with slashes on every platform.
    """

    def read(self, name: str) -> bytes:
        """Return the content of an image. Raises FileNotFoundError, OSError, and ConfigError."""

    def delete(self, name: str) -> None:
        """Delete an image if there is one of this name. Raises OSError, and ConfigError."""

    def quarantine(self, name: str) -> str | None:
        """Move a damaged image to `<job>/quarantine/`; return its new name, None if it is missing."""

    def names(self) -> list[str]:
        """Return the names of all images, in no order."""


class LocalStore:
    """All result images below one local folder: a run writes them here, whole or not at all.

    With `dir_fd`, an open descriptor of the folder, images are written to that folder even after it was moved, and
    never to another one that took its place.

    `root` is what a row remembers of where its image is to be. In a spool, whose images wait for the store at that
    root, they are in `<job>/spool/` on the disk.
    """

    def __init__(
        self, folder: Path, dir_fd: int | None = None, root: str | None = None, *, is_spool: bool = False
    ) -> None:
        self.folder = folder
        self.root = root
        self.is_spool = is_spool
        self._inner = SPOOL_FOLDER if is_spool else IMAGES_FOLDER
        self._dir_fd = dir_fd

    def held(self, dir_fd: int | None) -> LocalStore:
        """Return this store with an open descriptor of its folder."""
        return LocalStore(self.folder, dir_fd, self.root, is_spool=self.is_spool)

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

    def prepare(self, job: str) -> None:
        """Create the folder of a job's images, before others write to it. Raises DiskFull."""
        try:
            make_folder(Path(self._place(f"{job}/{IMAGES_FOLDER}")), self._dir_fd)
        except OSError as reason:
            raise self._error(reason, job) from None

    def flush_folder(self, job: str) -> None:
        """Make the names of a job's images durable. Raises DiskFull."""
        try:
            sync_folder(self._place(f"{job}/{IMAGES_FOLDER}"), self._dir_fd)
        except OSError as reason:
            raise self._error(reason, job) from None

    def _place(self, name: str) -> str:
        """Return the path of a name, relative to the open folder if there is one."""
        name = self._on_disk(name)
        return f"{self.folder}{os.sep}{name}" if self._dir_fd is None else name

    def _on_disk(self, name: str) -> str:
        """Return a name as it is on disk: in a spool, in another folder."""
        job, _, rest = name.partition("/")
        is_image = self.is_spool and f"{rest}/".startswith(f"{IMAGES_FOLDER}/")
        return f"{job}/{SPOOL_FOLDER}{rest.removeprefix(IMAGES_FOLDER)}" if is_image else name

    def _has(self, path: str, content: bytes | memoryview) -> bool:
        """Return whether a file has exactly this content, which is then on disk. Raises DiskFull."""
        try:
            descriptor = when_free(lambda: os.open(path, _READ_AT_ONCE, dir_fd=self._dir_fd))
            with os.fdopen(descriptor, "rb") as file:
                os.fsync(descriptor)
                return file.read(len(content) + 1) == content
        except OSError as reason:
            if is_exhausted(reason):
                raise self._error(reason, path) from None
            return False  # a folder, a pipe, or a file that may not be read

    def _error(self, reason: OSError, name: str) -> DiskFull:
        if self._dir_fd is not None and isinstance(reason, FileNotFoundError):
            return folder_gone(self.folder)
        return disk_error(reason, self.folder / name.partition("/")[0])

    def read(self, name: str) -> bytes:
        """Return the content of an image. Raises FileNotFoundError, and OSError if it is no ordinary file."""
        with when_free(lambda: open_ordinary(self.local_path(name))) as file:
            return file.read()

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
        folders = {path.parent.name: path for path in self.folder.glob(f"*/{self._inner}/")}
        pairs = [(job, file) for job, folder in folders.items() for file in os.listdir(folder)]  # noqa: PTH208 - 20 x
        images = [(job, file) for job, file in pairs if not file.startswith(".") and not file.endswith(SIDECAR)]
        return [f"{job}/{IMAGES_FOLDER}/{file}" for job, file in images]

    def leftovers(self) -> list[str]:
        """Return the names of half-written images of a killed run, which may be deleted while no run is at work."""
        found = self.folder.glob(f"*/{self._inner}/.*{PART}")
        return sorted(f"{path.parents[1].name}/{IMAGES_FOLDER}/{path.name}" for path in found)

    def local_path(self, name: str) -> Path:
        """Return the path of an image, whether it exists or not."""
        return self.folder / self._on_disk(name)

    def job_folder(self, job: str) -> Path:
        """Return the folder that holds the images of a job, whether it exists or not."""
        return self.folder / job / self._inner


def media_type(kind: str) -> str:
    """Return the media type of images of a format."""
    return _MEDIA_TYPES.get(kind, "application/octet-stream")


_PART_NAME = re.compile(rf"\..+\.[0-9a-f]{{8}}{re.escape(PART)}", re.DOTALL)
PART_SECONDS = 3600.0
"""Age from which a half-written file outside `images/` is a killed process's: other commands write beside a run."""


def sweep_parts(folder: Path, now: float) -> None:
    """Delete the half-written files that killed processes left in an output folder and its jobs' folders.

    Only names that `whole_file` makes count. Half-written images are the image store's `leftovers`. A file that cannot
    be deleted stays.
    """
    inner = (path for path in folder.glob("*/*/") if path.name != IMAGES_FOLDER)
    for path in itertools.chain(*(place.glob(f".*{PART}") for place in (folder, *folder.glob("*/"), *inner))):
        if not _PART_NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and now - state.st_mtime > PART_SECONDS:
                path.unlink()


def folder_gone(path: Path) -> FolderGone:
    """Return the error that says that a folder, or the ledger in it, is not where the run found it."""
    return FolderGone(
        f"{path} was moved, removed or replaced while the run was at work, so nothing more is bought; put it back in"
        " place, or name its new place with `--output`, then run `pipeline run` to continue"
    )

"""The place of an export: it grows in a hidden folder beside its destination, and is moved there once it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.errors import ConfigError, FolderBusy
from pipeline.files import PART, make_folder, sync_all, sync_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHARD = re.compile(r"shard-[0-9]+\.tar")
_TYPICAL = ({"metadata.jsonl", "images"}, {"output.jsonl", "errors.jsonl"})
_CONTENT, _OLD, _FINGERPRINT, _LOCK, _WHOLE = "content", "old", "fingerprint", "lock", "whole"
_TABLES = (b"PAR1", b"file_name,prompt,variables,sha256,")  # how our parquet and our csv begin


def is_inside(path: Path, folder: Path) -> bool:
    """Return whether `path`, which may not exist, is below a folder."""
    return folder.resolve() in (path.parent.resolve() / path.name).parents


def check_destination(destination: Path, output: Path, *, force: bool) -> None:
    """Check that nothing is at a destination, or, with `force`, only what may be replaced. Raises ConfigError."""
    if not os.path.lexists(destination):
        return
    if not force:
        raise ConfigError(f"{destination} is there already: add --force to replace it, or choose another --dest")
    if not _is_replaceable(destination, output):
        raise ConfigError(f"{destination} is not an export, so --force does not replace it: choose another --dest")


def _is_replaceable(path: Path, output: Path) -> bool:
    """Return whether `path` is an export or, outside the output folder, any ordinary file."""
    if path.is_symlink() or not path.is_dir():
        return path.is_file() and (not is_inside(path, output) or _is_table(path))
    names = {entry.name for entry in path.iterdir()}
    return any(typical <= names for typical in _TYPICAL) or all(_SHARD.fullmatch(name) for name in names)


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).startswith(_TABLES)


def is_left(destination: Path) -> bool:
    """Return whether a killed process has left an export that was whole at this destination, or about to be."""
    return destination.name != "" and (_folder(destination) / _WHOLE).exists() and os.path.lexists(destination)


def finish(destination: Path, fingerprint: str) -> bool:
    """Return whether the export of this fingerprint is at its destination, and the process was killed after that.

    What it has left beside the destination is removed. Raises OSError, and FolderBusy.
    """
    folder = _folder(destination)
    if not is_left(destination) or os.path.lexists(folder / _CONTENT):
        return False
    with _held(folder, destination):
        is_finished = (folder / _WHOLE).read_text() == fingerprint
        if is_finished:
            _remove_folder(folder)
    return is_finished


@contextlib.contextmanager
def staged(destination: Path, fingerprint: str, *, force: bool, private: bool) -> Iterator[Path]:
    """Yield the path under which an export is written; it is moved to its destination when the block ends.

    What a killed process has left there is kept if it was of the same export, as the fingerprint says. After an error
    nothing is left, neither there nor at the destination. With `private`, it is for its owner alone. Raises OSError,
    and FolderBusy if another process is at it.
    """
    folder = _made_folder(destination)
    content = folder / _CONTENT
    with _held(folder, destination):
        try:
            force |= _put_back(folder, destination)
            _prepare(folder, content, fingerprint)
            yield content
            if private:
                content.chmod(content.stat().st_mode & 0o700)
            sync_all()
            write_whole(folder / _WHOLE, fingerprint.encode())
            _move(folder, destination, force=force)
        except Exception:
            _put_back(folder, destination)
            _remove_folder(folder)
            raise
        _remove_folder(folder)


def _folder(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}{PART}")


def _made_folder(destination: Path) -> Path:
    """Make the folder in which an export grows. Raises ConfigError, and OSError if the disk is full."""
    folder = _folder(destination)
    try:
        make_folder(folder, mode=0o700)
    except OSError as reason:
        if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        what = f"{destination} cannot be written: {reason.strerror or reason}"
        raise ConfigError(f"{what}; choose another --dest") from None
    return folder


def _move(folder: Path, destination: Path, *, force: bool) -> None:
    """Move an export to its destination, and what is there aside. Raises OSError and ConfigError."""
    if os.path.lexists(destination):
        if not force:
            raise ConfigError(f"{destination} is there already: something else has made it in the meantime")
        _remove(folder / _OLD)
        destination.rename(folder / _OLD)
    (folder / _CONTENT).rename(destination)
    sync_folder(destination.parent)


def _put_back(folder: Path, destination: Path) -> bool:
    """Put what was to be replaced back if nothing has taken its place; return whether that was so. Raises OSError."""
    if os.path.lexists(destination) or not os.path.lexists(folder / _OLD):
        return False
    (folder / _OLD).rename(destination)
    return True


@contextlib.contextmanager
def _held(folder: Path, destination: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises FolderBusy."""
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FolderBusy(f"another process is exporting to {destination}: wait until it ends") from None
    try:
        yield
    finally:
        lock.release()


def _prepare(folder: Path, content: Path, fingerprint: str) -> None:
    """Remove what is not of this export, and half-written files."""
    note = folder / _FINGERPRINT
    _remove(folder / _WHOLE)
    if not note.exists() or note.read_text() != fingerprint:
        _remove(content)
        write_whole(note, fingerprint.encode())
    for place in (folder, content):
        for part in place.glob(f".*{PART}"):
            part.unlink()


def _remove_folder(folder: Path) -> None:
    """Remove all that is in the folder of an export; that it was whole, at the very end."""
    for name in (_CONTENT, _OLD, _FINGERPRINT, _LOCK, _WHOLE):
        _remove(folder / name)
    _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

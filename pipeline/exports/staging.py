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
    names = {one.name for one in path.iterdir()}
    return any(typical <= names for typical in _TYPICAL) or all(_SHARD.fullmatch(name) for name in names)


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).startswith(_TABLES)


@contextlib.contextmanager
def staged(destination: Path, fingerprint: str, *, force: bool, private: bool) -> Iterator[Path]:
    """Yield the path under which an export is written; it is moved to its destination when the block ends.

    What a killed process has left there is kept if it was of the same export, as the fingerprint says. After an error
    nothing is left, neither there nor at the destination. With `private`, it is for its owner alone. Raises OSError,
    and FolderBusy if another process is at it.
    """
    folder = destination.with_name(f".{destination.name}{PART}")
    try:
        make_folder(folder, mode=0o700)
    except OSError as reason:
        if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        what = f"{destination} cannot be written: {reason.strerror or reason}"
        raise ConfigError(f"{what}; choose another --dest") from None
    content, old = folder / "content", folder / "old"
    with _held(folder, destination):
        try:
            if os.path.lexists(old) and not os.path.lexists(destination):  # killed between the two renames below
                old.rename(destination)
                force = True
            _prepare(folder, content, fingerprint)
            yield content
            if private:
                content.chmod(content.stat().st_mode & 0o700)
            sync_all()
            _move(content, destination, old, force=force)
        except Exception:
            _remove(folder)
            raise
        _remove(folder)


def _move(content: Path, destination: Path, old: Path, *, force: bool) -> None:
    """Move an export to its destination, and what is there to `old`. Raises OSError and ConfigError."""
    if os.path.lexists(destination):
        if not force:
            raise ConfigError(f"{destination} is there already: something else has made it in the meantime")
        _remove(old)
        destination.rename(old)
    content.rename(destination)
    sync_folder(destination.parent)


@contextlib.contextmanager
def _held(folder: Path, destination: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises FolderBusy."""
    lock = FileLock(folder / "lock", timeout=0)
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
    note = folder / "fingerprint"
    if not note.exists() or note.read_text() != fingerprint:
        _remove(content)
        write_whole(note, fingerprint.encode())
    for place in (folder, content):
        for part in place.glob(f".*{PART}"):
            part.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

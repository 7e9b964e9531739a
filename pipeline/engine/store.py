"""`CheckedImage` → file, whole or not at all."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import picture
from pipeline.errors import DiskFull
from pipeline.files import make_folder, write_unnamed

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine.check import CheckedImage

FOLDER = "images"


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


def store(image: CheckedImage, folder: Path, stem: str, number: int, revised_prompt: str | None) -> StoredImage:
    """Write the picture as `<folder>/images/<stem>-<number>.<what its bytes are>`; the row that names it comes after,
    and the writer brings the file's name to disk before that row; see `Writer.settle`.

    A file of that name that no row owns is one that an earlier run wrote and could not record; it is replaced.
    Raises DiskFull.
    """
    name = f"{FOLDER}/{stem}-{number}.{picture.extension(image.format)}"
    try:
        try:
            write_unnamed(folder / name, image.content)
        except FileNotFoundError:
            make_folder(folder / FOLDER)
            write_unnamed(folder / name, image.content)
    except OSError as reason:
        raise disk_error(reason, folder) from None
    return StoredImage(
        number=number,
        file=name,
        sha256=image.sha256,
        bytes=len(image.content),
        width=image.width,
        height=image.height,
        format=image.format,
        revised_prompt=revised_prompt,
    )


def disk_error(reason: OSError, folder: Path) -> DiskFull:
    """Say what keeps us from writing, and what to do."""
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"no room left for pictures in {folder}; make room, then `pipeline run` goes on")
    return DiskFull(f"{folder} cannot be written: {reason.strerror or reason}; mend that, then `pipeline run` goes on")

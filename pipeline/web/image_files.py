"""A picture's row in the ledger → its file, or its thumbnail; nothing in an address can name another file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.reports import thumbnails
from pipeline.reports.thumbnails import Source
from pipeline.storage import IMAGES_FOLDER as IMAGES

if TYPE_CHECKING:
    from pathlib import Path

_TYPES = {"svg": "image/svg+xml"} | {
    kind: f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "avif")
}


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file to be sent."""

    path: Path
    content_type: str


def find_picture(folder: Path, pk: int, *, small: bool = False) -> ServedFile | None:
    """Find the picture of this row, or its thumbnail, which is made where it is missing; None where there is none."""
    connection = open_for_reading(folder)
    if connection is None:
        return None
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        row = connection.execute(
            "SELECT j.name, i.file, i.sha256, i.format FROM image i JOIN job j ON j.pk = i.job"
            " WHERE i.pk = ? AND i.state = 'stored'",
            (pk,),
        ).fetchone()
    if row is None:
        return None
    job = folder / row["name"]
    path = _inside(job / row["file"], folder / row["name"] / IMAGES, folder)
    if path is None:
        return None
    if small and row["format"] != "svg":
        made = thumbnails.make_thumbnail(job, Source(row["file"], row["sha256"], row["format"]))
        thumbnail = made and _inside(made, job / thumbnails.FOLDER, folder)
        return None if thumbnail is None else ServedFile(thumbnail, "image/webp")
    return ServedFile(path, _TYPES.get(row["format"], "application/octet-stream"))


def _inside(path: Path, home: Path, folder: Path) -> Path | None:
    """Give the file's real path where that lies in its home, and its home below the output folder; else None."""
    try:
        real, real_home = path.resolve(strict=True), home.resolve(strict=True)
    except OSError:
        return None
    inside = real.parent == real_home and real_home.is_relative_to(folder.resolve())
    return real if inside and real.is_file() else None

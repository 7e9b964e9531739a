"""Finds the file or the thumbnail of an image by its row in the ledger; no part of an address is a path."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline import ledger
from pipeline.ledger.queries import find_image
from pipeline.reports import thumbnails

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.storage import ImageStore

_TYPES = {"svg": "image/svg+xml"} | {
    kind: f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "avif")
}

THUMBNAIL_THREADS: Final = 2
"""Thumbnails that are made at a time; images that are sent as they are do not wait for them."""

_thumbnail_threads: Final = ThreadPoolExecutor(THUMBNAIL_THREADS, "thumbnail")  # which start when they are needed


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file to send, with its media type."""

    path: Path
    content_type: str


async def find_in_thread(folder: Path, images: ImageStore, image_pk: int, *, small: bool) -> ServedFile | None:
    """Return what `find_served_image` does, from a thread."""
    find = functools.partial(find_served_image, folder, images, image_pk, small=small)
    return await asyncio.get_running_loop().run_in_executor(_thumbnail_threads if small else None, find)


def find_served_image(folder: Path, images: ImageStore, image_pk: int, *, small: bool = False) -> ServedFile | None:
    """Return the file of this image, or of its thumbnail, which is made if it is missing; None if there is none."""
    with ledger.reading(folder) as connection:
        image = find_image(connection, image_pk)
    if image is None:
        return None
    path = _inside(images.local_path(image.name), images.job_folder(image.job), images.folder)
    if path is None:
        return None
    if small and image.format != "svg":
        job = folder / image.job
        made = thumbnails.make_thumbnail(job, images, image)
        thumbnail = made and _inside(made, job / thumbnails.FOLDER, folder)
        return None if thumbnail is None else ServedFile(thumbnail, "image/webp")
    return ServedFile(path, _TYPES.get(image.format, "application/octet-stream"))


def _inside(path: Path, home: Path, folder: Path) -> Path | None:
    """Return the file's real path if it is in `home` and `home` is below `folder`, else None."""
    try:
        real, real_home = path.resolve(strict=True), home.resolve(strict=True)
    except OSError:
        return None
    inside = real.parent == real_home and real_home.is_relative_to(folder.resolve())
    return real if inside and real.is_file() else None

"""Finds images, thumbnails and input files by their rows in the ledger; no part of an address is a path."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline import ledger
from pipeline.ledger.queries import find_image, find_job_image, read_uploaded_files
from pipeline.reports import thumbnails
from pipeline.storage import media_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.ledger.queries import RecordedImage
    from pipeline.stores import Stores

THUMBNAIL_THREADS: Final = 2
"""Thumbnails that are made at a time; images that are sent as they are do not wait for them."""

_thumbnail_threads: Final = ThreadPoolExecutor(THUMBNAIL_THREADS, "thumbnail")  # which start when they are needed


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file to send, with its media type; or its content, if it is not on this disk."""

    path: Path | None
    content_type: str
    content: bytes = b""


async def find_in_thread(find: Callable[[], ServedFile | None], *, small: bool) -> ServedFile | None:
    """Return what `find` does, from a thread; `small` if it may make a thumbnail."""
    return await asyncio.get_running_loop().run_in_executor(_thumbnail_threads if small else None, find)


def find_served_image(folder: Path, stores: Stores, image_pk: int, *, small: bool = False) -> ServedFile | None:
    """Return the file of this image, or of its thumbnail, which is made if it is missing; None if there is none."""
    with ledger.reading(folder) as connection:
        image = find_image(connection, image_pk)
    return None if image is None else _served(folder, stores, image, small=small)


def find_job_file(folder: Path, stores: Stores, job: str, file: str) -> ServedFile | None:
    """Return a file that a job's report shows, by its address relative to the report; None if there is none."""
    kind, _, name = file.partition("/")
    with ledger.reading(folder) as connection:
        if kind == "inputs":
            uploaded = any(upload.file == file for upload in read_uploaded_files(connection, job))
            path = _inside(folder / job / file, folder / job / "inputs", folder) if uploaded else None
            return None if path is None else ServedFile(path, media_type(path.suffix[1:]))
        small = kind == thumbnails.FOLDER
        found = find_job_image(connection, job, **({"sha256": name[: -len(".webp")]} if small else {"file": file}))
    return None if found is None else _served(folder, stores, found, small=small)


def _served(folder: Path, stores: Stores, image: RecordedImage, *, small: bool) -> ServedFile | None:
    store = stores.local(image)
    path = None
    if store is not None:
        path = _inside(store.local_path(image.name), store.job_folder(image.job), store.folder)
        if path is None:
            return None
    if small and image.format != "svg":
        job = folder / image.job
        made = thumbnails.make_thumbnail(job, stores, image)
        thumbnail = made and _inside(made, job / thumbnails.FOLDER, folder)
        return None if thumbnail is None else ServedFile(thumbnail, "image/webp")
    if path is not None:
        return ServedFile(path, media_type(image.format))
    try:
        return ServedFile(None, media_type(image.format), stores.of_image(image).read(image.name))
    except FileNotFoundError:
        return None


def _inside(path: Path, home: Path, folder: Path) -> Path | None:
    """Return the file's real path if it is in `home` and `home` is below `folder`, else None."""
    try:
        real, real_home = path.resolve(strict=True), home.resolve(strict=True)
    except OSError:
        return None
    inside = real.parent == real_home and real_home.is_relative_to(folder.resolve())
    return real if inside and real.is_file() else None

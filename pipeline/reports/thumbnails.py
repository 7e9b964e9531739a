"""Pictures on disk → small ones beside the report, each made once: first frame, upright, in sRGB."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage
from pipeline.storage import PART, make_folder, write_whole

if TYPE_CHECKING:
    import sqlite3
    import threading
    from collections.abc import Iterable
    from pathlib import Path

FOLDER = "thumbnails"
SIDE = 320
"""Pixels of the longest side."""

_QUALITY = 80  # of WebP: some 10 KB for a photograph, without visible blocks
_METHOD = 2  # of WebP's 0 to 6: half the time of the default, for a file a few per cent larger


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that the ledger names. `file` is relative to the job's folder."""

    file: str
    sha256: str
    format: str


def thumbnail_name(sha256: str) -> str:
    """Give the file of a picture's thumbnail, relative to the job's folder."""
    return f"{FOLDER}/{sha256}.webp"


def stored_pictures(connection: sqlite3.Connection, name: str) -> list[Source]:
    """Give every picture of a job that is on disk, in the order in which they came."""
    rows = connection.execute(
        "SELECT i.file, i.sha256, i.format FROM image i JOIN job j ON j.pk = i.job"
        " WHERE j.name = ? AND i.state = 'stored' ORDER BY i.pk",
        (name,),
    )
    return [Source(*row) for row in rows]


def make_thumbnails(folder: Path, sources: Iterable[Source], stop: threading.Event | None = None) -> int:
    """Make what is missing in a job's folder; how many were made. Raises OSError where nothing can be written.

    Pillow decodes and encodes outside the interpreter's lock, so threads use every core. SVG is small as it is. A
    picture that is gone or cannot be read is left out: the page then shows the picture's own file, or that it is
    missing. `stop` ends the work after the pictures in hand.
    """
    there = _present(folder / FOLDER)
    missing = {source.sha256: source for source in sources if source.format != "svg" and source.sha256 not in there}
    if not missing:
        return 0
    make_folder(folder / FOLDER)
    with ThreadPoolExecutor(os.cpu_count(), "thumbnail") as pool:
        made = pool.map(lambda source: _make(folder, source, stop), missing.values())
        try:
            return sum(made)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _present(folder: Path) -> set[str]:
    """Name the pictures that have a thumbnail, and delete what a killed run left half written."""
    if not folder.is_dir():
        return set()
    names = set()
    for path in folder.iterdir():
        if path.name.startswith(".") and path.name.endswith(PART):
            path.unlink(missing_ok=True)
        names.add(path.stem)
    return names


def make_thumbnail(folder: Path, source: Source) -> Path | None:
    """Make the thumbnail of one picture, where it is missing; None where it has none. Raises OSError."""
    path = folder / thumbnail_name(source.sha256)
    if not path.exists():
        make_folder(folder / FOLDER)
        if not _make(folder, source, None):
            return None
    return path


def _make(folder: Path, source: Source, stop: threading.Event | None) -> bool:
    if stop is not None and stop.is_set():
        return False
    try:
        content = (folder / source.file).read_bytes()
        small = shrink(content)
    except (OSError, BrokenImage):
        return False
    write_whole(folder / thumbnail_name(source.sha256), small)
    return True


def shrink(content: bytes) -> bytes:
    """Make a thumbnail of a picture: WebP. Raises BrokenPicture."""
    from pipeline.images.inspect import open_image
    from pipeline.images.transform import to_rgba

    picture, image = open_image(content)
    if image.mode in {"RGB", "RGBA", "L"} and "transparency" not in image.info:  # else a pixel's numbers are no colour
        image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    upright = to_rgba(image, picture)
    upright.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    (upright if picture.has_alpha else upright.convert("RGB")).save(buffer, "WEBP", quality=_QUALITY, method=_METHOD)
    return buffer.getvalue()

"""Draws a job's contact sheet from its thumbnails: PNGs to print or to send, the same bytes for the same images."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import BadInput, BrokenImage
from pipeline.files import disk_error, make_folder, write_whole
from pipeline.ledger.database import read_transaction
from pipeline.ledger.queries import read_images_of_job, read_requests
from pipeline.reports.report_data import MOST
from pipeline.reports.thumbnails import SIDE, shrink, thumbnail_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.ImageFont import FreeTypeFont

    from pipeline.stores import PlacedImage, Stores

COLUMNS, ROWS = 5, 6  # of a page: about the shape of a sheet of paper
LINES = 3  # of a caption

_MARGIN, _GAP, _HEAD, _LINE = 64, 28, 88, 21  # pixels
_CELL = SIDE + 8 + LINES * _LINE + _LINE + _GAP
_PAPER, _INK, _SOFT, _WELL = "#ffffff", "#1d1c1a", "#5f5c56", "#efedea"


@dataclass(frozen=True, slots=True)
class SheetImage:
    """One image of the sheet; `name` is that in the image store."""

    name: str
    sha256: str
    format: str
    caption: str
    place: PlacedImage


def check_sheet(path: Path) -> None:
    """Raise BadInput if the file's name promises another format than the sheet has."""
    if path.suffix.lower() != ".png":
        raise BadInput(f"a contact sheet is a PNG: give --sheet a name like {path.with_suffix('.png').name}")


def write_sheet(connection: sqlite3.Connection, name: str, folder: Path, stores: Stores, path: Path) -> list[Path]:
    """Write the images of a job, in its order, to `path`, and the following pages to `path`-2 and so on.

    `folder` has the job's thumbnails, `stores` its images. Returns the paths. Raises DiskFull.
    """
    images = _read_images(connection, name)
    size = COLUMNS * ROWS
    pages = [images[first : first + size] for first in range(0, len(images), size)] or [[]]
    written = []
    try:
        make_folder(path.parent)
        for number, page in enumerate(pages, 1):
            target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            write_whole(target, _draw(page, f"{name}  {number} / {len(pages)}", folder, stores))
            written.append(target)
    except OSError as reason:
        raise disk_error(reason, path.parent) from None
    return written


def _read_images(connection: sqlite3.Connection, job: str) -> list[SheetImage]:
    with read_transaction(connection):
        requests = [request for request in read_requests(connection, job, MOST) if request.status != "superseded"]
        images = read_images_of_job(connection, job, {request.request_pk for request in requests})
    return [
        SheetImage(f"{job}/{image.file}", image.sha256, image.format, request.prompt or request.id, image)
        for request in requests
        for image in images.get(request.request_pk, ())
    ]


def _draw(page: Sequence[SheetImage], title: str, folder: Path, stores: Stores) -> bytes:
    rows = -(-len(page) // COLUMNS)
    size = (2 * _MARGIN + COLUMNS * (SIDE + _GAP) - _GAP, 2 * _MARGIN + _HEAD + max(1, rows) * _CELL - _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, _INK, _font(36))
    for place, image in enumerate(page):
        left = _MARGIN + place % COLUMNS * (SIDE + _GAP)
        top = _MARGIN + _HEAD + place // COLUMNS * _CELL
        small = _thumbnail(image, folder, stores)
        if small is None:
            draw.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), _WELL)
            word = "SVG" if image.format == "svg" else "missing"
            draw.text((left + SIDE / 2, top + SIDE / 2), word, _SOFT, _font(20), anchor="mm")
        else:
            at = (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2)
            sheet.paste(small, at, small if small.mode == "RGBA" else None)
        below = top + SIDE + 8
        for line in wrap(image.caption, _font(16), SIDE, LINES):
            draw.text((left, below), line, _INK, _font(16))
            below += _LINE
        (file,) = wrap(image.name.rpartition("/")[2][::-1], _font(13), SIDE, 1)  # its end distinguishes it from others
        draw.text((left, below), file[::-1], _SOFT, _font(13))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _thumbnail(image: SheetImage, folder: Path, stores: Stores) -> Image.Image | None:
    """Return the image's thumbnail, one made now if there is no file, None if there is no readable image either."""
    if image.format == "svg":
        return None
    try:
        content = (folder / image.name.split("/")[0] / thumbnail_name(image.sha256)).read_bytes()
    except OSError:
        try:
            content = shrink(stores.of_image(image.place).read(image.name)).content
        except (OSError, BrokenImage):
            return None
    small = Image.open(io.BytesIO(content), formats=["WEBP"])
    return small.convert("RGBA" if small.has_transparency_data else "RGB")


@functools.cache
def _font(size: int) -> FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's own font, which every wheel of Pillow can draw
    return font


def wrap(text: str, font: FreeTypeFont, width: float, most: int) -> list[str]:
    """Return a text in at most `most` lines of `width` pixels; the rest becomes an ellipsis."""
    lines: list[str] = []
    left = " ".join(text.split())
    while left and len(lines) < most:
        fits = _fitting(left, font, width)
        if fits < len(left):
            if len(lines) == most - 1:
                lines.append(left[: _fitting(left, font, width - font.getlength("…"))].rstrip() + "…")
                break
            space = left.rfind(" ", 0, fits + 1)
            fits = space if space > 0 else fits
        lines.append(left[:fits].rstrip())
        left = left[fits:].lstrip()
    return lines or [""]


def _fitting(text: str, font: FreeTypeFont, width: float) -> int:
    """Return how many characters fit, at least one. Binary search, since a prompt may have thousands."""
    low, high = 1, min(len(text), 400)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle]) <= width else (low, middle - 1)
    return low

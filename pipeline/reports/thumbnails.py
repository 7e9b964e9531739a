"""Makes the thumbnails of a report, each once: WebP of the first frame, upright, in sRGB.

An image is decoded for its thumbnail alone, so its fingerprint is taken here too.
"""

from __future__ import annotations

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import BrokenImage
from pipeline.files import PART, make_folder, write_new

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from PIL import Image

    from pipeline.images.fingerprint import Fingerprint
    from pipeline.images.inspect import ImageInfo
    from pipeline.ledger.queries import RecordedImage
    from pipeline.stores import Stores

FOLDER = "thumbnails"
SIDE = 320
"""Pixels of the longest side."""

_QUALITY = 80  # of WebP: some 10 KB for a photograph, without visible blocks
_COLOURS = frozenset({"RGB", "RGBA", "L", "LA", "CMYK"})  # modes whose numbers are colours
_STRIP_PIXELS = 1 << 20
_METHOD = 2  # of WebP's 0 to 6: half the time of the default, for a file a few per cent larger


class _Stopped(Exception):
    """Nobody waits for more thumbnails."""


class Thumbnail(NamedTuple):
    """The bytes of a thumbnail, and the fingerprint of its image."""

    content: bytes
    fingerprint: Fingerprint


def thumbnail_name(sha256: str) -> str:
    """Return the file of an image's thumbnail, relative to the job's folder."""
    return f"{FOLDER}/{sha256}.webp"


def make_thumbnails(
    folder: Path,
    images: Stores,
    sources: Iterable[RecordedImage],
    unread: Collection[str] = (),
    stop: threading.Event | None = None,
    count: Callable[[int, int], object] = lambda _tried, _all: None,
) -> dict[str, Fingerprint]:
    """Make the missing thumbnails of a job in its folder. Raises OSError if none can be written.

    Return the fingerprints of these images, and of those in `unread`, by SHA-256.
    Pillow decodes and encodes without the interpreter lock, so threads use every core. SVG needs none. An image that is
    missing or cannot be read is left out: the page then shows the image itself, or that it is missing. `stop` ends the
    work after the images in hand. `count` is called at the start and after each image, with the number that was tried
    and that of all.
    """
    existing = _existing(folder / FOLDER)
    known = existing.difference(unread)
    missing = {source.sha256: source for source in sources if source.format != "svg" and source.sha256 not in known}
    if not missing:
        return {}
    count(0, len(missing))
    make_folder(folder / FOLDER)

    def fingerprint_of(source: RecordedImage) -> Fingerprint | None:
        if stop is not None and stop.is_set():
            raise _Stopped
        return _read_fingerprint(folder, source) if source.sha256 in existing else _make(folder, images, source)

    with ThreadPoolExecutor(os.cpu_count(), "thumbnail") as pool:
        outcomes = pool.map(fingerprint_of, missing.values())
        found = {}
        try:
            for tried, (sha256, outcome) in enumerate(zip(missing, outcomes, strict=True), 1):
                if outcome is not None:
                    found[sha256] = outcome
                count(tried, len(missing))
        except _Stopped:  # and so is every later one
            pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _existing(folder: Path) -> set[str]:
    """Return the hashes of the images that have a thumbnail; delete what a killed run left half-written."""
    if not folder.is_dir():
        return set()
    names = set()
    for path in folder.iterdir():
        if path.name.startswith(".") and path.name.endswith(PART):
            path.unlink(missing_ok=True)
        names.add(path.stem)
    return names


def make_thumbnail(folder: Path, images: Stores, source: RecordedImage) -> Path | None:
    """Return the thumbnail of one image, made if it is missing; None if it cannot have one. Raises OSError."""
    path = folder / thumbnail_name(source.sha256)
    if not path.exists():
        make_folder(folder / FOLDER)
        if _make(folder, images, source) is None:
            return None
    return path


def _make(folder: Path, images: Stores, source: RecordedImage) -> Fingerprint | None:
    """Make one thumbnail and return the image's fingerprint, None if the image cannot be read. Raises OSError.

    Its name is not made durable: what a power cut takes is made again.
    """
    try:
        small = shrink(images.of_image(source).read(source.name))
    except (OSError, BrokenImage):
        return None
    with contextlib.suppress(FileExistsError):  # another process has made it
        write_new(str(folder / thumbnail_name(source.sha256)), small.content)
    return small.fingerprint


def _read_fingerprint(folder: Path, source: RecordedImage) -> Fingerprint | None:
    """Return the fingerprint of an image that has a thumbnail, which is nearer and smaller; None if that is broken."""
    from PIL import Image

    from pipeline.images.fingerprint import fingerprint

    try:
        with Image.open(folder / thumbnail_name(source.sha256), formats=["WEBP"]) as small:
            return fingerprint(small)
    except (OSError, ValueError):
        return None


def shrink(content: bytes) -> Thumbnail:
    """Return a thumbnail of an image, as WebP. Raises BrokenImage."""
    from pipeline.images.fingerprint import fingerprint
    from pipeline.images.inspect import opened_image
    from pipeline.images.transform import to_srgb

    with opened_image(content) as (info, opened, _):
        image = _reduced(opened, info)
        del opened  # before the memory is released
        upright = to_srgb(image, replace(info, mode=image.mode))
    found = fingerprint(upright)
    upright.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    upright.save(buffer, "WEBP", quality=_QUALITY, method=_METHOD)
    return Thumbnail(buffer.getvalue(), found)


def _reduced(image: Image.Image, info: ImageInfo) -> Image.Image:
    """Return an image at about twice the size of its thumbnail, in a mode whose numbers are colours.

    Pillow's conversions copy: an image with transparency would be in memory thrice. So it is reduced strip by strip.
    """
    from PIL import Image

    width, height = image.size
    factor = max(width, height) // (2 * SIDE)
    if factor <= 1:
        return _with_colours(image, info)
    thickness = factor * max(1, _STRIP_PIXELS // (factor * min(width, height)))
    reduced = None
    for begin in range(0, max(width, height), thickness):
        box = (begin, 0, min(width, begin + thickness), height)
        if height > width:
            box = (0, begin, width, min(height, begin + thickness))
        strip = _with_colours(image.crop(box), info).reduce(factor)
        if reduced is None:
            reduced = Image.new(strip.mode, (-(-width // factor), -(-height // factor)))
            reduced.info = strip.info  # its colour profile
        reduced.paste(strip, (box[0] // factor, box[1] // factor))
    assert reduced is not None  # no image is without pixels
    return reduced


def _with_colours(image: Image.Image, info: ImageInfo) -> Image.Image:
    """Return an image in one of the modes in which pixels may be averaged. Raises BrokenImage for modes without one."""
    from pipeline.images.transform import to_srgb

    if image.mode in {"P", "PA"} or "transparency" in image.info:
        return image.convert("RGBA" if info.has_alpha else "RGB")
    return image if image.mode in _COLOURS else to_srgb(image, replace(info, orientation=1))

"""Fingerprint of an upright image: its difference hash, by which near copies are found, and whether it is blank.

The difference hash (dHash) says for each of 8x8 fields whether it is lighter than the next one, across and then down:
what scaling, another format or a little more light leaves as it is. The mean colour follows it, since a red ball and a
green one may be equally light everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageStat

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIDE = 8
_REDUCED = _SIDE * (_SIDE + 1)
_LEAST = 2  # of 255: a smaller difference is noise, as of a JPEG in an even field
_BLANK_SPREAD = 8  # of the lightness of the fields, in an image that may be blank
_BLANK_DEVIATION = 2.0  # of each channel: one colour, with the noise of a JPEG


class Fingerprint(NamedTuple):
    """`difference_hash` is 128 bits and the mean colour, in hex."""

    difference_hash: str
    is_blank: bool


def fingerprint(image: Image.Image) -> Fingerprint:
    """Return the fingerprint of an image with 8 bits a channel."""
    small = _reduced(_on_white(image))
    gray = small.convert("F")
    across, down = _fields(gray, _SIDE + 1, _SIDE), _fields(gray, _SIDE, _SIDE + 1)
    bits = 0
    for row in range(_SIDE):
        for column in range(_SIDE):
            left = row * (_SIDE + 1) + column
            bits = bits << 1 | (across[left] > across[left + 1] + _LEAST)
    for place in range(_SIDE * _SIDE):
        bits = bits << 1 | (down[place] > down[place + _SIDE] + _LEAST)
    red, green, blue = small.resize((1, 1), Image.Resampling.BOX).tobytes()
    is_even = max(across) - min(across) <= _BLANK_SPREAD
    return Fingerprint(f"{bits:032x}{red:02x}{green:02x}{blue:02x}", is_even and _is_blank(image))


def _fields(gray: Image.Image, columns: int, rows: int) -> Sequence[float]:
    return memoryview(gray.resize((columns, rows), Image.Resampling.BOX).tobytes()).cast("f")


def _reduced(image: Image.Image) -> Image.Image:
    """Return an image in RGB whose sides both numbers of fields divide: what follows takes no time then."""
    plain = image if image.mode in {"L", "RGB"} else image.convert("RGB")
    return plain.resize((_REDUCED, _REDUCED), Image.Resampling.BOX).convert("RGB")


def _is_blank(image: Image.Image) -> bool:
    """Return whether an image is of one colour, or nearly; what is transparent has no colour."""
    bands = image.convert("RGBA").convert("RGBa") if image.has_transparency_data else image.convert("RGB")
    return max(ImageStat.Stat(bands).stddev) <= _BLANK_DEVIATION


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))

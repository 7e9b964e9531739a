"""Images that are as hard to compress as photographs, drawn by a seed: the same bytes each time."""

from __future__ import annotations

import functools
import io
import random
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

ROTATED = 0x0112  # the EXIF tag of an image's orientation


def detailed(size: tuple[int, int], seed: int) -> Image.Image:
    """Draw large soft shapes with grain over them, in three channels that differ."""
    draw = random.Random(seed)
    channels = []
    for _ in range(3):
        coarse = Image.frombytes("L", (9, 7), draw.randbytes(63)).resize(size, Image.Resampling.BICUBIC)
        grain = Image.frombytes("L", size, draw.randbytes(size[0] * size[1]))
        channels.append(Image.blend(coarse, grain, 0.1))
    return Image.merge("RGB", channels)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ROTATED] = orientation
    return _encoded(image, "jpeg", exif=exif)


def _cut_out(image: Image.Image) -> Image.Image:
    """Put an alpha channel over an image: opaque within a circle."""
    alpha = Image.radial_gradient("L").resize(image.size).point(lambda value: 255 if value < 128 else 0)
    image.putalpha(alpha)
    return image


PHOTOGRAPHS: dict[str, Callable[[], bytes]] = {
    "square.png": lambda: _encoded(detailed((512, 512), 1), "png"),
    "square with alpha.png": lambda: _encoded(_cut_out(detailed((400, 400), 2)), "png"),
    "wide.png": lambda: _encoded(detailed((450, 300), 3), "png"),
    "tall.png": lambda: _encoded(detailed((300, 450), 4), "png"),
    "nearly square.jpg": lambda: _encoded(detailed((350, 305), 5), "jpeg"),
    "wide.jpg": lambda: _encoded(detailed((420, 280), 6), "jpeg"),
    "turned.jpg": lambda: _turned(detailed((450, 300), 7), 6),
}
"""How each image is made, by its file name; those called square are what the oldest models take as it is."""


@functools.cache
def photograph(name: str) -> bytes:
    """Return the file of this name in `PHOTOGRAPHS`."""
    return PHOTOGRAPHS[name]()

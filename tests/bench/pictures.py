"""Seeded noise → PNGs of the sizes that the service's have: about 170 kB at 256x256, and 2.6 MB at 1024x1024."""

from __future__ import annotations

import io
import random

from PIL import Image


def noise(edge: int, seed: int) -> bytes:
    """Draw a square of noise of 7 bits a channel, which PNG can hardly compress: as photographs are."""
    pixels = random.Random(seed).randbytes(edge * edge * 3).translate(bytes(value & 0x7F for value in range(256)))
    stream = io.BytesIO()
    Image.frombytes("RGB", (edge, edge), pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()

"""Noise that is the same in each run: Pillow's `effect_noise` takes no seed."""

from __future__ import annotations

import random

from PIL import Image

_UNIFORM = 74  # the standard deviation of all values of a byte


def grey_noise(size: tuple[int, int], sigma: float, seed: int = 1) -> Image.Image:
    """Draw grey noise around 128, of about this standard deviation."""
    grey = Image.frombytes("L", size, random.Random(seed).randbytes(size[0] * size[1]))
    return grey.point(lambda value: 128 + (value - 128) * sigma / _UNIFORM)

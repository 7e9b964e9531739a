"""Describe one image to draw: what a signed URL carries and what the drawing needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

CAPTION_CHARACTERS: Final = 150


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """All that is needed to draw an image; `source` and `mask` are SHA-256 sums of uploaded files.

    A signed URL holds the fields as a list, so their order is part of its format.
    """

    seed: str
    caption: str
    width: int
    height: int
    format: str = "png"
    compression: int = 100
    transparent: bool = False
    source: str | None = None
    mask: str | None = None
    keeps_source: bool = False
    """True for an edit, which shows its source; a variation takes only the source's colours."""
    frames: int = 1
    frame_ms: int = 0
    """GIF only: the number of frames, and how long each is shown."""


def caption_of(prompt: str) -> str:
    """Return the beginning of a prompt that fits under an image, without line breaks and control characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in prompt[:1000]).split())
    return text if len(text) <= CAPTION_CHARACTERS else text[: CAPTION_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def seed_of(*parts: object) -> str:
    """Return a short hash of everything that distinguishes an image from others."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

"""Bytes → `CheckedImage`: decoded whole, or refused."""

from __future__ import annotations

import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pybase64

from pipeline import picture, png
from pipeline.errors import BrokenPicture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A whole picture, its bytes as they came."""

    content: bytes
    sha256: str
    width: int
    height: int
    format: str  # png, jpeg, webp, gif, svg …


def check(content: bytes, params: Mapping[str, Any]) -> CheckedImage:
    """Decode a picture from its first byte to its last. Raises BrokenPicture.

    An SVG counts only where the request asked for one, and only without scripts; a whole picture of another kind than
    the one asked for counts, as it is paid.
    """
    if size := png.whole_size(content, picture.MAX_PIXELS):
        return CheckedImage(content, hashlib.sha256(content).hexdigest(), *size, "png")
    svg = params.get("output_format") == "svg" and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    found = picture.inspect_svg(content) if svg else picture.inspect(content)
    return CheckedImage(content, hashlib.sha256(content).hexdigest(), found.width, found.height, found.format)


def decode(text: str) -> bytes:
    """Decode base64 strictly, save that lines may be wrapped and the padding left out. Raises BrokenPicture."""
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    joined = "".join(text.split()).rstrip("=")
    try:
        return pybase64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except (binascii.Error, ValueError) as reason:
        raise BrokenPicture(f"has broken base64: {reason}") from None

"""Decode an uploaded file and report what image it holds."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.request_body import MIB

if TYPE_CHECKING:
    from pipeline.sandbox.request_body import FilePart

MOST_PIXELS: Final = 50_000_000
KINDS: Final = {"PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp"}
ORIENTATION: Final = 0x0112  # EXIF tag
TRANSPOSED: Final = (5, 6, 7, 8)
DECODE_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    EOFError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # Pillow's DecompressionBombWarning, if warnings are errors
)
"""What Pillow raises for bytes that are not a complete image."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete uploaded image: its bytes, their SHA-256, and what Pillow found in them."""

    content: bytes
    sha256: str
    kind: str
    mode: str
    width: int
    height: int
    has_alpha: bool


def decode(part: FilePart, limit: int) -> Upload:
    """Return the decoded image of a file of less than `limit` bytes. Raises ApiError."""
    if len(part.content) >= limit:
        raise invalid_image(f"Uploaded image must be less than {limit // MIB} MB.", part.field)
    try:
        with Image.open(io.BytesIO(part.content), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise invalid_image(f"Uploaded image must have at most {MOST_PIXELS:,} pixels.", part.field)
            kind = KINDS[image.format or ""]
            image.convert("RGBA")  # decodes the whole file, and refuses modes that cannot be drawn on
            return Upload(
                part.content,
                hashlib.sha256(part.content).hexdigest(),
                kind,
                image.mode,
                image.width,
                image.height,
                image.has_transparency_data,
            )
    except DECODE_ERRORS as error:
        raise invalid_image("Invalid image file or mode: the file could not be decoded.", part.field) from error


def upright_size(upload: Upload) -> tuple[int, int]:
    """Return width and height as a viewer shows them, after the EXIF orientation."""
    with Image.open(io.BytesIO(upload.content)) as image:
        try:
            turned = image.getexif().get(ORIENTATION) in TRANSPOSED
        except DECODE_ERRORS:  # broken metadata of a complete image
            turned = False
    return (upload.height, upload.width) if turned else (upload.width, upload.height)


def invalid_image(message: str, field: str) -> errors.ApiError:
    """400: the file is not an image that this endpoint takes."""
    return errors.ApiError(message, code="invalid_image", param=field)

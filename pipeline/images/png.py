"""A PNG → its size, where all of its pixels inflate as they must: whole, without making a picture of them.

As strict as decoding: every chunk's checksum, the stream's own checksum, as many bytes as the rows need, and a filter
that exists on each row. What is not wholly regular (interlaced, animated, odd, damaged) is left to Pillow to judge.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import deflate  # libdeflate: twice as fast as the standard library's, as strict, and one call without the GIL

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD: Final = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR"
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type → samples a pixel
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_LAST_FILTER: Final = 4  # Paeth
_MOST_BYTES: Final = 1 << 30
_MOST_RATIO: Final = 1032  # deflate makes no more bytes than this of one: what claims more has no room made for it


def whole_size(content: bytes, most_pixels: int) -> tuple[int, int] | None:
    """Give width and height of a regular, whole PNG; None for everything else, which may still be a picture."""
    try:
        return _whole_size(memoryview(content), most_pixels) if content.startswith(_HEAD) else None
    except (struct.error, deflate.DeflateError, IndexError):
        return None


def _whole_size(content: memoryview, most_pixels: int) -> tuple[int, int] | None:
    width, height, depth, colour, *methods = struct.unpack_from(">IIBBBBB", content, 16)
    if any(methods) or depth not in _DEPTHS.get(colour, ()) or not 0 < width * height <= most_pixels:
        return None
    parts = _pixel_parts(content, needs_palette=colour == 3)
    row = 1 + (width * depth * _CHANNELS[colour] + 7) // 8
    if parts is None or row * height > _MOST_BYTES:
        return None
    pixels = _inflated(parts, row * height)
    if pixels is None or max(pixels[::row]) > _LAST_FILTER:
        return None
    return width, height


def chunks(content: bytes | memoryview) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Walk the chunks of a PNG: each one's name, content, and whether its checksum holds. Whoever walks stops at IEND.

    Raises struct.error where one is cut off.
    """
    view, at = memoryview(content), 8
    while True:
        length, name = struct.unpack_from(">I4s", view, at)
        (checksum,) = struct.unpack_from(">I", view, at + 8 + length)
        yield name, view[at + 8 : at + 8 + length], deflate.crc32(view[at + 4 : at + 8 + length]) == checksum
        at += 12 + length


def _pixel_parts(content: memoryview, *, needs_palette: bool) -> list[memoryview] | None:
    """Walk the chunks to IEND; give the pixels' own, which follow each other."""
    parts: list[memoryview] = []
    ended, has_palette = False, False
    for name, part, holds in chunks(content):
        if not holds:
            return None
        match name:
            case b"IEND":
                return parts if has_palette or not needs_palette else None
            case b"IDAT" if ended:
                return None
            case b"IDAT":
                parts.append(part)
            case b"acTL" | b"fcTL" | b"fdAT":
                return None
            case _:
                has_palette = has_palette or name == b"PLTE"
                ended = bool(parts)
    return None


def _inflated(parts: list[memoryview], size: int) -> bytearray | None:
    """Inflate to exactly so many bytes and the stream's checksum; None where there are fewer, and an error for more."""
    stream = parts[0] if len(parts) == 1 else b"".join(parts)
    if size > _MOST_RATIO * len(stream):
        return None
    pixels = deflate.zlib_decompress(stream, size)
    return pixels if len(pixels) == size else None

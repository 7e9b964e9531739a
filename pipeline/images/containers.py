"""Detect the format of an image from its bytes, and check that its container is complete, without decoding.

Decoders tolerate a missing end, so a truncated download can decode. Each function below follows the file's own
structure to its end mark; bytes after the end mark are ignored, as in every viewer.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from pipeline.images import png

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Content = bytes | memoryview

_SIGNATURES = tuple(
    (name, re.compile(mark, re.DOTALL))
    for name, mark in (
        ("png", rb"\x89PNG\r\n\x1a\n"),
        ("jpeg", rb"\xff\xd8\xff"),
        ("webp", rb"RIFF....WEBP"),
        ("gif", rb"GIF8[79]a"),
        ("bmp", rb"BM"),
        ("tiff", rb"II\*\0|MM\0\*"),
        ("avif", rb"....ftyp.*avi[fs]"),
    )
)
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan: not a stuffed FF, fill byte or restart marker
_TIFF_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # field type → bytes
_TIFF_DATA = {273: 279, 324: 325}  # tag of the offsets of strips, tiles → tag of their byte counts


def detect_format(content: Content) -> str | None:
    """Return the format by the first bytes, or None if it is not supported; some decoders run programs (EPS)."""
    head = bytes(content[:32])
    for name, mark in _SIGNATURES:
        if mark.match(head):
            return name
    return None


def structure_error(image_format: str, content: Content) -> str | None:
    """Return what is wrong with the structure of an image of this format ("is cut off: …"), or None."""
    try:
        return _CHECKS[image_format](content)
    except (IndexError, struct.error):
        return "is cut off: it refers to bytes after its end"


def _png(content: Content) -> str | None:
    """Walk the chunks to IEND; every checksum must match (Pillow skips those of the pixels)."""
    for name, _, is_valid in png.chunks(content):
        if not is_valid:
            return f"is damaged: the checksum of its {name.decode('latin-1')} chunk is wrong"
        if name == b"IEND":
            break
    return None


def _jpeg(content: Content) -> str | None:
    """Walk the segments to EOI. A plain search would find the EOI of the thumbnail inside EXIF."""
    at = 2
    while True:
        match = _JPEG_MARKER.search(content, at)
        if match is None:
            return "is cut off: it has no end-of-image mark"
        marker = content[match.end() - 1]
        if marker == 0xD9:
            return None
        at = match.end()
        if marker != 0x01:  # TEM has no content; every other segment begins with its length
            at += struct.unpack_from(">H", content, at)[0]


def _webp(content: Content) -> str | None:
    (size,) = struct.unpack_from("<I", content, 4)
    return None if size + 8 <= len(content) else f"is cut off: {len(content)} of {size + 8} bytes are here"


def _gif(content: Content) -> str | None:
    """Walk the blocks to the trailer; a last byte that equals the trailer is not enough."""
    at = 13 + _colours(content[10])
    while content[at] != 0x3B:
        block = content[at]
        if block == 0x21:  # extension: introducer, label, sub-blocks
            at = _skip_blocks(content, at + 2)
        elif block == 0x2C:  # image: descriptor, its palette, code size, sub-blocks
            at = _skip_blocks(content, at + 11 + _colours(content[at + 9]))
        elif block == 0:  # some writers pad with zeros
            at += 1
        else:
            return f"is damaged: 0x{block:02x} does not begin a GIF block"
    return None


def _colours(flags: int) -> int:
    """Return the size in bytes of the palette that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(content: Content, at: int) -> int:
    while length := content[at]:
        at += 1 + length
    return at + 1


def _bmp(content: Content) -> str | None:
    (size,) = struct.unpack_from("<I", content, 2)  # 0 if the writer did not set it
    return None if size <= len(content) else f"is cut off: {len(content)} of {size} bytes are here"


def _avif(content: Content) -> str | None:
    """Walk the outermost boxes; the file must end where the last one ends."""
    at = 0
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        if size == 0:  # to the end of the file
            return None
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
        if size < 8:
            return "is damaged: a box of less than 8 bytes"
        at += size
    return None if at == len(content) else f"is cut off: {len(content)} of {at} bytes are here"


def _tiff(content: Content) -> str | None:
    """Follow the directories: every value and every strip or tile must lie inside the file."""
    order = "<" if content[0] == 0x49 else ">"
    seen = set()
    (at,) = struct.unpack_from(order + "I", content, 4)
    while at and at not in seen:
        seen.add(at)
        (number,) = struct.unpack_from(order + "H", content, at)
        tags = dict(_tiff_tags(content, order, at + 2, number))
        for offsets, counts in _TIFF_DATA.items():
            ends = map(sum, zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False))
            if max(ends, default=0) > len(content):
                return "is cut off: pixels are missing at its end"
        (at,) = struct.unpack_from(order + "I", content, at + 2 + 12 * number)
    return None


def _tiff_tags(content: Content, order: str, at: int, number: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each tag, with its values if they are offsets or byte counts of pixels.

    Raises struct.error if a value lies outside the file.
    """
    for entry in range(at, at + 12 * number, 12):
        tag, field_type, count = struct.unpack_from(order + "HHI", content, entry)
        size = _TIFF_WIDTHS.get(field_type, 1) * count
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", content, entry + 8)[0]
        if start + size > len(content):
            raise struct.error
        is_location = tag in _TIFF_DATA or tag in _TIFF_DATA.values()
        letter = {3: "H", 4: "I"}.get(field_type)
        yield tag, struct.unpack_from(f"{order}{count}{letter}", content, start) if is_location and letter else ()


_CHECKS: dict[str, Callable[[Content], str | None]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _avif,
}

"""Bytes → the kind of picture that they claim to be, and whether its frame is closed: no decoding, no Pillow.

Decoders forgive a missing end, so a download that broke off can decode. Each walk below follows the file's own
structure to its end mark; what stands behind the end mark is ignored, as every viewer does.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from pipeline.images import png

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Content = bytes | memoryview

_MARKS = tuple(
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
_JPEG_MARKER = re.compile(
    rb"\xff[^\x00\xff\xd0-\xd7]"
)  # in a scan: neither a stuffed FF, nor a fill byte, nor a restart
_TIFF_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # field type → bytes
_TIFF_DATA = {273: 279, 324: 325}  # tag of the offsets of strips, tiles → tag of their byte counts


def kind(content: Content) -> str | None:
    """Give the kind by the first bytes, None for what is not taken: exotic decoders start other programs (EPS)."""
    head = bytes(content[:32])
    for name, mark in _MARKS:
        if mark.match(head):
            return name
    return None


def fault(kind: str, content: Content) -> str | None:
    """Say what is wrong with the frame of a picture of this kind ("is cut off: …"), or None if it is closed."""
    try:
        return _WALKS[kind](content)
    except (IndexError, struct.error):
        return "is cut off: its parts point behind its last byte"


def _png(content: Content) -> str | None:
    """Walk the chunks to IEND; each checksum must hold (Pillow skips those of the pixels)."""
    for name, _, holds in png.chunks(content):
        if not holds:
            return f"is damaged: the checksum of its {name.decode('latin-1')} chunk is wrong"
        if name == b"IEND":
            break
    return None


def _jpeg(content: Content) -> str | None:
    """Walk the segments to EOI. A plain search would be content with the EOI of the thumbnail inside EXIF."""
    at = 2
    while True:
        match = _JPEG_MARKER.search(content, at)
        if match is None:
            return "is cut off: it has no end-of-image mark"
        marker = content[match.end() - 1]
        if marker == 0xD9:
            return None
        at = match.end()
        if marker != 0x01:  # TEM stands alone; every other segment says its length
            at += struct.unpack_from(">H", content, at)[0]


def _webp(content: Content) -> str | None:
    (size,) = struct.unpack_from("<I", content, 4)
    return None if size + 8 <= len(content) else f"is cut off: {len(content)} of {size + 8} bytes are here"


def _gif(content: Content) -> str | None:
    """Walk the blocks to the trailer; a last byte that merely equals the trailer is none."""
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
            return f"is damaged: 0x{block:02x} begins no GIF block"
    return None


def _colours(flags: int) -> int:
    """Bytes of the palette that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(content: Content, at: int) -> int:
    while length := content[at]:
        at += 1 + length
    return at + 1


def _bmp(content: Content) -> str | None:
    (size,) = struct.unpack_from("<I", content, 2)  # 0 where the writer did not care
    return None if size <= len(content) else f"is cut off: {len(content)} of {size} bytes are here"


def _avif(content: Content) -> str | None:
    """Walk the outermost boxes; the last one's length tells where the file must end."""
    at = 0
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        if size == 0:  # to the end of the file, wherever that was
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
    """Yield (tag, its values if they are strips' places). Raises struct.error where a value lies outside the file."""
    for entry in range(at, at + 12 * number, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", content, entry)
        size = _TIFF_WIDTHS.get(kind, 1) * count
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", content, entry + 8)[0]
        if place + size > len(content):
            raise struct.error
        is_place = tag in _TIFF_DATA or tag in _TIFF_DATA.values()
        letter = {3: "H", 4: "I"}.get(kind)
        yield tag, struct.unpack_from(f"{order}{count}{letter}", content, place) if is_place and letter else ()


_WALKS: dict[str, Callable[[Content], str | None]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _avif,
}

"""Detect the format of an image from its bytes, and check that its container holds all pixels, without decoding.

Decoders tolerate a missing end, so a truncated download can decode. Each function below follows the file's own
structure to its end mark. What every viewer ignores (a wrong outer size, a missing end mark after the last pixel) is a
remark, and the decoder is given the content without it, so that it need not tolerate anything.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage
from pipeline.images import jpeg, png
from pipeline.images.container import NO_END, Container, bytes_after, cut_off
from pipeline.images.other_content import SAVE_AS_IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.images.container import Content

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
_WEBP_PIXELS = frozenset({b"VP8 ", b"VP8L"})
_BMP_UNCOMPRESSED = frozenset({0, 3})  # RGB, bit fields
_TIFF_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # field type → bytes
_TIFF_REDUCED, _TIFF_SUB_IMAGES, _TIFF_DNG = 254, 330, 50706  # NewSubfileType, SubIFDs, DNGVersion
_TIFF_DATA = {273: 279, 324: 325}  # tag of the offsets of strips, tiles → tag of their byte counts


def detect_format(content: Content) -> str | None:
    """Return the format by the first bytes, or None if it is not supported; some decoders run programs (EPS)."""
    head = bytes(content[:32])
    for name, mark in _SIGNATURES:
        if mark.match(head):
            return name
    return None


def check_container(image_format: str, content: Content) -> Container:
    """Return the container of an image of this format, if it is complete. Raises BrokenImage."""
    try:
        return _CHECKS[image_format](content)
    except (IndexError, struct.error):
        raise BrokenImage(f"is a {image_format.upper()} that is cut off: it refers to bytes after its end") from None


def _webp(content: Content) -> Container:
    """Compare the outer size with the chunks. If it is wrong, a still image is complete if its pixels' chunk is.

    The pixels of an animation are in chunks within chunks, and some may be missing.
    """
    (claimed,) = struct.unpack_from("<I", content, 4)
    whole = [(name, end) for name, end in _riff_chunks(content) if end <= len(content)]
    pixels = next((end for name, end in whole if name in _WEBP_PIXELS), None)
    if claimed + 8 <= len(content) and (pixels is None or pixels <= claimed + 8):
        return Container(content, bytes_after(content, claimed + 8 + claimed % 2))
    if pixels is None:
        raise cut_off("WEBP", f"{len(content)} of {claimed + 8} bytes are here")
    mended = b"RIFF" + struct.pack("<I", whole[-1][1] - 8) + bytes(content[8 : whole[-1][1]])
    return Container(mended, (f"its outer size is wrong: {claimed + 8} bytes, and {len(content)} are here",))


def _riff_chunks(content: Content) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of each chunk of a WebP, up to the first that ends after the end of the file."""
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        at += 8 + size
        yield name, at
        at += size % 2


def _gif(content: Content) -> Container:
    """Walk the blocks to the trailer; a last byte that equals the trailer is not enough.

    Without the trailer, a still image may be complete, while an animation may lack frames.
    """
    at, images, is_animated = 13 + _colours(content[10]), 0, False
    while at < len(content) and content[at] != 0x3B:
        block = content[at]
        if block == 0x21:  # extension: introducer, label, sub-blocks
            is_animated = is_animated or content[at + 1] == 0xFF  # an application's: its repetitions
            at = _skip_blocks(content, at + 2)
        elif block == 0x2C:  # image: descriptor, its palette, code size, sub-blocks
            images += 1
            at = _skip_blocks(content, at + 11 + _colours(content[at + 9]))
        elif block == 0:  # some writers pad with zeros
            at += 1
        else:
            raise BrokenImage(f"is a GIF that is damaged: 0x{block:02x} does not begin a GIF block")
    if at < len(content):
        return Container(content, bytes_after(content, at + 1))
    if images != 1 or is_animated:
        raise cut_off("GIF", "it has no trailer")
    return Container(bytes(content) + b";", (NO_END,))


def _colours(flags: int) -> int:
    """Return the size in bytes of the palette that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(content: Content, at: int) -> int:
    while length := content[at]:
        at += 1 + length
    return at + 1


def _bmp(content: Content) -> Container:
    """Compare the outer size, 0 if the writer did not set it, with the rows of pixels."""
    (claimed,) = struct.unpack_from("<I", content, 2)
    if claimed <= len(content):
        return Container(content)
    offset, header = struct.unpack_from("<II", content, 10)
    error = cut_off("BMP", f"{len(content)} of {claimed} bytes are here")
    if header < 40:
        raise error
    width, height, _, depth, compression = struct.unpack_from("<iiHHI", content, 18)
    row = (abs(width) * depth + 31) // 32 * 4
    if compression not in _BMP_UNCOMPRESSED or offset + row * abs(height) > len(content):
        raise error
    mended = bytearray(content)
    struct.pack_into("<I", mended, 2, len(content))
    return Container(bytes(mended), (f"its outer size is wrong: {claimed} bytes, and {len(content)} are here",))


def _avif(content: Content) -> Container:
    """Walk the outermost boxes; the file must end where the last one ends.

    A box of pixels whose size is wrong is taken to reach to the end of the file. The decoder refuses the image if one
    of its parts, whose places are in the box `meta` or `moov`, is not there.
    """
    at, boxes = 0, dict[bytes, int]()
    while at + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
        if size == 0:  # to the end of the file
            return Container(content)
        if size < 8 or not name.isalnum():
            break
        boxes[name] = at
        at += size
    if at == len(content):
        return Container(content)
    pixels = boxes.get(b"mdat")
    if pixels is None or list(boxes)[-1] != b"mdat" or struct.unpack_from(">I", content, pixels)[0] == 1:
        raise cut_off("AVIF", f"{len(content)} of {at} bytes are here")
    mended = bytearray(content)
    struct.pack_into(">I", mended, pixels, 0)
    return Container(bytes(mended), (f"its outer size is wrong: {at} bytes, and {len(content)} are here",))


def _tiff(content: Content) -> Container:
    """Follow the directories: every value and every strip or tile must lie inside the file.

    In a raw photograph, the first directory is a thumbnail, and the photograph is one that no viewer develops alike.
    """
    order = "<" if content[0] == 0x49 else ">"
    seen = set()
    (at,) = struct.unpack_from(order + "I", content, 4)
    while at and at not in seen:
        seen.add(at)
        (number,) = struct.unpack_from(order + "H", content, at)
        tags = dict(_tiff_tags(content, order, at + 2, number))
        if len(seen) == 1 and (_TIFF_DNG in tags or content[8:10] == b"CR" or _is_thumbnail(tags)):
            raise BrokenImage(f"is a raw photograph (DNG, CR2, NEF, ARW): {SAVE_AS_IMAGE}")
        for offsets, counts in _TIFF_DATA.items():
            ends = map(sum, zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False))
            if max(ends, default=0) > len(content):
                raise cut_off("TIFF", "pixels are missing at its end")
        (at,) = struct.unpack_from(order + "I", content, at + 2 + 12 * number)
    return Container(content)


def _is_thumbnail(tags: dict[int, tuple[int, ...]]) -> bool:
    return _TIFF_SUB_IMAGES in tags and bool((tags.get(_TIFF_REDUCED) or (0,))[0] & 1)


def _tiff_tags(content: Content, order: str, at: int, number: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each tag, with its values if they are offsets or byte counts of pixels, or say what the directory is.

    Raises struct.error if a value lies outside the file.
    """
    for entry in range(at, at + 12 * number, 12):
        tag, field_type, count = struct.unpack_from(order + "HHI", content, entry)
        size = _TIFF_WIDTHS.get(field_type, 1) * count
        start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", content, entry + 8)[0]
        if start + size > len(content):
            raise struct.error
        is_location = tag in _TIFF_DATA or tag in _TIFF_DATA.values() or tag == _TIFF_REDUCED
        letter = {3: "H", 4: "I"}.get(field_type)
        yield tag, struct.unpack_from(f"{order}{count}{letter}", content, start) if is_location and letter else ()


_CHECKS: dict[str, Callable[[Content], Container]] = {
    "png": png.check_chunks,
    "jpeg": jpeg.check_segments,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "avif": _avif,
}

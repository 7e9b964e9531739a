"""Detect the format of an image from its bytes, and check that its container holds all pixels, without decoding.

Decoders tolerate a missing end, so a truncated download can decode. Each function below follows the file's own
structure to its end mark. What every viewer ignores (a wrong outer size, a missing end mark after the last pixel) is a
remark, and the decoder is given the content without it, so that it need not tolerate anything. Each function also
reads the size that the file claims, and bounds the number of its parts: the work is linear in the size of the file.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage
from pipeline.images import jpeg, png, tiff
from pipeline.images.container_check import NO_END, Container, Size, bytes_after, cut_off
from pipeline.images.limits import MAX_BLOCKS, MAX_PARTS, too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.images.container_check import Content

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
_BMP_RUN_LENGTHS = frozenset({1, 2})  # of 8 bits, of 4 bits
_MAX_GIF_IMAGES = 10_000
_MAX_AVIF_SIZES = 64  # properties that are read: a grid has one for its tiles


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
    chunks = list(_riff_chunks(content))
    whole = [(name, end) for name, end in chunks if end <= len(content)]
    pixels = next((end for name, end in whole if name in _WEBP_PIXELS), None)
    size, frames = _webp_size(content), sum(name == b"ANMF" for name, _ in chunks) or 1
    if claimed + 8 <= len(content) and (pixels is None or pixels + pixels % 2 <= claimed + 8):
        return Container(content, size, bytes_after(content, claimed + 8 + claimed % 2), frames=frames)
    if pixels is None:
        raise cut_off("WEBP", f"{len(content)} of {claimed + 8} bytes are here")
    end = whole[-1][1]
    body = bytes(content[8:end]) + b"\0" * (end % 2)  # a chunk of odd size is padded
    mended = b"RIFF" + struct.pack("<I", len(body)) + body
    return Container(mended, size, _wrong_size(content, claimed + 8), frames=frames)


def _webp_size(content: Content) -> Size:
    """Return the size in the first chunk: of the canvas, or of the one frame."""
    kind = bytes(content[12:16])
    if kind == b"VP8X":
        wide, high = (int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
        return wide + 1, high + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    wide, high = struct.unpack_from("<HH", content, 26)
    return wide & 0x3FFF, high & 0x3FFF


def _wrong_size(content: Content, claimed: int) -> tuple[str, ...]:
    return (f"its outer size is wrong: {claimed} bytes, and {len(content)} are here",)


def _riff_chunks(content: Content) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the end of each chunk of a WebP, up to the first that ends after the end of the file."""
    at, number = 12, 0
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        number += 1
        if number > MAX_PARTS:
            raise too_long("webp", f"{MAX_PARTS:,} chunks")
        at += 8 + size
        yield name, at
        at += size % 2


@dataclass(slots=True)
class _Blocks:
    """The walk along the blocks of a GIF, up to its trailer."""

    content: Content
    size: Size
    images: int = 0
    is_animated: bool = False
    sub_blocks: int = 0

    def walk(self, at: int) -> int:
        """Return where the trailer is, or the end of the file."""
        content = self.content
        while at < len(content) and content[at] != 0x3B:
            block = content[at]
            if block == 0x21:  # extension: introducer, label, sub-blocks
                self.is_animated = self.is_animated or content[at + 1] == 0xFF  # an application's: its repetitions
                at = self._skip(at + 2)
            elif block == 0x2C:  # image: descriptor, its palette, code size, sub-blocks
                self._count(*struct.unpack_from("<4H", content, at + 1))
                at = self._skip(at + 11 + _colours(content[at + 9]))
            elif block == 0:  # some writers pad with zeros
                at += 1
            else:
                raise BrokenImage(f"is a GIF that is damaged: 0x{block:02x} does not begin a GIF block")
        return at

    def _count(self, left: int, top: int, width: int, height: int) -> None:
        """Count an image; one that reaches beyond the screen makes it larger."""
        self.images += 1
        if self.images > _MAX_GIF_IMAGES:
            raise too_long("gif", f"{_MAX_GIF_IMAGES:,} frames")
        self.size = max(self.size[0], left + width), max(self.size[1], top + height)

    def _skip(self, at: int) -> int:
        """Return where the sub-blocks that begin here end."""
        content, begin = self.content, self.sub_blocks
        while length := content[at]:
            at += 1 + length
            begin += 1
            if begin > MAX_BLOCKS:
                raise too_long("gif", f"{MAX_BLOCKS:,} blocks")
        self.sub_blocks = begin + 1
        return at + 1


def _gif(content: Content) -> Container:
    """Walk the blocks to the trailer; a last byte that equals the trailer is not enough.

    Without the trailer, a still image may be complete, while an animation may lack frames.
    """
    blocks = _Blocks(content, struct.unpack_from("<HH", content, 6))
    end = blocks.walk(13 + _colours(content[10]))
    if end < len(content):
        return Container(content, blocks.size, bytes_after(content, end + 1), frames=blocks.images)
    if blocks.images != 1 or blocks.is_animated:
        raise cut_off("GIF", "it has no trailer")
    return Container(bytes(content) + b";", blocks.size, (NO_END,))


def _colours(flags: int) -> int:
    """Return the size in bytes of the palette that the flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(content: Content) -> Container:
    """Compare the outer size, 0 if the writer did not set it, with the rows of pixels.

    Run lengths are decoded by Pillow in Python: so a process decodes them.
    """
    (claimed,) = struct.unpack_from("<I", content, 2)
    offset, header = struct.unpack_from("<II", content, 10)
    if header < 40:
        wide, high = struct.unpack_from("<HH", content, 18)
        depth, compression = 0, 0
    else:
        wide, high, _, depth, compression = struct.unpack_from("<iiHHI", content, 18)
    size, is_opaque = (abs(wide), abs(high)), compression in _BMP_RUN_LENGTHS
    if claimed <= len(content):
        return Container(content, size, is_opaque=is_opaque)
    row = (size[0] * depth + 31) // 32 * 4
    is_cut = compression not in _BMP_UNCOMPRESSED or offset + row * size[1] > len(content)
    if header < 40 or is_cut:
        raise cut_off("BMP", f"{len(content)} of {claimed} bytes are here")
    mended = bytearray(content)
    struct.pack_into("<I", mended, 2, len(content))
    return Container(bytes(mended), size, _wrong_size(content, claimed))


def _avif(content: Content) -> Container:
    """Walk the outermost boxes; the file must end where the last one ends.

    A box of pixels whose size is wrong is taken to reach to the end of the file. The decoder refuses the image if one
    of its parts, whose places are in the box `meta` or `moov`, is not there. Its work does not show in the boxes: the
    pixels may have frames that are not shown, and of another size.
    """
    size = _avif_size(bytes(content))
    boxes, end = _avif_boxes(content)
    if end is None or end == len(content):
        return Container(content, size, is_opaque=True)
    pixels = boxes.get(b"mdat")
    if pixels is None or list(boxes)[-1] != b"mdat" or struct.unpack_from(">I", content, pixels)[0] == 1:
        raise cut_off("AVIF", f"{len(content)} of {end} bytes are here")
    mended = bytearray(content)
    struct.pack_into(">I", mended, pixels, 0)
    return Container(bytes(mended), size, _wrong_size(content, end), is_opaque=True)


def _avif_boxes(content: Content) -> tuple[dict[bytes, int], int | None]:
    """Return where each outermost box begins, and the end of the last; None if it reaches to the end of the file."""
    at, number, boxes = 0, 0, dict[bytes, int]()
    while at + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, at + 8)
        if size == 0:
            return boxes, None
        if size < 8 or not name.isalnum():
            break
        number += 1
        if number > MAX_PARTS:
            raise too_long("avif", f"{MAX_PARTS:,} boxes")
        boxes[name] = at
        at += size
    return boxes, at


def _avif_size(content: bytes) -> Size:
    """Return the largest of the sizes that the first properties `ispe` claim; (0, 0) if there is none."""
    size, at = (0, 0), -1
    for _ in range(_MAX_AVIF_SIZES):
        at = content.find(b"ispe", at + 1)
        if at < 0 or at + 16 > len(content):
            break
        size = max(size, struct.unpack_from(">II", content, at + 8), key=lambda edges: edges[0] * edges[1])
    return size


_CHECKS: dict[str, Callable[[Content], Container]] = {
    "png": png.check_chunks,
    "jpeg": jpeg.check_segments,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": tiff.check_directories,
    "avif": _avif,
}

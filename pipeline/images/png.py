"""Verify that a PNG is complete, by inflating its pixels without making an image of them, and return its size.

As strict as decoding: every chunk's checksum, the stream's own checksum, as many bytes as the rows need, and a valid
filter on each row. Everything else (interlaced, animated, unusual, damaged) is left to Pillow.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import deflate  # libdeflate: twice as fast as zlib, as strict, and one call without the GIL

from pipeline.errors import BrokenImage
from pipeline.images.container_check import NO_END, Container, Size, bytes_after, cut_off
from pipeline.images.limits import MAX_PARTS, MemoryBudget, memory_budget, too_long

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.images.container_check import Content

_HEAD: Final = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR"
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type → samples a pixel
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ANIMATION: Final = frozenset({b"acTL", b"fcTL", b"fdAT"})
_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"IDAT"}) | _ANIMATION
_NEEDED: Final = _PIXELS | {b"tRNS", b"IEND"}
_IEND: Final = b"\0\0\0\0IEND\xaeB`\x82"
_MAX_FILTER: Final = 4  # Paeth
_MAX_BYTES: Final = 1 << 30
_MAX_REMARKS: Final = 5
_MAX_RATIO: Final = 1032  # of deflate: no buffer is allocated for a stream that claims more


def complete_png_size(content: bytes, max_pixels: int, budget: MemoryBudget = memory_budget) -> tuple[int, int] | None:
    """Return (width, height) of a regular, complete PNG; None for everything else, which may still be an image."""
    try:
        return _complete_png_size(memoryview(content), max_pixels, budget) if content.startswith(_HEAD) else None
    except (struct.error, deflate.DeflateError, IndexError):
        return None


def _complete_png_size(content: memoryview, max_pixels: int, budget: MemoryBudget) -> tuple[int, int] | None:
    width, height, depth, colour, *methods = struct.unpack_from(">IIBBBBB", content, 16)
    if any(methods) or depth not in _DEPTHS.get(colour, ()) or not 0 < width * height <= max_pixels:
        return None
    parts = _pixel_parts(content, needs_palette=colour == 3)
    row = 1 + (width * depth * _CHANNELS[colour] + 7) // 8
    if parts is None or row * height > _MAX_BYTES:
        return None
    with budget.hold(row * height):
        pixels = _inflated(parts, row * height)
        is_whole = pixels is not None and max(pixels[::row]) <= _MAX_FILTER
        del pixels  # before the memory is released
    return (width, height) if is_whole else None


def check_chunks(content: Content) -> Container:
    """Walk the chunks to IEND; each chunk that holds pixels must have its checksum (Pillow skips those of IDAT).

    Others with a wrong checksum are left out, as libpng does. Without IEND, a still image may be complete, while an
    animation may lack frames. Raises BrokenImage.
    """
    view = memoryview(content)
    walk = _Chunks([view[:8]])
    with contextlib.suppress(struct.error):  # it ends within a chunk
        walk.read(view)
    if walk.has_end and not walk.remarks:
        return Container(content, walk.size, bytes_after(content, walk.at), frames=walk.frames)
    if not walk.has_end and (b"IDAT" not in walk.names or walk.names & _ANIMATION):
        raise cut_off("PNG", "it has no IEND chunk")
    end = bytes_after(content, walk.at) if walk.has_end else (NO_END,)
    return Container(b"".join([*walk.kept, _IEND]), walk.size, (*walk.few_remarks(), *end), frames=walk.frames)


@dataclass(slots=True)
class _Chunks:
    """The walk along the chunks of a PNG, to IEND."""

    kept: list[memoryview]
    remarks: dict[str, None] = field(default_factory=dict)  # in their order, each once
    names: set[bytes] = field(default_factory=set)
    at: int = 8
    has_end: bool = False
    size: Size = (0, 0)
    frames: int = 1

    def read(self, view: memoryview) -> None:
        """Keep the chunks that are valid. Raises BrokenImage and, if the last one is cut off, struct.error."""
        for number, (name, part, is_valid) in enumerate(chunks(view)):
            if not name.isalpha():
                return
            if number > MAX_PARTS:
                raise too_long("png", f"{MAX_PARTS:,} chunks")
            begin, self.at = self.at, self.at + 12 + len(part)
            is_critical = name in _PIXELS or not name[0] & 0x20
            if not is_valid and is_critical and name != b"IEND":
                raise BrokenImage(f"is a PNG that is damaged: {_wrong_checksum(name)}")
            if not is_valid:
                self.remarks[_wrong_checksum(name)] = None
            elif name != b"IEND":
                self.kept.append(view[begin : self.at])
                self.names.add(name)
                self._measure(name, part)
            if name == b"IEND":
                self.has_end = True
                return

    def _measure(self, name: bytes, part: memoryview) -> None:
        if name == b"IHDR":
            self.size = struct.unpack_from(">II", part)
        elif name == b"acTL":
            (self.frames,) = struct.unpack_from(">I", part)

    def few_remarks(self) -> tuple[str, ...]:
        """Return the first remarks, and how many more there are."""
        first, more = tuple(self.remarks)[:_MAX_REMARKS], len(self.remarks) - _MAX_REMARKS
        return (*first, f"and {more} more chunks like these") if more > 0 else first


def _wrong_checksum(name: bytes) -> str:
    return f"the checksum of its {name.decode('latin-1')} chunk is wrong"


def without_metadata(content: Content) -> bytes:
    """Return a checked PNG with nothing but its pixels, for a decoder that refuses malformed metadata."""
    view = memoryview(content)
    kept, at = [view[:8]], 8
    for name, part, _ in chunks(view):
        begin, at = at, at + 12 + len(part)
        if name in _NEEDED:
            kept.append(view[begin:at])
        if name == b"IEND":
            break
    return b"".join(kept)


def chunks(content: bytes | memoryview) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Yield the chunks of a PNG: name, content, and whether the checksum matches. The caller stops at IEND.

    Raises struct.error if a chunk is cut off.
    """
    view, at = memoryview(content), 8
    while True:
        length, name = struct.unpack_from(">I4s", view, at)
        (checksum,) = struct.unpack_from(">I", view, at + 8 + length)
        yield name, view[at + 8 : at + 8 + length], deflate.crc32(view[at + 4 : at + 8 + length]) == checksum
        at += 12 + length


def _pixel_parts(content: memoryview, *, needs_palette: bool) -> list[memoryview] | None:
    """Return the contents of the IDAT chunks, which must be consecutive; None if the PNG is not regular."""
    parts: list[memoryview] = []
    ended, has_palette = False, False
    for number, (name, part, is_valid) in enumerate(chunks(content)):
        if not is_valid or number > MAX_PARTS:
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
    """Inflate to exactly `size` bytes. Return None if there are fewer; raises DeflateError if there are more."""
    stream = parts[0] if len(parts) == 1 else b"".join(parts)
    if size > _MAX_RATIO * len(stream):
        return None
    pixels = deflate.zlib_decompress(stream, size)
    return pixels if len(pixels) == size else None

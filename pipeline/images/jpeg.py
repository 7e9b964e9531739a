"""Check that a JPEG is complete: its segments reach the end mark, or else its last scan holds every pixel.

Whether a scan is complete shows only in its decoding, and libjpeg fills what is missing with grey. So a JPEG without an
end mark is decoded with several endings: what follows a complete scan does not change a pixel, and replacing the last
bytes of a complete scan does.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.images.container import NO_END, Container, bytes_after, cut_off

if TYPE_CHECKING:
    from pipeline.images.container import Content

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan: not a stuffed FF, fill byte or restart marker
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_EOI, _TEM, _SOS, _DRI = 0xD9, 0x01, 0xDA, 0xDD
_APP2 = 0xE2
_END = b"\xff\xd9"
_NOISES = tuple(
    bytes((first + step * place) % 255 for place in range(256))
    for first, step in ((254, 166), (85, 7), (170, 58), (1, 94))
)
"""Endings that differ in each of their first bits, and from the 0 that libjpeg fills up with; without the byte FF."""
_RESERVED = 64  # bytes 0 at the end: the file was made in its full size, and not all of it arrived
_SHORTER = 8  # bytes: so many bits of a scan decide over pixels, unless it is that short as a whole


@dataclass(slots=True)
class _Frame:
    """What the segments before the end announce."""

    is_huffman: bool = False
    restart_interval: int = 0
    bits_missing: dict[int, list[int]] = field(default_factory=dict)  # component → coefficient → low bits to come
    scan_begins: int | None = None  # None if the last segment was another
    has_more_images: bool = False  # MPO: they follow the end of the first

    def read(self, marker: int, segment: bytes, end: int) -> None:
        self.scan_begins = end if marker == _SOS else None
        if marker in _HUFFMAN_FRAMES:
            self.is_huffman = True
            self.bits_missing = {segment[at]: [16] * 64 for at in range(6, 6 + 3 * segment[5], 3)}
        elif marker == _DRI:
            (self.restart_interval,) = struct.unpack_from(">H", segment)
        elif marker == _APP2 and segment.startswith(b"MPF\0"):
            self.has_more_images = True
        elif marker == _SOS:
            first, last, bits = (segment[1 + 2 * segment[0] + place] for place in range(3))
            for at in range(1, 1 + 2 * segment[0], 2):
                for coefficient in range(first, min(last, 63) + 1):
                    self.bits_missing.setdefault(segment[at], [16] * 64)[coefficient] = bits & 0x0F

    @property
    def all_scans_began(self) -> bool:
        """Whether each coefficient of each component is in a scan, to its last bit."""
        return bool(self.bits_missing) and not any(map(any, self.bits_missing.values()))


def check_segments(content: Content) -> Container:
    """Walk the segments to EOI. A plain search would find the EOI of the thumbnail inside EXIF.

    Raises BrokenImage, struct.error and IndexError.
    """
    frame, at = _Frame(), 2
    while (match := _MARKER.search(content, at)) is not None:
        marker, at = content[match.end() - 1], match.end()
        if marker == _EOI:
            return Container(content, () if frame.has_more_images else bytes_after(content, at))
        if marker != _TEM:  # which has no content; every other segment begins with its length
            (length,) = struct.unpack_from(">H", content, at)
            frame.read(marker, bytes(content[at + 2 : at + length]), at + length)
            at += length
    is_reserved = not any(content[-_RESERVED:])
    if frame.scan_begins is None or not frame.is_huffman or not frame.all_scans_began or is_reserved:
        raise cut_off("JPEG", "it has no end-of-image mark")
    return _without_end(bytes(content).rstrip(b"\xff"), frame, frame.scan_begins)


def _without_end(content: bytes, frame: _Frame, scan_begins: int) -> Container:
    shorter = content[:-_SHORTER]
    return Container(
        content + _END,
        (NO_END,),
        same=(content + _END, *(content + _tail(noise, content, frame, scan_begins) for noise in _NOISES)),
        other=shorter + _tail(_NOISES[0], shorter, frame, scan_begins) if len(shorter) > scan_begins else b"",
    )


def _tail(noise: bytes, content: bytes, frame: _Frame, scan_begins: int) -> bytes:
    """Return bytes that a decoder reads as pixels if the scan is not complete, at once or after a restart marker."""
    if not frame.restart_interval:
        return noise + _END
    number = sum(1 for _ in _RESTART.finditer(content, scan_begins))
    return noise + b"".join(b"\xff" + bytes([0xD0 + (number + more) % 8]) + noise for more in range(8)) + _END

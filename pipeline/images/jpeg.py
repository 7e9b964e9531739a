"""Check that a JPEG is complete: its segments reach the end mark, or else its last scan holds every pixel.

Whether a scan is complete shows only in its decoding, and libjpeg fills what is missing with grey. So a JPEG without an
end mark is decoded with several endings: what follows a complete scan does not change a pixel, and replacing the last
bytes of a complete scan does.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.images.container_check import NO_END, Container, Size, bytes_after, cut_off
from pipeline.images.limits import MAX_PARTS, MAX_SCANS, too_long

if TYPE_CHECKING:
    from pipeline.images.container_check import Content

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan: not a stuffed FF, fill byte or restart marker
_HUFFMAN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # all but tables and an extension
_EOI, _TEM, _SOS, _DRI = 0xD9, 0x01, 0xDA, 0xDD
_APP1, _APP2 = 0xE1, 0xE2
_END = b"\xff\xd9"
_LONGEST_EXIF = 1 << 17  # bytes: two segments
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
    size: Size = (0, 0)
    segments: int = 0
    scans: int = 0
    exif_bytes: int = 0

    def read(self, marker: int, segment: bytes, end: int) -> None:
        self.scan_begins = end if marker == _SOS else None
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", segment, 1)
            self.size = max(self.size[0], width), max(self.size[1], height)
        if marker in _HUFFMAN_FRAMES:
            self.is_huffman = True
            self.bits_missing = {segment[at]: [16] * 64 for at in range(6, 6 + 3 * segment[5], 3)}
        elif marker == _DRI:
            (self.restart_interval,) = struct.unpack_from(">H", segment)
        elif marker == _APP1 and segment.startswith(b"Exif\0\0"):
            self.exif_bytes += len(segment)  # a long one is in several segments
        elif marker == _APP2 and segment.startswith(b"MPF\0"):
            self.has_more_images = True
        elif marker == _SOS:
            first, last, bits = (segment[1 + 2 * segment[0] + place] for place in range(3))
            for at in range(1, 1 + 2 * segment[0], 2):
                for coefficient in range(first, min(last, 63) + 1):
                    self.bits_missing.setdefault(segment[at], [16] * 64)[coefficient] = bits & 0x0F

    def count(self, marker: int) -> None:
        """Count a marker. Raises BrokenImage if there are too many, or too many scans."""
        self.segments += 1
        self.scans += marker == _SOS
        if self.segments > MAX_PARTS:
            raise too_long("jpeg", f"{MAX_PARTS:,} segments")
        if self.scans > MAX_SCANS:
            raise too_long("jpeg", f"{MAX_SCANS} scans")

    def container(self, content: Content, remarks: tuple[str, ...]) -> Container:
        """Return the container of what was read; long EXIF, which Pillow joins in quadratic time, makes it opaque."""
        return Container(content, self.size, remarks, scans=self.scans, is_opaque=self.exif_bytes > _LONGEST_EXIF)

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
        frame.count(marker)
        if marker == _EOI:
            return frame.container(content, () if frame.has_more_images else bytes_after(content, at))
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
    return replace(
        frame.container(content + _END, (NO_END,)),
        same=(content + _END, *(content + tail for tail in _tails(content, frame, scan_begins))),
        other=shorter + _tails(shorter, frame, scan_begins)[0] if len(shorter) > scan_begins else b"",
    )


def _tails(content: bytes, frame: _Frame, scan_begins: int) -> list[bytes]:
    """Return bytes that a decoder reads as pixels if the scan is not complete, at once or after a restart marker."""
    if not frame.restart_interval:
        return [noise + _END for noise in _NOISES]
    restarts = sum(content.count(bytes((0xFF, 0xD0 + number)), scan_begins) for number in range(8))
    marks = [b"\xff" + bytes([0xD0 + (restarts + more) % 8]) for more in range(8)]
    return [noise + b"".join(mark + noise for mark in marks) + _END for noise in _NOISES]

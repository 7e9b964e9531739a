"""Check that a TIFF is complete: every value and every strip or tile of its directories lies inside the file.

The work is bounded by the size of the file: values that do not overlap take no more bytes than it has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage
from pipeline.images.container_check import SAVE_AS_IMAGE, Container, Size, cut_off
from pipeline.images.limits import MAX_PARTS, MIB, too_long

if TYPE_CHECKING:
    from pipeline.images.container_check import Content

_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # field type → bytes
_REDUCED, _SUB_IMAGES, _DNG = 254, 330, 50706  # NewSubfileType, SubIFDs, DNGVersion
_WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 259, 322, 323
_DATA = {273: 279, 324: 325}  # tag of the offsets of strips, tiles → tag of their byte counts
_READ = {_REDUCED, _WIDTH, _HEIGHT, _COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT, *_DATA, *_DATA.values()}
_SHARED = MIB  # bytes that the values may take beyond the size of the file, since some writers share values
_MAX_DIRECTORIES = 10_000
_MAX_STRIPS = 1_000  # of a directory, above which the decoder's loop over them is slow


@dataclass(slots=True)
class _Directories:
    """The walk along the directories of one file: what it has found, and what is left of its bounds."""

    content: Content
    order: str
    entries: int = 0
    value_bytes: int = 0
    begins: set[int] = field(default_factory=set)
    size: Size = (0, 0)
    is_opaque: bool = False

    def tags(self, at: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Return the tags of a directory and where the offset of the next one is.

        Only the values that are offsets or sizes are read; of a tag that is repeated, the last one counts, as for
        Pillow. Raises struct.error if a value lies outside the file.
        """
        (number,) = struct.unpack_from(self.order + "H", self.content, at)
        self.entries += number
        if self.entries > MAX_PARTS:
            raise too_long("tiff", f"{MAX_PARTS:,} tags")
        tags: dict[int, tuple[int, ...]] = {}
        for entry in range(at + 2, at + 2 + 12 * number, 12):
            tag, field_type, count = struct.unpack_from(self.order + "HHI", self.content, entry)
            self.is_opaque = self.is_opaque or tag in tags  # libtiff may take another value than Pillow
            size = _WIDTHS.get(field_type, 1) * count
            start = entry + 8 if size <= 4 else struct.unpack_from(self.order + "I", self.content, entry + 8)[0]
            if start + size > len(self.content):
                raise struct.error
            self.value_bytes += size
            if self.value_bytes > len(self.content) + _SHARED:
                raise BrokenImage("is a TIFF that is damaged: the values of its tags overlap")
            letter = {3: "H", 4: "I"}.get(field_type) if tag in _READ else None
            tags[tag] = struct.unpack_from(f"{self.order}{count}{letter}", self.content, start) if letter else ()
        return tags, at + 2 + 12 * number

    def measure(self, tags: dict[int, tuple[int, ...]]) -> None:
        """Check that the pixels of a directory are here, and add its size to the others."""
        for offsets, counts in _DATA.items():
            ends = map(sum, zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False))
            if max(ends, default=0) > len(self.content):
                raise cut_off("TIFF", "pixels are missing at its end")
            self.is_opaque = self.is_opaque or len(tags.get(offsets, ())) > _MAX_STRIPS
        first = {tag: values[0] for tag, values in tags.items() if values}
        edges = (max(first.get(_WIDTH, 0), first.get(_TILE_WIDTH, 0)), first.get(_HEIGHT, 0))
        edges = (edges[0], max(edges[1], first.get(_TILE_HEIGHT, 0)))
        self.size = max(self.size, edges, key=lambda size: size[0] * size[1])
        is_unread = any(tag in tags and not tags[tag] for tag in _READ)  # of a type that Pillow reads all the same
        self.is_opaque = self.is_opaque or is_unread or first.get(_COMPRESSION, 1) != 1


def check_directories(content: Content) -> Container:
    """Follow the directories. Raises BrokenImage and struct.error.

    In a raw photograph, the first directory is a thumbnail, and the photograph is one that no viewer develops alike. A
    compressed one is decoded by libtiff, which writes its complaints to the terminal: so a process decodes it.
    """
    walk = _Directories(content, "<" if content[0] == 0x49 else ">")
    (at,) = struct.unpack_from(walk.order + "I", content, 4)
    while at and at not in walk.begins:
        walk.begins.add(at)
        if len(walk.begins) > _MAX_DIRECTORIES:
            raise too_long("tiff", f"{_MAX_DIRECTORIES:,} pages")
        tags, following = walk.tags(at)
        if len(walk.begins) == 1 and (_DNG in tags or content[8:10] == b"CR" or _is_thumbnail(tags)):
            raise BrokenImage(f"is a raw photograph (DNG, CR2, NEF, ARW): {SAVE_AS_IMAGE}")
        walk.measure(tags)
        (at,) = struct.unpack_from(walk.order + "I", content, following)
    return Container(content, walk.size, frames=len(walk.begins), is_opaque=walk.is_opaque)


def _is_thumbnail(tags: dict[int, tuple[int, ...]]) -> bool:
    return _SUB_IMAGES in tags and bool((tags.get(_REDUCED) or (0,))[0] & 1)

"""Finds the provenance mark in an image: a manifest of C2PA, at the place that its specification has for the format.

The mark is found, not verified: that would take the certificates of who signed it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from pipeline.images.limits import MAX_PARTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PNG_CHUNK = b"caBX"
_WEBP_CHUNK = b"C2PA"
_GIF_EXTENSION = b"\x21\xff\x0bC2PA_GIF"
_SVG_ELEMENT = b"c2pa:manifest"
_AVIF_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_TIFF_TAG = 0xCD41
_APP11, _SOS = 0xEB, 0xDA


def has_c2pa_mark(content: bytes, image_format: str) -> bool:
    """Return whether a whole image of a format has a manifest of C2PA."""
    find = _FINDERS.get(image_format)
    try:
        return find is not None and find(content)
    except (struct.error, IndexError):  # its metadata refer to bytes after its end
        return False


def _in_png(content: bytes) -> bool:
    return any(name == _PNG_CHUNK for name, _ in _parts(content, 8, ">I4s", 12))


def _in_webp(content: bytes) -> bool:
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(content):
            break
        name, size = struct.unpack_from("<4sI", content, at)
        if name == _WEBP_CHUNK:
            return True
        at += 8 + size + size % 2
    return False


def _in_avif(content: bytes) -> bool:
    return any(name == b"uuid" and content[at + 8 : at + 24] == _AVIF_BOX for name, at in _parts(content, 0, ">I4s", 0))


def _parts(content: bytes, at: int, form: str, more: int) -> Iterator[tuple[bytes, int]]:
    """Yield the name and the place of each part that begins with its length; it has `more` bytes than that."""
    for _ in range(MAX_PARTS):
        if at + 8 > len(content):
            break
        size, name = struct.unpack_from(form, content, at)
        yield name, at
        if size + more < 8:  # it reaches to the end, or its length is in 64 bits, as only pixels' is
            break
        at += size + more


def _in_jpeg(content: bytes) -> bool:
    """Look at the segments before the pixels: APP11 with a box of JUMBF whose label is that of C2PA."""
    at = 2
    for _ in range(MAX_PARTS):
        marker = content[at + 1]
        if content[at] != 0xFF or marker == _SOS:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        segment = content[at + 4 : at + 2 + length]
        if marker == _APP11 and segment.startswith(b"JP") and b"jumb" in segment and b"c2pa" in segment:
            return True
        at += 2 + length
    return False


def _in_tiff(content: bytes) -> bool:
    order = "<" if content.startswith(b"II") else ">"
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, at)
    return any(
        struct.unpack_from(f"{order}H", content, at + 2 + 12 * number)[0] == _TIFF_TAG for number in range(count)
    )


_FINDERS: dict[str, Callable[[bytes], bool]] = {
    "png": _in_png,
    "jpeg": _in_jpeg,
    "webp": _in_webp,
    "avif": _in_avif,
    "tiff": _in_tiff,
    "gif": lambda content: _GIF_EXTENSION in content,
    "svg": lambda content: _SVG_ELEMENT in content,
}

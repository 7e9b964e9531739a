"""C2PA marks are found in each format at the place that the specification has for them, and nowhere else."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from pipeline.images.provenance import has_c2pa_mark
from tests.support.exports import png_with_note
from tests.support.workbench import PNG

JUMBF = b"\0\0\0\x1ejumb\0\0\0\x16jumdc2pa\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\x03c2pa\0"
C2PA_BOX = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")


def _webp_with(name: bytes, content: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "webp")
    body = stream.getvalue()[8:] + struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_with(marker: int, content: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "jpeg")
    whole = stream.getvalue()
    return whole[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + whole[2:]


def _tiff_with(tag: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "tiff", tiffinfo={tag: b"manifest"})
    return stream.getvalue()


def _gif_with(name: bytes) -> bytes:
    stream = io.BytesIO()
    Image.new("P", (8, 8)).save(stream, "gif")
    whole = stream.getvalue()
    return whole[:-1] + b"\x21\xff\x0b" + name + b"\x01\0\0\x02ab\0" + whole[-1:]


def _avif_with(name: bytes) -> bytes:
    box = struct.pack(">I4s", 28, b"uuid") + name + b"\0\0\0\0"
    return struct.pack(">I4s8s", 16, b"ftyp", b"avif\0\0\0\0") + box + struct.pack(">I4s4s", 0, b"mdat", b"....")


MARKED = [
    ("png", png_with_note(JUMBF, b"caBX", b""), PNG),
    ("jpeg", _jpeg_with(0xEB, b"JP\0\1\0\0\0\1" + JUMBF), _jpeg_with(0xEB, b"JP\0\1\0\0\0\1jumb other")),
    ("webp", _webp_with(b"C2PA", JUMBF), _webp_with(b"XMP ", b"C2PA c2pa")),
    ("gif", _gif_with(b"C2PA_GIF\1\0\0"), _gif_with(b"NETSCAPE2.0")),
    ("tiff", _tiff_with(0xCD41), _tiff_with(0xCD42)),
    ("avif", _avif_with(C2PA_BOX), _avif_with(b"0" * 16)),
    ("svg", b"<svg><metadata><c2pa:manifest>AA</c2pa:manifest></metadata></svg>", b"<svg><title>c2pa</title></svg>"),
]


@pytest.mark.parametrize(("kind", "marked", "plain"), MARKED, ids=[kind for kind, _, _ in MARKED])
def test_a_c2pa_mark_is_found_at_its_place_and_nowhere_else(kind: str, marked: bytes, plain: bytes) -> None:
    assert has_c2pa_mark(marked, kind)
    assert not has_c2pa_mark(plain, kind)
    for cut in range(len(plain)):
        assert not has_c2pa_mark(plain[:cut], kind)


def test_a_format_without_a_place_for_marks_has_none() -> None:
    assert not has_c2pa_mark(b"BM c2pa", "bmp")

"""What is taken for a whole PNG without Pillow is one for Pillow too, and every other PNG is left to it."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import BrokenImage
from pipeline.images import inspect
from pipeline.images.limits import MAX_PIXELS
from pipeline.images.png import complete_png_size
from tests.bench.pictures import noise


def png(mode: str = "RGB", size: tuple[int, int] = (24, 17), **more: Any) -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(noise(32, 3))).resize(size).convert(mode).save(stream, "PNG", **more)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def made(rows: bytes, *, width: int = 2, height: int = 2, before: bytes = b"", after: bytes = b"") -> bytes:
    """Write a PNG of grey pixels by hand."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + after + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_whole_png_of_any_mode_has_its_size(mode: str) -> None:
    content = png("L", (24, 17)) if mode == "I;16" else png(mode)
    if mode == "I;16":
        stream = io.BytesIO()
        Image.new("I;16", (24, 17), 500).save(stream, "PNG")
        content = stream.getvalue()
    assert complete_png_size(content, MAX_PIXELS) == (24, 17)
    found = inspect.inspect(content)
    assert (found.width, found.height) == (24, 17)


def test_pixels_in_many_chunks_with_others_around_them_are_whole() -> None:
    content = noise(300, 1)
    assert content.count(b"IDAT") > 2
    assert complete_png_size(content, MAX_PIXELS) == (300, 300)
    assert complete_png_size(made(b"\0ab\4cd", before=chunk(b"tEXt", b"a\0b"), after=chunk(b"tEXt", b"c\0d")), 4) == (
        2,
        2,
    )
    assert complete_png_size(content + b"behind the end", MAX_PIXELS) == (300, 300)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GIF89a", id="another kind"),
        pytest.param(made(b"\0ab\5cd"), id="a filter that does not exist"),
        pytest.param(made(b"\0ab\0c"), id="too few pixels"),
        pytest.param(made(b"\0ab\0cde"), id="too many pixels"),
        pytest.param(made(b"\0ab\0cd", height=3), id="a row that is missing"),
        pytest.param(made(b"\0ab\0cd", width=0), id="no width"),
        pytest.param(made(b"\0ab\0cd", before=chunk(b"acTL", b"\0" * 8)), id="animated"),
        pytest.param(made(b"\0ab\0cd")[:-12], id="no end"),
        pytest.param(made(b"\0ab\0cd").replace(b"IEND", b"IENE"), id="a wrong checksum"),
        pytest.param(made(b"\0ab\0cd", after=chunk(b"tEXt", b"") + chunk(b"IDAT", b"")), id="pixels in two places"),
        pytest.param(made(b"\0" * 6, width=20_000, height=20_000), id="a bomb"),
        pytest.param(made(b"\0" * 50_000_000, width=2, height=2), id="a bomb of zeros"),
    ],
)
def test_what_is_not_wholly_regular_is_left_to_pillow(content: bytes) -> None:
    assert complete_png_size(content, MAX_PIXELS) is None


def test_every_cut_of_a_png_is_left_to_pillow() -> None:
    content = png()
    assert all(complete_png_size(content[:length], MAX_PIXELS) is None for length in range(len(content)))


@settings(max_examples=125, deadline=None, derandomize=True)
@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
    st.booleans(),
)
def test_whatever_is_taken_pillow_takes_as_well(mode: str, changes: list[tuple[int, int]], mended: bool) -> None:
    content = bytearray(png(mode, (9, 7)))
    for place, value in changes:
        content[place % len(content)] = value
    if mended:  # so that more than the checksums is looked at
        at = 8
        while at + 12 <= len(content):
            (length,) = struct.unpack_from(">I", content, at)
            if at + 12 + length > len(content):
                break
            struct.pack_into(">I", content, at + 8 + length, zlib.crc32(content[at + 4 : at + 8 + length]))
            at += 12 + length
    size = complete_png_size(bytes(content), MAX_PIXELS)
    if size is None:
        return
    try:
        found = inspect.inspect(bytes(content))
    except BrokenImage as reason:
        pytest.fail(f"taken, and {reason}")
    assert (found.width, found.height, found.frames) == (*size, 1)

"""Whole pictures are described, everything else is refused with a sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from pipeline.errors import BrokenImage
from pipeline.images.inspect import MAX_PIXELS, extension, inspect, inspect_svg
from tests.support.photographs import photographs

MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpeg": ["L", "RGB", "CMYK", "YCbCr"],
    "webp": ["RGB", "RGBA"],
    "gif": ["1", "L", "P"],
    "bmp": ["1", "L", "P", "RGB", "RGBA"],
    "tiff": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"],
    "avif": ["RGB", "RGBA"],
}


def noise(mode: str, size: tuple[int, int] = (67, 45)) -> Image.Image:
    grey = Image.effect_noise(size, 80)
    if mode in {"I;16", "I", "F"}:
        return grey.convert("I").point(lambda value: value * 200).convert(mode)
    if mode in {"LA", "PA"}:
        return Image.merge("LA", (grey, grey.rotate(90))).convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", (grey, grey, grey))
    return Image.merge("RGBA", (grey, grey.rotate(90), grey.rotate(180), grey.rotate(270))).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str, number: int = 3, **options: object) -> bytes:
    rest = [noise("RGB") for _ in range(number - 1)]
    return encoded(noise("RGB"), kind, save_all=True, append_images=rest, **options)


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


if not features.check("avif"):  # a Pillow built without it
    del MODES["avif"]
WHOLE = {f"{mode} {kind}": encoded(noise(mode), kind) for kind, modes in MODES.items() for mode in modes}
WHOLE |= {
    "progressive jpeg": encoded(noise("RGB"), "jpeg", progressive=True),
    "jpeg with restart marks": encoded(noise("RGB"), "jpeg", restart_marker_blocks=2),
    "jpeg with a thumbnail in its EXIF": encoded(
        noise("RGB"), "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded(noise("L", (8, 8)), "jpeg")
    ),
    "mpo": frames("mpo"),
    "animated png": frames("png"),
    "animated gif": frames("gif"),
    "animated webp": frames("webp"),
    "tiff of three pages": frames("tiff"),
    "deflated tiff": encoded(noise("RGB"), "tiff", compression="tiff_adobe_deflate"),
    "lossless webp": encoded(noise("RGBA"), "webp", lossless=True),
    "optimized png": encoded(noise("RGBA"), "png", optimize=True),
    "one pixel": encoded(noise("RGB", (1, 1)), "png"),
    "one column": encoded(noise("RGB", (1, 300)), "png"),
}
if "avif" in MODES:
    WHOLE["avif sequence"] = frames("avif")


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_picture_is_described(name: str) -> None:
    picture = inspect(WHOLE[name])
    with Image.open(io.BytesIO(WHOLE[name])) as image:
        assert (picture.width, picture.height) == image.size
        assert picture.mode == image.mode
        assert picture.format == {"MPO": "jpeg"}.get(str(image.format), str(image.format).lower())


@pytest.mark.parametrize("name", WHOLE)
def test_every_cut_of_a_picture_is_refused(name: str) -> None:
    whole = WHOLE[name]
    lengths = {len(whole) * part // 50 for part in range(50)} | {len(whole) - cut for cut in range(1, 13)}
    if name == "tiff of three pages":  # Pillow pads it to 16 bytes, and who cuts the padding takes nothing
        lengths = {length for length in lengths if length < len(whole) - 15}
    if name == "mpo":  # its first picture is whole as soon as it is there, and no more is read
        lengths = {length for length in lengths if length < whole.index(b"\xff\xd9\xff\xd8")}
    for length in sorted(lengths):
        with pytest.raises(BrokenImage):
            inspect(whole[:length])


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_behind_the_end_do_no_harm(name: str) -> None:
    if "avif" not in name:
        assert inspect(WHOLE[name] + b"\0" * 3) == inspect(WHOLE[name])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", "is an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code></Error>', "is XML"),
        (b"\xef\xbb\xbf<Error/>", "is XML"),
        (b'{"error": {"message": "no"}}', "is JSON"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is SVG"),
        (b"%PDF-1.7", "is a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image of a supported format"),
        (b"\0" * 100, "not an image of a supported format"),
        (png_header(50_000, 50_000), "claims 50000x50000"),
        (png_header(MAX_PIXELS + 1, 1), "are not decoded"),
        (png_header(0, 5), "cannot be decoded"),
        (png_header(300, 300), "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "is cut off"),
        (b"\xff\xd8\xff", "is cut off"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes, words: str) -> None:
    with pytest.raises(BrokenImage, match=words.replace("(", r"\(").replace(")", r"\)")):
        inspect(content)


def test_a_flipped_bit_among_the_pixels_of_a_png_is_found() -> None:
    content = bytearray(WHOLE["RGB png"])
    content[content.index(b"IDAT") + 100] ^= 4
    with pytest.raises(BrokenImage, match="checksum of its IDAT"):
        inspect(bytes(content))


@pytest.mark.parametrize("name", ["animated png", "animated gif", "animated webp", "tiff of three pages"])
def test_frames_are_counted(name: str) -> None:
    assert inspect(WHOLE[name]).frames == 3


def test_a_damaged_second_frame_is_found() -> None:
    whole = bytearray(WHOLE["tiff of three pages"])
    first = struct.unpack_from("<I", whole, 4)[0]
    entries = struct.unpack_from("<H", whole, first)[0]
    second = struct.unpack_from("<I", whole, first + 2 + 12 * entries)[0]
    for entry in range(second + 2, second + 2 + 12 * struct.unpack_from("<H", whole, second)[0], 12):
        if struct.unpack_from("<H", whole, entry)[0] == 256:  # width
            struct.pack_into("<I", whole, entry + 8, 5000)
    with pytest.raises(BrokenImage):
        inspect(bytes(whole))


def test_alpha_is_seen_in_a_channel_a_colour_and_a_palette() -> None:
    assert inspect(WHOLE["RGBA png"]).has_alpha
    assert inspect(encoded(noise("RGB"), "png", transparency=(1, 2, 3))).has_alpha
    assert inspect(encoded(noise("P"), "png", transparency=0)).has_alpha
    assert not inspect(WHOLE["RGB png"]).has_alpha


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = inspect(encoded(noise("RGB"), "jpeg", exif=exif))
    assert picture.orientation == orientation
    assert (picture.width, picture.height) == (67, 45)
    assert picture.upright == ((45, 67) if orientation >= 5 else (67, 45))


@pytest.mark.parametrize("value", [0, 9, 1000])
def test_a_senseless_orientation_counts_as_upright(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert inspect(encoded(noise("RGB"), "jpeg", exif=exif)).orientation == 1


def test_a_memoryview_is_as_good_as_bytes() -> None:
    for content in WHOLE.values():
        assert inspect(memoryview(content)) == inspect(content)


def test_many_threads_agree_and_no_state_of_pillow_changes() -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(inspect, list(WHOLE.values()) * 8))
    assert found == [inspect(content) for content in WHOLE.values()] * 8
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=8))
def test_damage_ends_in_a_description_or_a_refusal_and_nothing_else(name: str, at: float, junk: bytes) -> None:
    whole = WHOLE[name]
    place = int(at * (len(whole) - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(BrokenImage):
            inspect(whole[:place] + junk + whole[place + len(junk) :])


def test_photographs_are_whole() -> None:
    for content in photographs().values():
        assert inspect(content).frames == 1


def test_a_jpeg_file_ends_in_jpg() -> None:
    assert [extension(kind) for kind in ("jpeg", "png", "svg")] == ["jpg", "png", "svg"]


SVG = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {}>{}</svg>'


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="640" height="480"', (640, 480)),
        ('width="640px" height="480.4px"', (640, 480)),
        ('viewBox="0 0 24 12"', (24, 12)),
        ('viewBox="0,0,24,12" width="100%" height="100%"', (24, 12)),
        ('viewBox="0 0 24 12" width="48"', (48, 24)),
        ('width="1in" height="2.54cm"', (96, 96)),
    ],
)
def test_an_svg_has_the_size_of_its_attributes_or_its_view_box(attributes: str, size: tuple[int, int]) -> None:
    picture = inspect_svg(SVG.format(attributes, '<rect fill="url(#a)"/><use href="#b"/>').encode())
    assert (picture.format, picture.width, picture.height) == ("svg", *size)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("<x:script xmlns:x='http://www.w3.org/2000/svg'/>", "<script>"),
        ('<rect onload="alert(1)"/>', "handler onload"),
        ('<a href="javascript:alert(1)"/>', "script in href"),
        ('<a xlink:href=" java&#10;script:alert(1)"/>', "script in href"),
        ('<image href="https://example.com/a.png"/>', "outside the file"),
        ('<image xlink:href="//example.com/a.png"/>', "outside the file"),
        ('<use href="file:///etc/passwd#a"/>', "outside the file"),
        ('<image href="data:image/svg+xml;base64,AAAA"/>', "outside the file"),
        ('<rect style="fill: url(http://example.com)"/>', "outside the file"),
        ("<style>@import 'http://example.com';</style>", "outside the file"),
        ("<foreignObject/>", "foreignobject"),
        ("<?php echo 1 ?>", "instruction"),
        ("<rect>", "not a complete SVG"),
        ("&nbsp;", "not a complete SVG"),
    ],
)
def test_an_svg_that_could_run_or_fetch_something_is_refused(inside: str, words: str) -> None:
    with pytest.raises(BrokenImage, match=words):
        inspect_svg(SVG.format('width="1" height="1"', inside).encode())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<html/>", "outermost element is <html>"),
        (b'<!DOCTYPE svg [<!ENTITY a "aa">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>', "DOCTYPE"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "without a size"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="1" heig', "not a complete SVG"),
    ],
)
def test_what_is_no_svg_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(BrokenImage, match=words):
        inspect_svg(content)


def test_a_picture_inside_an_svg_may_be_a_png() -> None:
    inside = '<image href="data:image/png;base64,iVBORw0KGgo="/>'
    assert inspect_svg(SVG.format('width="3" height="2"', inside).encode()).width == 3

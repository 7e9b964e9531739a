"""Whole pictures are described, everything else is refused with a sentence."""

from __future__ import annotations

import contextlib
import io
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from pipeline.errors import BrokenImage
from pipeline.images.inspect import extension, inspect, mended, open_image
from pipeline.images.limits import MAX_PIXELS
from tests.support.noise import grey_noise
from tests.support.photographs import PHOTOGRAPHS, photograph

MODES = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpeg": ["L", "RGB", "CMYK", "YCbCr"],
    "webp": ["RGB", "RGBA"],
    "gif": ["1", "L", "P"],
    "bmp": ["1", "L", "P", "RGB", "RGBA"],
    "tiff": ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"],
    "avif": ["RGB", "RGBA"],
}


def noise(mode: str, size: tuple[int, int] = (67, 45), seed: int = 1) -> Image.Image:
    grey = grey_noise(size, 80, seed)
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
    first, *rest = (noise("RGB", seed=seed) for seed in range(number))
    return encoded(first, kind, save_all=True, append_images=rest, **options)


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
    "lossless webp": encoded(noise("RGBA"), "webp", lossless=True),  # its chunk of pixels has an odd size
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
def test_a_cut_image_is_refused_unless_all_its_pixels_are_there(name: str) -> None:
    whole = WHOLE[name]
    lengths = {len(whole) * part // 50 for part in range(50)} | {len(whole) - cut for cut in range(1, 40)}
    if name == "tiff of three pages":  # Pillow pads it to 16 bytes, and who cuts the padding takes nothing
        lengths = {length for length in lengths if length < len(whole) - 15}
    if name == "mpo":  # its first picture is whole as soon as it is there, and no more is read
        lengths = {length for length in lengths if length < whole.index(b"\xff\xd9\xff\xd8")}
    if name == "lossless webp":  # it ends with a byte that pads its chunk of an odd size
        lengths.remove(len(whole) - 1)
        assert is_accepted_as(whole[:-1], whole)
    accepted = {len(whole) - length for length in sorted(lengths) if is_accepted_as(whole[:length], whole)}
    assert accepted <= set(range(1, MISSING_END.get(whole[:3], 0) + 1))
    if name in {"RGB png", "RGB jpeg", "progressive jpeg", "jpeg with restart marks", "RGB gif"}:
        assert accepted == set(range(1, MISSING_END[whole[:3]] + 1))


MISSING_END = {b"\x89PN": 12, b"\xff\xd8\xff": 2, b"GIF": 1}
"""Format → bytes after the last pixel: without them, every viewer shows the whole image."""


def is_accepted_as(content: bytes, whole: bytes) -> bool:
    """Return whether an image is accepted, and check that then it is that whole one, with a remark."""
    try:
        info, image = open_image(content)
        assert inspect(content).remarks == info.remarks
    except BrokenImage:
        return False
    assert info.remarks, "accepted without a remark"
    assert replace(info, remarks=()) == replace(open_image(whole)[0], remarks=())
    assert image.tobytes() == open_image(whole)[1].tobytes()
    return True


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 3}])
def test_a_jpeg_without_its_end_mark_is_whole_only_if_its_scan_is(
    quality: int, subsampling: int, more: dict[str, object]
) -> None:
    gradient = Image.linear_gradient("L").convert("RGB").resize((90, 70))
    for image, is_grey in ((noise("RGB", (97, 61)), False), (gradient, True)):
        whole = encoded(image, "jpeg", quality=quality, subsampling=subsampling, **more)
        assert is_accepted_as(whole[:-2], whole)
        assert is_accepted_as(whole[:-1], whole)
        for cut in [*range(3, 30), len(whole) // 20, len(whole) // 2]:
            is_accepted = is_accepted_as(whole[:-cut], whole)  # which compares all pixels
            assert not is_accepted or (cut < 6 and is_grey)  # with a table of one code, missing bits decide nothing
            assert not is_accepted_as(whole[:-cut] + b"\0" * len(whole), whole)  # made in its full size


def test_what_follows_half_a_jpeg_is_not_taken_for_the_rest_of_it() -> None:
    whole = encoded(noise("RGB", (48, 32)), "jpeg")
    for junk in (b"<html>504 Gateway Time-out</html>", b"\xaa\x55\x13", whole[-200:-2]):
        with pytest.raises(BrokenImage, match="cut off"):
            inspect(whole[: len(whole) // 2] + junk * 200)


def test_zeros_that_end_with_the_last_pixel_are_not_taken_for_pixels() -> None:
    whole = encoded(noise("RGB", (16, 16)), "jpeg")
    begin = whole[: whole.index(b"\xff\xda") + 40]
    for zeros in range(64, 400):  # one of these numbers is just what the missing pixels take
        with pytest.raises(BrokenImage, match="cut off"):
            inspect(begin + b"\0" * zeros)


def test_an_animated_webp_of_a_wrong_outer_size_may_lack_frames_and_is_refused() -> None:
    whole = WHOLE["animated webp"]
    last = whole.rindex(b"ANMF")
    (size,) = struct.unpack_from("<I", whole, 4)
    longer = whole[:4] + struct.pack("<I", size + 1000) + whole[8:]
    for content in (whole[:last], longer):
        with pytest.raises(BrokenImage, match="cut off"):
            inspect(content)


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused() -> None:
    whole = encoded(noise("RGB"), "jpeg", progressive=True)
    ends = [place for place in range(2, len(whole)) if whole[place : place + 2] in {b"\xff\xda", b"\xff\xc4"}]
    assert len(ends) > 10
    for end in ends:
        with pytest.raises(BrokenImage, match="cut off"):
            inspect(whole[:end])


def test_an_animation_that_lacks_its_end_mark_may_lack_frames_and_is_refused() -> None:
    for name in ("animated png", "animated gif"):
        with pytest.raises(BrokenImage, match="cut off"):
            inspect(WHOLE[name][: -MISSING_END[WHOLE[name][:3]]])


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_behind_the_end_do_no_harm(name: str) -> None:
    if "avif" in name:
        return
    after = inspect(WHOLE[name] + b"\0" * 3)
    assert replace(after, remarks=()) == inspect(WHOLE[name])
    if name != "mpo" and "bmp" not in name and "tiff" not in name:
        assert after.remarks == ("3 bytes follow its end",)


def png_chunk(name: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    valid = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", valid if checksum is None else checksum)


def with_chunk(chunk: bytes, name: str = "RGBA png") -> bytes:
    """Return a PNG with a chunk between IHDR and its pixels."""
    return WHOLE[name][:33] + chunk + WHOLE[name][33:]


@pytest.mark.parametrize("name", [b"tEXt", b"zTXt", b"iTXt", b"pHYs", b"iCCP", b"gAMA", b"sRGB", b"eXIf", b"caBX"])
def test_a_wrong_checksum_of_metadata_is_a_remark(name: bytes) -> None:
    content = with_chunk(png_chunk(name, b"Comment\0made", checksum=7))
    assert inspect(content).remarks == (f"the checksum of its {name.decode()} chunk is wrong",)
    assert is_accepted_as(content, WHOLE["RGBA png"])
    assert inspect(content[:-12]).remarks == (
        f"the checksum of its {name.decode()} chunk is wrong",
        "its end mark is missing",
    )


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"IDAT"])
def test_a_wrong_checksum_of_pixels_is_damage(name: bytes) -> None:
    content = bytearray(WHOLE["P png"])
    place = content.index(name)
    (length,) = struct.unpack_from(">I", content, place - 4)
    content[place + 4 + length] ^= 1
    with pytest.raises(BrokenImage, match=f"is a PNG that is damaged: the checksum of its {name.decode()} chunk"):
        inspect(bytes(content))


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"pHYs", b"\0"),
        png_chunk(b"gAMA", b""),
        png_chunk(b"iCCP", b"a\0\7"),
        png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 2_000_000)),
    ],
)
def test_metadata_that_pillow_refuses_is_a_remark(chunk: bytes) -> None:
    assert is_accepted_as(with_chunk(chunk), WHOLE["RGBA png"])


def test_a_wrong_checksum_of_the_end_mark_is_a_remark() -> None:
    content = WHOLE["RGB png"][:-4] + b"\0\0\0\0"
    assert inspect(content).remarks == ("the checksum of its IEND chunk is wrong",)


@pytest.mark.parametrize("change", [-40, -1, 1, 40, 1_000_000])
@pytest.mark.parametrize("name", ["RGB webp", "RGBA webp", "lossless webp", "RGB bmp", "RGB avif", "RGBA avif"])
def test_a_wrong_outer_size_is_a_remark_if_all_pixels_are_there(name: str, change: int) -> None:
    if name not in WHOLE:
        pytest.skip("this Pillow cannot write AVIF")
    whole, content = WHOLE[name], bytearray(WHOLE[name])
    at, order = (2, "<I") if "bmp" in name else (4, "<I") if "webp" in name else (content.index(b"mdat") - 4, ">I")
    struct.pack_into(order, content, at, struct.unpack_from(order, content, at)[0] + change)
    if change < 0 and "bmp" in name:  # no reader looks at that
        assert inspect(bytes(content)) == inspect(whole)
        return
    assert is_accepted_as(bytes(content), whole)
    assert inspect(mended(bytes(content))) == inspect(whole), "which has no remark"
    for length in {len(whole) * part // 20 for part in range(1, 20)} | {len(whole) - cut for cut in range(2, 30)}:
        assert not is_accepted_as(bytes(content[:length]), whole)


def test_no_setting_of_pillow_tolerates_truncated_files() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_limit_of_pixels_is_an_option_for_results() -> None:
    whole = WHOLE["RGB jpeg"]
    assert inspect(whole, 67 * 45).width == 67
    with pytest.raises(BrokenImage, match=r"more than 3,014 are not decoded: set `download\.max_pixels` higher"):
        inspect(whole, 67 * 45 - 1)


HEIC = bytes.fromhex("0000001866747970686569630000000068656963")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEIC, "is HEIC, as iPhones take them: save it as JPEG or PNG"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "is HEIC, as iPhones take them: save it as JPEG or PNG"),
        (b"\xff\x0a\xfa\x1f", "is JPEG XL: save it as JPEG or PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is JPEG XL: save it as JPEG or PNG"),
        (b"8BPS\0\1", "is a Photoshop file (PSD): save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypcrx ", "is a raw photograph (Canon CR3)"),
        (b"FUJIFILMCCD-RAW 0201", "is a raw photograph (Fujifilm RAF)"),
        (b"IIRO\x08\0\0\0", "is a raw photograph (Olympus ORF)"),
        (b"%PDF-1.7", "is a PDF, not an image"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "is a video (MP4), not an image"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "is a video (MP4), not an image"),
        (b"\x1aE\xdf\xa3", "is a video (WebM or Matroska)"),
        (b"\0\0\1\0\1\0\x10\x10", "is an icon (ICO): save it as JPEG or PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is PostScript (EPS): save it as JPEG or PNG"),
        (b"PK\x03\x04\x14\0", "is a ZIP archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"\x1f\x8b\x08\0", "is compressed with gzip"),
    ],
)
def test_another_format_is_named_by_its_first_bytes(content: bytes, words: str) -> None:
    with pytest.raises(BrokenImage, match=re.escape(words)):
        inspect(content + b"\0" * 600)


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1, 330: 8}])
def test_a_raw_photograph_is_not_taken_for_its_thumbnail(tags: dict[int, object]) -> None:
    content = encoded(noise("RGB"), "tiff", tiffinfo=tags)
    with pytest.raises(BrokenImage, match="is a raw photograph"):
        inspect(content)


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


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(WHOLE)), at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=8))
def test_damage_ends_in_a_description_or_a_refusal_and_nothing_else(name: str, at: float, junk: bytes) -> None:
    whole = WHOLE[name]
    place = int(at * (len(whole) - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(BrokenImage):
            inspect(whole[:place] + junk + whole[place + len(junk) :])


def test_photographs_are_whole() -> None:
    for content in map(photograph, PHOTOGRAPHS):
        assert inspect(content).frames == 1


def test_a_jpeg_file_ends_in_jpg() -> None:
    assert [extension(kind) for kind in ("jpeg", "png", "svg")] == ["jpg", "png", "svg"]

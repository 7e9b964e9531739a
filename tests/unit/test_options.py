"""What a job says of its pictures is read, and what is wrong with it is named."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images import options as module
from pipeline.images.options import ImageOptions, Source, parse_image_options, parse_mask

if TYPE_CHECKING:
    from pathlib import Path


def png(mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (3, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_source_is_a_path_bytes_a_stream_or_a_pillow_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    stream = io.BytesIO(b"skipped" + png())
    stream.seek(7)
    with (tmp_path / "a.png").open("rb") as file:
        sources = [
            Source.of("a.png", folder=tmp_path),
            Source.of(tmp_path / "a.png"),
            Source.of(png()),
            Source.of(bytearray(png())),
            Source.of(stream),
            Source.of(file),
        ]
    assert {source.read() for source in sources} == {png()}
    assert {source.sha256() for source in sources} == {hashlib.sha256(png()).hexdigest()}
    assert [source.name for source in sources[:1]] == ["a.png"]
    with Image.open(io.BytesIO(Source.of(Image.new("RGB", (3, 2))).read())) as image:
        assert image.size == (3, 2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"])
def test_a_pillow_image_of_any_mode_becomes_bytes(mode: str) -> None:
    with Image.open(io.BytesIO(Source.of(Image.new(mode, (3, 2))).read())) as image:
        assert image.size == (3, 2)


def test_a_pillow_image_keeps_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "JPEG", exif=exif)
    with Image.open(buffer) as image, Image.open(io.BytesIO(Source.of(image).read())) as kept:
        assert kept.getexif()[0x0112] == 6


def test_an_image_that_nothing_can_hold_is_refused() -> None:
    with pytest.raises(ImageError, match="cannot be encoded"):
        Source.of(Image.new("HSV", (3, 2)))


def test_a_source_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.png").write_bytes(png())
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    for name, words in {
        "photo.pgn": "photo.pgn: does not exist; did you mean `photo.png`?",
        "other/a.png": r"other/a.png: does not exist \(nor does its folder\)",
        "folder": "folder: is a folder",
        "photo.png": "photo.png: is larger than",
        "a\0b": "cannot be read",
    }.items():
        with pytest.raises(ImageError, match=words):
            Source.of(name, folder=tmp_path).read()
    with pytest.raises(ImageError, match="absent: does not exist"):
        Source.of("absent", folder=tmp_path).sha256()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is no ordinary file"):
        Source.of("pipe", folder=tmp_path).read()


@pytest.mark.parametrize(
    ("value", "words"), [(io.StringIO("text"), 'mode "rb"'), (7, "give a path, bytes"), (None, "give")]
)
def test_what_is_no_source_is_refused(value: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        Source.of(value)


def test_the_hash_of_a_file_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    source = Source.of(path)
    assert source.sha256() == source.sha256() == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert source.sha256() == hashlib.sha256(b"three").hexdigest()


def test_a_recipe_enters_the_key_without_names_and_without_what_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"mask")
    sha256 = hashlib.sha256(b"mask").hexdigest()
    assert ImageOptions().canonical() == {}
    assert ImageOptions(fit="pad", resize=(5, 6)).canonical() == {"fit": "pad", "resize": [5, 6]}
    by_name, by_bytes = Source.of("m.png", folder=tmp_path), Source.of(b"mask")
    assert ImageOptions(mask=by_name).canonical() == {"mask": {"edit": "alpha", "sha256": sha256}}
    assert ImageOptions(mask=by_name).canonical() == ImageOptions(mask=by_bytes).canonical()
    assert ImageOptions(mask_box=(1, 2, 3, 4)).canonical() == {"mask": {"box": [1, 2, 3, 4]}}


def test_every_form_of_a_recipe_is_read(tmp_path: Path) -> None:
    def read(fit: object = None, resize: object = None, mask: object = None) -> ImageOptions:
        options, problems = parse_image_options(fit, resize, mask, tmp_path)
        assert problems == []
        return options

    mask = Source("m.png", path=tmp_path / "m.png")
    assert read() == ImageOptions()
    assert read("crop", "512x512") == ImageOptions(fit="crop", resize=(512, 512))
    assert read(mask="m.png") == ImageOptions(mask=mask)
    assert read(mask={"image": "m.png"}) == ImageOptions(mask=mask)
    assert read(mask={"image": "m.png", "edit": "white"}) == ImageOptions(mask=mask, mask_edit="white")
    assert read("pad", None, {"box": [1, 2, 3, 4]}) == ImageOptions(fit="pad", mask_box=(1, 2, 3, 4))
    assert read(mask=b"png").masks
    assert not read("pad").masks
    assert read("pad").mends
    assert not read(mask="m.png").mends


@pytest.mark.parametrize(
    ("value", "field", "words"),
    [
        (7, "mask", "it takes a file name"),
        ([1, 2, 3, 4], "mask", "it takes a file name"),
        ({}, "mask", "it takes a file name"),
        ({"image": "m.png", "box": [0, 0, 1, 1]}, "mask", "it takes a file name"),
        ({"imgae": "m.png"}, "mask", "did you mean `image`?"),
        ({"image": "m.png", "edit": "red"}, "mask.edit", "`red`; it takes alpha, white or black"),
        ({"image": {"image": "m.png"}}, "mask.image", "it takes a file name"),
        ({"image": None}, "mask.image", "it takes a file name"),
        ({"box": [0, 0, 1, 1], "edit": "white"}, "mask.edit", "goes with `image`"),
        *[
            ({"box": box}, "mask.box", "four whole numbers")
            for box in (
                None,
                5,
                "0,0,1,1",
                [0, 0, 1],
                [0, 0, 1, "1"],
                [0, 0, 1.0, 1],
                [2, 0, 1, 1],
                [0, 1, 1, 1],
                [-1, 0, 1, 1],
            )
        ],
    ],
)
def test_a_mask_of_another_form_is_a_complaint(value: object, field: str, words: str) -> None:
    options, problems = parse_mask(value)
    assert options == ImageOptions()
    assert field in {problem.field for problem in problems}
    assert words in " ".join(problem.message for problem in problems)


@pytest.mark.parametrize(
    ("fit", "resize", "fields"),
    [
        ("fill", None, ["fit"]),
        (True, None, ["fit"]),
        (["crop"], None, ["fit"]),
        (None, "512", ["resize"]),
        (None, 512, ["resize"]),
        (None, "9000x10", ["resize"]),
        (None, "0x10", ["resize"]),
        ("fill", "x", ["fit", "resize"]),
    ],
)
def test_a_wrong_fit_or_resize_is_a_complaint(fit: object, resize: object, fields: list[str]) -> None:
    options, problems = parse_image_options(fit, resize, None)
    assert [problem.field for problem in problems] == fields
    assert options == ImageOptions()


def test_a_recipe_is_read_without_pillow() -> None:
    code = "import sys, pipeline.images.options; print('PIL' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

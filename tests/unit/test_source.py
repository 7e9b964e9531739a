"""An input image is read from any source, and what cannot be read is named."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images import source as module
from pipeline.images.source import ImageSource

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
            ImageSource.of("a.png", folder=tmp_path),
            ImageSource.of(tmp_path / "a.png"),
            ImageSource.of(png()),
            ImageSource.of(bytearray(png())),
            ImageSource.of(stream),
            ImageSource.of(file),
        ]
    assert {source.read() for source in sources} == {png()}
    assert {source.sha256() for source in sources} == {hashlib.sha256(png()).hexdigest()}
    assert [source.name for source in sources[:1]] == ["a.png"]
    with Image.open(io.BytesIO(ImageSource.of(Image.new("RGB", (3, 2))).read())) as image:
        assert image.size == (3, 2)


def test_a_stream_that_was_read_before_is_named_as_such(tmp_path: Path) -> None:
    stream = io.BytesIO(png())
    assert ImageSource.of(stream).read() == png()
    with pytest.raises(ImageError, match=r"stands at its end, as it was read before: call its `seek\(0\)`"):
        ImageSource.of(stream)
    assert ImageSource.of(io.BytesIO()).content == b"", "which the checks of its bytes name"
    (tmp_path / "a.png").write_bytes(png())
    with (
        (tmp_path / "a.png").open(encoding="utf-8") as text,
        pytest.raises(ImageError, match='is a text stream; open it with mode "rb"'),
    ):
        ImageSource.of(text)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"])
def test_a_pillow_image_of_any_mode_becomes_bytes(mode: str) -> None:
    with Image.open(io.BytesIO(ImageSource.of(Image.new(mode, (3, 2))).read())) as image:
        assert image.size == (3, 2)


def test_a_pillow_image_keeps_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "JPEG", exif=exif)
    with Image.open(buffer) as image, Image.open(io.BytesIO(ImageSource.of(image).read())) as kept:
        assert kept.getexif()[0x0112] == 6


def test_an_image_that_nothing_can_hold_is_refused() -> None:
    with pytest.raises(ImageError, match="cannot be encoded"):
        ImageSource.of(Image.new("HSV", (3, 2)))


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
            ImageSource.of(name, folder=tmp_path).read()
    with pytest.raises(ImageError, match="absent: does not exist"):
        ImageSource.of("absent", folder=tmp_path).sha256()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is not a regular file"):
        ImageSource.of("pipe", folder=tmp_path).read()


@pytest.mark.parametrize(
    ("value", "words"),
    [(io.StringIO("text"), 'mode "rb"'), (7, "give a path, bytes"), (None, "give"), ({}, "of the type `dict`; give")],
)
def test_what_is_no_source_is_refused(value: object, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        ImageSource.of(value)


def test_the_hash_of_a_file_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    source = ImageSource.of(path)
    assert source.sha256() == source.sha256() == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"three")
    assert source.sha256() == hashlib.sha256(b"three").hexdigest()

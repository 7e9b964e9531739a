"""Images of responses are decoded completely or refused, and stored under their final names, whole or not at all."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.engine.image_writer import FileNames, ImageWriter, _validate_and_store, decode, free_numbers, validate
from pipeline.errors import BrokenImage, DiskFull
from pipeline.images.limits import MAX_PIXELS, MemoryBudget, small_images_only
from pipeline.storage import LocalStore, StoredImage
from tests.support.workbench import until

if TYPE_CHECKING:
    from pathlib import Path


def picture(kind: str) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (12, 7), (10, 120, 200)).save(made, kind)
    return made.getvalue()


SVG = b'\xef\xbb\xbf <svg xmlns="http://www.w3.org/2000/svg" width="4" height="3"><path d="M0 0"/></svg>'


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_a_whole_picture_is_known_by_its_bytes(kind: str) -> None:
    content = picture(kind)
    for asked in (None, "png", "svg"):
        found = validate(content, asked)
        assert (found.format, found.width, found.height) == (kind, 12, 7)
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.content is content


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_a_picture_that_is_cut_is_refused(kind: str) -> None:
    content = picture(kind)
    for end in (0, 1, 10, len(content) // 2, len(content) - 14):
        with pytest.raises(BrokenImage):
            validate(content[:end], None)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif"])
def test_more_pixels_than_the_option_allows_are_refused_and_the_option_is_named(kind: str) -> None:
    content = picture(kind)
    assert validate(content, None, 12 * 7).width == 12
    with pytest.raises(BrokenImage, match=r"claims 12x7 pixels; .* set `download\.max_pixels` higher to accept it"):
        validate(content, None, 12 * 7 - 1)


def test_an_image_that_lacks_only_its_end_mark_is_stored_as_it_came_with_a_remark(tmp_path: Path) -> None:
    content = picture("jpeg")[:-2]
    found = validate(content, None)
    assert (found.content, found.remarks) == (content, ("its end mark is missing",))
    stored = _validate_and_store(content, LocalStore(tmp_path), FileNames("job", "one", None), 1, None)
    assert (tmp_path / "job" / stored.file).read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", b'{"error": 1}', b"\0" * 100])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    for asked in (None, "svg"):
        with pytest.raises(BrokenImage):
            validate(content, asked)


def test_what_helps_with_an_input_image_is_not_said_of_a_result() -> None:
    with pytest.raises(BrokenImage) as refused:
        validate(b"\xff\x0a" + bytes(200), None)
    assert str(refused.value) == "is JPEG XL, a format that is not read here"


def test_svg_counts_only_where_it_was_asked_for_and_without_scripts() -> None:
    assert validate(SVG, "svg").format == "svg"
    with pytest.raises(BrokenImage):
        validate(SVG, None)
    with pytest.raises(BrokenImage):
        validate(SVG.replace(b'<path d="M0 0"/>', b"<script>1</script>"), "svg")


def test_base64_may_be_wrapped_or_lack_its_padding() -> None:
    for content in (b"", b"a", b"ab", b"abc", picture("png")):
        text = base64.b64encode(content).decode()
        wrapped = "\r\n".join(text[start : start + 76] for start in range(0, len(text), 76))
        assert decode(text) == decode(wrapped) == decode(text.rstrip("=")) == content


def test_base64_may_be_that_of_urls_and_a_data_url() -> None:
    content = bytes(range(256)) * 3 + b"\xfb\xff\xbf"
    text = base64.urlsafe_b64encode(content).decode()
    assert {"-", "_"} < set(text)
    wrapped = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    assert decode(text) == decode(wrapped) == decode(text.rstrip("=")) == decode(f"data:image/png;base64,{text}")
    assert decode(text) == content
    assert decode(f"DATA:image/png;BASE64,{base64.b64encode(content).decode()}") == content


@pytest.mark.parametrize("text", ["a", "ab!d", "QUJ=QUJD", "caf\u00e9", "Q-J+", "Q_J/", "\ud800aaa", "data:image/png"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(BrokenImage):
        decode(text)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def store(folder: Path, kind: str = "png", number: int = 1, revised_prompt: str | None = None) -> StoredImage:
    names = FileNames("job", "x", None)
    return _validate_and_store(picture(kind), LocalStore(folder), names, number, revised_prompt)


@pytest.mark.parametrize(("kind", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("gif", "gif")])
def test_a_file_is_named_by_what_its_bytes_are(kind: str, extension: str, tmp_path: Path) -> None:
    stored = store(tmp_path, kind, 2, "a cat")
    assert stored.file == f"images/x-2.{extension}"
    content = (tmp_path / "job" / stored.file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == stored.sha256
    assert (stored.bytes, stored.width, stored.height, stored.format) == (len(content), 12, 7, kind)
    assert (stored.number, stored.revised_prompt) == (2, "a cat")


def test_a_file_that_no_row_owns_stays_and_the_new_one_has_its_hash_in_its_name(tmp_path: Path) -> None:
    images = tmp_path / "job" / "images"
    images.mkdir(parents=True)
    (images / "x-1.png").write_bytes(b"of an earlier run")
    (images / "x-2.png").mkdir()
    sha256 = hashlib.sha256(picture("png")).hexdigest()
    for number in (1, 2):
        for _ in range(2):
            assert store(tmp_path, number=number).file == f"images/x-{sha256[:8]}-{number}.png"
        assert (images / f"x-{sha256[:8]}-{number}.png").read_bytes() == picture("png")
    assert (images / "x-1.png").read_bytes() == b"of an earlier run"


def test_a_file_of_the_same_content_is_taken_as_it_is(tmp_path: Path) -> None:
    first = store(tmp_path)
    inode = (tmp_path / "job" / first.file).stat().st_ino
    assert store(tmp_path) == first
    assert names(tmp_path / "job" / "images") == ["x-1.png"]
    assert (tmp_path / "job" / first.file).stat().st_ino == inode


def test_where_even_the_name_with_the_whole_hash_has_other_content_the_run_stops(tmp_path: Path) -> None:
    sha256 = hashlib.sha256(picture("png")).hexdigest()
    (tmp_path / "job" / "images").mkdir(parents=True)
    for stem in ("x", f"x-{sha256[:8]}", f"x-{sha256}"):
        (tmp_path / "job" / "images" / f"{stem}-1.png").write_bytes(b"damaged")
    with pytest.raises(DiskFull, match=rf"x-{sha256}-1\.png is damaged; move it away"):
        store(tmp_path)


@pytest.mark.parametrize("step", ["fsync", "rename"])
@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no room left"), (errno.EDQUOT, "no room left"), (errno.EROFS, "cannot be written: sorry")],
)
def test_a_disk_that_takes_no_more_stops_everything_and_leaves_nothing_half(
    step: str, number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job" / "images").mkdir(parents=True)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "sorry")

    monkeypatch.setattr(os, step, fail)
    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(DiskFull, match=said) as caught:
        store(tmp_path)
    assert caught.value.reach == "everything"
    assert str(tmp_path) in str(caught.value)
    assert names(tmp_path / "job" / "images") == []


def test_a_folder_that_cannot_be_made_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "images").write_bytes(b"a file in the way")
    with pytest.raises(DiskFull):
        store(tmp_path)


def test_numbers_are_the_lowest_that_are_free() -> None:
    assert free_numbers({1, 3, 4}, 3) == [2, 5, 6]
    assert free_numbers(set(), 2) == [1, 2]
    assert free_numbers({9}, 0) == []


async def test_small_images_do_not_wait_for_large_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a large image holds all of the memory, more large ones than there are threads wait, and small ones pass."""
    budget = MemoryBudget(total=1, small=10_000)
    monkeypatch.setattr("pipeline.engine.image_writer._validate_and_store.__defaults__", (MAX_PIXELS, budget))
    monkeypatch.setattr(small_images_only, "_small", 10_000)
    large = io.BytesIO()
    Image.new("RGB", (100, 100)).save(large, "png")
    with ThreadPoolExecutor(1) as threads:
        writer = ImageWriter(LocalStore(tmp_path), threads)
        with budget.hold(10_001):
            waiting = [
                asyncio.create_task(writer.write(large.getvalue(), FileNames("job", "large", None), number))
                for number in range(1, 6)
            ]
            await until(budget._entrance.locked)  # one waits for memory
            small = await writer.write(picture("png"), FileNames("job", "small", None), 1)
            assert (small.width, any(task.done() for task in waiting)) == (12, False)
        assert [image.width for image in await asyncio.gather(*waiting)] == [100] * 5

"""A checked picture becomes a file under its final name, whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pipeline.engine.image_writer import check, store
from pipeline.errors import DiskFull

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine.image_writer import CheckedImage


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def checked(kind: str = "png") -> CheckedImage:
    made = io.BytesIO()
    Image.new("RGB", (12, 7)).save(made, kind)
    return check(made.getvalue(), {})


@pytest.mark.parametrize(("kind", "extension"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp"), ("gif", "gif")])
def test_a_file_is_named_by_what_its_bytes_are(kind: str, extension: str, tmp_path: Path) -> None:
    image = checked(kind)
    stored = store(image, tmp_path / "job", "a-cat-3f9c2a1b", 2, "a cat")
    assert stored.file == f"images/a-cat-3f9c2a1b-2.{extension}"
    content = (tmp_path / "job" / stored.file).read_bytes()
    assert hashlib.sha256(content).hexdigest() == stored.sha256
    assert (stored.bytes, stored.width, stored.height, stored.format) == (len(content), 12, 7, kind)
    assert (stored.number, stored.revised_prompt) == (2, "a cat")


def test_a_file_that_no_row_owns_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x-1.png").write_bytes(b"of an earlier run")
    image = checked()
    store(image, tmp_path, "x", 1, None)
    assert (tmp_path / "images" / "x-1.png").read_bytes() == image.content


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "no room left"), (errno.EDQUOT, "no room left"), (errno.EROFS, "cannot be written: sorry")],
)
def test_a_disk_that_takes_no_more_stops_everything_and_leaves_nothing_half(
    step: str, number: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "sorry")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(DiskFull, match=said) as caught:
        store(checked(), tmp_path, "x", 1, None)
    assert caught.value.reach == "everything"
    assert str(tmp_path) in str(caught.value)
    assert names(tmp_path / "images") == []


def test_a_folder_that_cannot_be_made_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "images").write_bytes(b"a file in the way")
    with pytest.raises(DiskFull):
        store(checked(), tmp_path, "x", 1, None)

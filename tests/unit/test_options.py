"""What a job says of its pictures is read, and what is wrong with it is named."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pipeline.images.options import ImageOptions, parse_image_options, parse_mask
from pipeline.images.source import ImageSource

if TYPE_CHECKING:
    from pathlib import Path


def test_options_enter_the_key_without_names_and_without_what_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"mask")
    sha256 = hashlib.sha256(b"mask").hexdigest()
    assert ImageOptions().canonical() == {}
    assert ImageOptions(fit="pad", resize=(5, 6)).canonical() == {"fit": "pad", "resize": [5, 6]}
    by_name, by_bytes = ImageSource.of("m.png", folder=tmp_path), ImageSource.of(b"mask")
    assert ImageOptions(mask=by_name).canonical() == {"mask": {"edit": "alpha", "sha256": sha256}}
    assert ImageOptions(mask=by_name).canonical() == ImageOptions(mask=by_bytes).canonical()
    assert ImageOptions(mask_box=(1, 2, 3, 4)).canonical() == {"mask": {"box": [1, 2, 3, 4]}}


def test_every_form_of_the_options_is_read(tmp_path: Path) -> None:
    def read(fit: object = None, resize: object = None, mask: object = None) -> ImageOptions:
        options, problems = parse_image_options(fit, resize, mask, tmp_path)
        assert problems == []
        return options

    mask = ImageSource("m.png", path=tmp_path / "m.png")
    assert read() == ImageOptions()
    assert read("crop", "512x512") == ImageOptions(fit="crop", resize=(512, 512))
    assert read(mask="m.png") == ImageOptions(mask=mask)
    assert read(mask={"image": "m.png"}) == ImageOptions(mask=mask)
    assert read(mask={"image": "m.png", "edit": "white"}) == ImageOptions(mask=mask, mask_edit="white")
    assert read("pad", None, {"box": [1, 2, 3, 4]}) == ImageOptions(fit="pad", mask_box=(1, 2, 3, 4))
    assert read(mask=b"png").has_mask
    assert not read("pad").has_mask
    assert read("pad").may_change
    assert not read(mask="m.png").may_change


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
        ({"box": [0, 0, 1, 1], "edit": "white"}, "mask.edit", "is for `image`"),
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


def test_options_are_read_without_pillow() -> None:
    code = "import sys, pipeline.images.options; print('PIL' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

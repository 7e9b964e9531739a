"""Fingerprints of images: what is a near copy, and what is blank."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageOps

from pipeline.images.fingerprint import fingerprint
from pipeline.reports.thumbnails import shrink
from tests.support.stage import HOME

PHOTO = Image.open(HOME / "jobs" / "images" / "corgi_and_cat_paw.png").convert("RGB").resize((300, 300))


def _encoded(image: Image.Image, name: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **how)
    return stream.getvalue()


def _bits(image: Image.Image) -> int:
    return int(fingerprint(image).difference_hash[:32], 16)


def _distance(one: Image.Image, other: Image.Image) -> int:
    return (_bits(one) ^ _bits(other)).bit_count()


@pytest.mark.parametrize(
    "copy",
    [
        Image.open(io.BytesIO(_encoded(PHOTO, "jpeg", quality=80))),
        Image.open(io.BytesIO(_encoded(PHOTO, "webp", quality=80))),
        PHOTO.resize((150, 150), Image.Resampling.LANCZOS),
        PHOTO.point(lambda value: min(255, int(value * 1.05))),
        PHOTO.convert("RGBA"),
        PHOTO.quantize(255),
    ],
    ids=["jpeg", "webp", "half", "lighter", "rgba", "palette"],
)
def test_a_near_copy_differs_in_three_bits_at_most(copy: Image.Image) -> None:
    assert _distance(PHOTO, copy) <= 3


@pytest.mark.parametrize("other", [ImageOps.mirror(PHOTO), ImageOps.flip(PHOTO), PHOTO.rotate(90)])
def test_another_image_differs_in_more(other: Image.Image) -> None:
    assert _distance(PHOTO, other) > 10


def _dotted(size: int) -> Image.Image:
    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).rectangle((9, 9, 8 + size, 8 + size), "black")
    return image


@pytest.mark.parametrize(
    ("image", "is_blank"),
    [
        (Image.new("RGB", (64, 64), "red"), True),
        (Image.new("L", (64, 64), 255), True),
        (Image.new("RGBA", (64, 64), (9, 200, 30, 0)), True),
        (Image.new("P", (1, 1)), True),
        (Image.open(io.BytesIO(_encoded(Image.new("RGB", (64, 64), "#3a7ca5"), "jpeg", quality=50))), True),
        (_dotted(1), True),
        (_dotted(16), False),
        (Image.linear_gradient("L"), False),
        (Image.radial_gradient("L").point(lambda value: value / 16), False),
        (PHOTO, False),
    ],
)
def test_an_image_of_one_colour_or_nearly_is_blank(image: Image.Image, is_blank: bool) -> None:
    assert fingerprint(image).is_blank is is_blank


@pytest.mark.parametrize(("contrast", "is_blank"), [(255, False), (12, False), (3, True)])
def test_a_fine_pattern_is_even_from_afar_and_not_blank(contrast: int, is_blank: bool) -> None:
    pattern = Image.new("L", (256, 256))
    pattern.putdata([contrast * ((place + place // 256) % 2) for place in range(256 * 256)])
    assert fingerprint(pattern).is_blank is is_blank


def test_a_shape_in_the_alpha_channel_alone_is_seen() -> None:
    silhouette = Image.new("RGBA", (64, 64), "black")
    silhouette.putalpha(_dotted(200).convert("L").resize((64, 64)))
    assert not fingerprint(silhouette).is_blank
    assert _bits(silhouette) != 0


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "gif"])
def test_images_of_every_format_have_one(name: str) -> None:
    found = shrink(_encoded(PHOTO, name)).fingerprint
    assert (int(found.difference_hash[:32], 16) ^ _bits(PHOTO)).bit_count() <= 3
    assert not found.is_blank


def test_an_image_of_16_bits_has_one_too() -> None:
    assert shrink(_encoded(Image.new("I;16", (64, 64), 40000), "png")).fingerprint.is_blank
    ramp = Image.new("I;16", (64, 64))
    ramp.putdata([1000 * (place % 64) for place in range(64 * 64)])
    assert not shrink(_encoded(ramp, "png")).fingerprint.is_blank

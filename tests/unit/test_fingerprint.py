"""Fingerprints of images: what is a near copy, and what is blank."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageOps

from pipeline.images import inspect
from pipeline.images.fingerprint import NO_FINGERPRINT, fingerprint
from pipeline.images.limits import MIB, LargeImageError, small_images_only
from tests.support.stage import HOME

PHOTO = Image.open(HOME / "jobs" / "images" / "corgi_and_cat_paw.png").convert("RGB").resize((300, 300))


def _encoded(image: Image.Image, name: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, name, **how)
    return stream.getvalue()


def _bits(image: Image.Image) -> int:
    found = fingerprint(image).difference_hash
    assert found is not None
    return int(found[:32], 16)


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
        (Image.new("I;16", (64, 64), 40000), True),
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


def test_what_has_no_fingerprint_is_no_error() -> None:
    assert fingerprint(Image.new("F", (8, 8))) == NO_FINGERPRINT
    assert inspect.png_fingerprint(b"\x89PNG\r\n\x1a\n", (8, 8)) == NO_FINGERPRINT
    assert inspect.png_fingerprint(_encoded(PHOTO, "png"), (10_000, 10_000)) == NO_FINGERPRINT


def test_a_png_is_decoded_within_the_bounds_of_memory() -> None:
    side = 2049  # beyond 32 MiB as RGBA, twice
    assert side * side * 8 > 32 * MIB
    with pytest.raises(LargeImageError):
        inspect.png_fingerprint(_encoded(PHOTO, "png"), (side, side), small_images_only)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "gif"])
def test_results_of_every_format_have_one(name: str) -> None:
    found = inspect.inspect(_encoded(PHOTO, name)).fingerprint
    assert found.difference_hash is not None
    assert (int(found.difference_hash[:32], 16) ^ _bits(PHOTO)).bit_count() <= 3
    assert not found.is_blank

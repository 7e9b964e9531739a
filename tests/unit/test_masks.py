"""A mask agrees with its picture, however it was given, and a useless one is refused."""

from __future__ import annotations

import io

import pytest
from PIL import Image, ImageChops

from pipeline.errors import ImageError
from pipeline.images.options import ImageOptions
from pipeline.images.prepare import PreparedInput, prepare
from pipeline.images.source import ImageSource
from pipeline.models.table import Models

GPT = Models.load().find("gpt-image-2")
DALLE = Models.load().find("dall-e-2")
SIZE = (96, 64)
BOX = (10, 20, 40, 60)


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def photo(orientation: int = 1, size: tuple[int, int] = SIZE) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def marked(inside: object, outside: object, mode: str, size: tuple[int, int] = SIZE) -> Image.Image:
    image = Image.new(mode, size, outside)  # type: ignore[arg-type]  # a colour of that mode
    image.paste(inside, BOX)  # type: ignore[arg-type]
    return image


ALPHA = png(marked((0, 0, 0, 0), (9, 9, 9, 255), "RGBA"))
OPAQUE = png(marked(255, 0, "L").convert("RGBA"))
WHITE = png(marked(255, 0, "L"))
BLACK = png(marked(0, 255, "L"))


def edit(picture: bytes, options: ImageOptions, model: str = "gpt-image-2") -> tuple[PreparedInput, PreparedInput]:
    found = {"gpt-image-2": GPT, "dall-e-2": DALLE}[model]
    assert found is not None
    image, mask = prepare([ImageSource.of(picture, name="photo.jpg")], options, found.image_requirements("edit"), model)
    assert (image.role, mask.role) == ("image", "mask")
    assert (image.width, image.height, image.format) == (mask.width, mask.height, mask.format)
    return image, mask


def edited(mask: PreparedInput) -> Image.Image:
    with Image.open(io.BytesIO(mask.content)) as image:
        assert image.mode in {"RGBA", "LA"}
        return ImageChops.invert(image.getchannel("A"))


@pytest.mark.parametrize(
    "options",
    [
        ImageOptions(mask=ImageSource.of(ALPHA, name="m.png")),
        ImageOptions(mask=ImageSource.of(WHITE, name="m.png"), mask_edit="white"),
        ImageOptions(mask=ImageSource.of(BLACK, name="m.png"), mask_edit="black"),
        ImageOptions(mask_box=BOX),
    ],
)
def test_every_way_to_give_a_mask_marks_the_same_pixels(options: ImageOptions) -> None:
    _, mask = edit(png(Image.new("RGB", SIZE)), options)
    region = edited(mask)
    assert region.getbbox() == BOX
    assert region.crop(BOX).getextrema() == (255, 255)
    assert mask.source == ("m.png" if options.mask else "box")
    assert (mask.source_sha256 is None) is (options.mask is None)


def test_a_mask_that_agrees_is_sent_byte_for_byte_and_so_is_its_picture() -> None:
    picture = png(Image.new("RGB", SIZE))
    image, mask = edit(picture, ImageOptions(mask=ImageSource.of(ALPHA)))
    assert (image.content, mask.content) == (picture, ALPHA)


def test_with_a_mask_a_jpeg_becomes_a_png_of_the_same_pixels() -> None:
    image, _ = edit(photo(), ImageOptions(mask_box=BOX))
    with Image.open(io.BytesIO(image.content)) as sent, Image.open(io.BytesIO(photo())) as original:
        assert sent.format == "PNG"
        assert ImageChops.difference(sent.convert("RGB"), original).getbbox() is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_is_counted_in_the_upright_picture(orientation: int) -> None:
    stored = SIZE if orientation < 5 else SIZE[::-1]
    image, mask = edit(photo(orientation, stored), ImageOptions(mask_box=BOX))
    assert (image.width, image.height) == SIZE
    assert edited(mask).getbbox() == BOX
    with Image.open(io.BytesIO(image.content)) as sent:
        assert sent.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("options", "box"),
    [
        (ImageOptions(fit="crop", mask_box=BOX), (0, 20, 24, 60)),
        (ImageOptions(fit="pad", mask_box=BOX), (10, 36, 40, 76)),
        (ImageOptions(fit="stretch", mask_box=BOX), (10, 30, 40, 90)),
        (ImageOptions(fit="pad", resize=(48, 48), mask_box=BOX), (5, 18, 20, 38)),
        (ImageOptions(resize=(192, 192), mask_box=BOX), (20, 60, 80, 180)),
    ],
)
def test_the_mask_takes_the_way_of_its_picture_and_padding_is_kept(
    options: ImageOptions, box: tuple[int, int, int, int]
) -> None:
    _, mask = edit(photo(), options, "dall-e-2")
    assert edited(mask).getbbox() == box


def test_a_mask_that_is_turned_by_its_own_exif_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = png(marked((0, 0, 0, 0), (0, 0, 0, 255), "RGBA").rotate(180), exif=exif)
    _, mask = edit(png(Image.new("RGB", SIZE)), ImageOptions(mask=ImageSource.of(upside_down)))
    assert edited(mask).getbbox() == BOX


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (ImageOptions(mask=ImageSource.of(WHITE, name="m.png")), "m.png: has no alpha channel"),
        (ImageOptions(mask=ImageSource.of(OPAQUE, name="m.png")), "m.png: marks nothing: its alpha channel is opaque"),
        (ImageOptions(mask=ImageSource.of(OPAQUE, name="m.png")), "write `mask: {image: …, edit: white}`"),
        (
            ImageOptions(mask=ImageSource.of(WHITE, name="m.png")),
            r"write `mask: \{image: …, edit: white\}` or `edit: black`",
        ),
        (
            ImageOptions(mask=ImageSource.of(png(Image.new("RGBA", SIZE, (0, 0, 0, 255))), name="m.png")),
            "m.png: marks nothing",
        ),
        (
            ImageOptions(mask=ImageSource.of(png(Image.new("RGBA", SIZE, (0, 0, 0, 128))), name="m.png")),
            "marks nothing",
        ),
        (ImageOptions(mask=ImageSource.of(png(Image.new("RGBA", SIZE)), name="m.png")), "m.png: marks everything"),
        (
            ImageOptions(mask=ImageSource.of(png(Image.new("L", SIZE)), name="m.png"), mask_edit="white"),
            "no pixel is white",
        ),
        (
            ImageOptions(mask=ImageSource.of(png(Image.new("L", SIZE)), name="m.png"), mask_edit="black"),
            "every pixel is black",
        ),
        (
            ImageOptions(mask=ImageSource.of(png(Image.new("RGBA", (9, 9))), name="m.png")),
            "m.png: is 9x9, but photo.jpg is 96x64; draw the mask in the size of the image",
        ),
        (
            ImageOptions(mask=ImageSource.of(png(Image.new("RGBA", (64, 96))), name="m.png")),
            "m.png: is 64x96, but photo.jpg is 96x64 when it is upright; draw the mask in the size of the image",
        ),
        (ImageOptions(mask=ImageSource.of(b"<html>", name="m.png")), "m.png: is an HTML page"),
        (ImageOptions(mask=ImageSource.of("absent.png")), "absent.png: does not exist"),
        (
            ImageOptions(mask_box=(0, 0, 97, 10)),
            r"mask.box: \[0, 0, 97, 10\] reaches beyond the image, which is 96x64",
        ),
        (ImageOptions(mask_box=(0, 0, 96, 64)), "mask.box: marks everything"),
        (
            ImageOptions(fit="crop", mask_box=(0, 0, 10, 64)),
            "box: marks nothing: no pixel is to be edited once it is fitted",
        ),
    ],
)
def test_a_useless_mask_is_refused_with_what_to_do(options: ImageOptions, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        edit(photo(), options, "dall-e-2" if options.fit else "gpt-image-2")


def test_a_wrong_picture_and_a_wrong_mask_are_named_together() -> None:
    with pytest.raises(ImageError) as caught:
        edit(photo(), ImageOptions(mask=ImageSource.of(WHITE, name="m.png")), "dall-e-2")
    assert [problem.location for problem in caught.value.problems] == ["photo.jpg", "m.png"]


def test_a_mask_that_a_strict_server_may_refuse_is_encoded_again() -> None:
    for content in (ALPHA[:-12], ALPHA[:33] + b"\0\0\0\3tEXta\0b\1\2\3\4" + ALPHA[33:]):
        _, mask = edit(photo(), ImageOptions(mask=ImageSource.of(content, name="m.png")))
        assert (
            ImageChops.difference(
                edited(mask), edited(edit(photo(), ImageOptions(mask=ImageSource.of(ALPHA)))[1])
            ).getbbox()
            is None
        )
        assert mask.content != content
        assert mask.content.endswith(ALPHA[-12:])

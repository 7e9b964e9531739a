"""Every picture is sent as the model wants it, byte for byte where it can be, or refused with words that name it."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import pytest
from PIL import Image, ImageChops, ImageCms

from pipeline.errors import ImageError
from pipeline.images.inspect import ImageInfo, open_image
from pipeline.images.masks import draw_mask_overlay
from pipeline.images.options import Fit, ImageOptions
from pipeline.images.prepare import PreparedInput, prepare
from pipeline.images.prepared_cache import PreparedCache, write_inputs
from pipeline.images.source import ImageSource
from pipeline.models.table import Models
from tests.support.error_table import naming
from tests.support.noise import grey_noise
from tests.support.photographs import PHOTOGRAPHS, photograph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.models.model import ImageRequirements

FITS: tuple[Fit, ...] = get_args(Fit)
TABLE = Models.load()


def rules(name: str, operation: str) -> ImageRequirements:
    model = TABLE.find(name)
    assert model is not None
    requirements = model.image_requirements(operation)
    assert requirements is not None
    return requirements


DALLE_EDIT, VARIATION, GPT = rules("dall-e-2", "edit"), rules("dall-e-2", "variation"), rules("gpt-image-2", "edit")


def drawn(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Draw ramps, so that a crop, a turn or wrong colours would show; the left half of alpha is transparent."""
    across = Image.linear_gradient("L").rotate(90).resize(size)
    down = Image.linear_gradient("L").resize(size)
    alpha = Image.new("L", size, 255)
    alpha.paste(0, (0, 0, max(1, size[0] // 2), size[1]))
    rgba = Image.merge("RGBA", (across, down, ImageChops.invert(across), alpha))
    if mode in {"I;16", "I", "F"}:
        return across.convert("I").point(lambda value: value * 257).convert(mode)
    if mode in {"LA", "PA"}:
        return Image.merge("LA", (across, alpha)).convert(mode)
    if mode == "LAB":
        return Image.merge("LAB", (across, down, down))
    return rgba.convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_broken_text(png: bytes) -> bytes:
    """Return a PNG with a tEXt chunk before its pixels whose checksum is wrong."""
    at = png.index(b"IDAT") - 4
    return png[:at] + b"\0\0\0\3tEXta\0b\1\2\3\4" + png[at:]


def turned(orientation: int, kind: str = "jpeg", size: tuple[int, int] = (96, 64)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(drawn(size=size), kind, exif=exif)


def bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def animated(kind: str) -> bytes:
    return encoded(drawn(), kind, save_all=True, append_images=[drawn().rotate(180)])


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SQUARE = (64, 64)
CORPUS: dict[str, bytes] = {
    **{f"mode {mode}.png": encoded(drawn(mode), "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    **{
        f"mode {mode}.tiff": encoded(drawn(mode), "tiff")
        for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F")
    },
    **{f"mode {mode}.jpg": encoded(drawn(mode), "jpeg") for mode in ("L", "RGB", "CMYK", "YCbCr")},
    **{f"square {mode}.png": encoded(drawn(mode, SQUARE), "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"orientation {number}.jpg": turned(number) for number in range(1, 9)},
    **{f"orientation {number}.png": turned(number, "png", SQUARE) for number in (1, 3, 6)},
    "orientation 8.webp": turned(8, "webp"),
    "orientation 6.tiff": turned(6, "tiff"),
    "transparent colour.png": encoded(drawn("RGB", SQUARE), "png", transparency=(0, 0, 0)),
    "transparent palette.png": encoded(drawn("P", SQUARE), "png", transparency=3),
    "16-bit grey with a transparent colour.png": encoded(drawn("I;16", SQUARE), "png", transparency=0),
    "opaque alpha.png": encoded(drawn("RGB", SQUARE).convert("RGBA"), "png"),
    "nothing but air.png": encoded(Image.new("RGBA", SQUARE), "png"),
    "srgb.png": encoded(drawn("RGBA", SQUARE), "png", icc_profile=SRGB),
    "icc.jpg": encoded(drawn(), "jpeg", icc_profile=SRGB),
    "broken icc.jpg": encoded(drawn(), "jpeg", icc_profile=b"no profile" * 20),
    "grey with a colour profile.jpg": encoded(drawn("L"), "jpeg", icc_profile=SRGB),
    "photo.webp": encoded(drawn(), "webp"),
    "alpha.webp": encoded(drawn("RGBA", SQUARE), "webp", lossless=True),
    "still.gif": encoded(drawn("P"), "gif"),
    "old.bmp": encoded(drawn(), "bmp"),
    "moving.gif": animated("gif"),
    "moving.png": animated("png"),
    "moving.webp": animated("webp"),
    "pages.tiff": animated("tiff"),
    "one pixel.png": encoded(drawn("RGBA", (2, 1)).crop((1, 0, 2, 1)), "png"),
    "one column.png": encoded(drawn("RGBA", (1, 300)), "png"),
    "one row.png": encoded(drawn("RGBA", (1500, 1)), "png"),
    "a jpeg in truth.png": encoded(drawn(size=SQUARE), "jpeg"),
    "a png in truth.jpg": encoded(drawn("RGBA", SQUARE), "png"),
    "no ending": encoded(drawn("RGBA", SQUARE), "png"),
    "cut in half.png": encoded(drawn("RGBA", SQUARE), "png")[:300],
    "no end mark.png": encoded(drawn("RGBA", SQUARE), "png")[:-12],
    "cut.jpg": encoded(drawn(), "jpeg")[:-60],
    "no end mark.jpg": encoded(drawn(), "jpeg")[:-2],
    "wrong checksum of its text.png": with_broken_text(encoded(drawn("RGBA", SQUARE), "png")),
    "iphone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "cut.webp": encoded(drawn(), "webp")[:-5],
    "bomb.png": bomb(),
    "empty.png": b"",
    "page.png": b"<!doctype html><title>404</title>",
    "error.png": b'{"error": {"message": "expired"}}',
    "vector.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "garbage.png": bytes(range(256)),
}
MENDED = {
    "no end mark.png": encoded(drawn("RGBA", SQUARE), "png"),
    "no end mark.jpg": encoded(drawn(), "jpeg"),
    "wrong checksum of its text.png": encoded(drawn("RGBA", SQUARE), "png"),
}
"""What is sent of images that every viewer shows and a strict server may refuse."""


def meets(one: PreparedInput, requirements: ImageRequirements, *, carries_mask: bool) -> None:
    """Check by Pillow alone what the service would check."""
    with Image.open(io.BytesIO(one.content)) as image:
        image.load()
        assert image.size == (one.width, one.height)
        assert str(image.format).lower() == one.format
        assert one.format in requirements.formats
        assert getattr(image, "n_frames", 1) == 1
        if requirements.square:
            assert image.width == image.height
        if requirements.upright:
            assert image.getexif().get(0x0112, 1) == 1
        if requirements.max_bytes is not None:
            assert len(one.content) < requirements.max_bytes
        if carries_mask:
            assert image.mode in {"RGBA", "LA", "L"}
            assert image.getchannel("A").getextrema() == (0, 255)
    assert one.sha256 == hashlib.sha256(one.content).hexdigest()


def test_the_corpus_is_wide() -> None:
    assert len(CORPUS) >= 60


@pytest.mark.parametrize("name", CORPUS)
def test_an_awkward_picture_is_made_fit_or_refused_by_name(name: str) -> None:
    for fit in (None, *FITS):
        for requirements in (DALLE_EDIT, VARIATION, GPT):
            with naming((fit, requirements)):
                _made_fit_or_refused(name, "gpt-image-2" if requirements is GPT else "dall-e-2", requirements, fit)


def _made_fit_or_refused(name: str, model: str, requirements: ImageRequirements, fit: Fit | None) -> None:
    refusal = None
    try:
        (one,) = prepare([ImageSource.of(CORPUS[name], name=name)], ImageOptions(fit=fit), requirements, model)
    except ImageError as reason:
        refusal = reason
    if refusal is not None:
        assert str(refusal).startswith(f"{name}: ")
        assert all(problem.location == name for problem in refusal.problems)
    else:
        meets(one, requirements, carries_mask=requirements is DALLE_EDIT)
        assert one.source == name
        if fit is None:
            assert one.content == MENDED.get(name, CORPUS[name])


MENDABLE = [
    name
    for name in CORPUS
    if not name.startswith(("moving", "pages", "cut", "iphone", "bomb", "empty", "page", "error", "vector", "script"))
    and name not in {"garbage.png", "mode LAB.tiff", "mode I.tiff", "mode F.tiff"}
]


@pytest.mark.parametrize("name", MENDABLE)
def test_every_whole_picture_of_one_frame_can_be_mended_for_a_variation(name: str) -> None:
    for fit in FITS:
        with naming(fit):
            (one,) = prepare([ImageSource.of(CORPUS[name], name=name)], ImageOptions(fit=fit), VARIATION, "dall-e-2")
            meets(one, VARIATION, carries_mask=False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("moving.gif", "has 2 frames"),
        ("pages.tiff", "has 2 frames or pages"),
        ("cut.jpg", "is cut off"),
        ("bomb.png", "claims 50000x50000"),
        ("empty.png", "is empty"),
        ("page.png", "HTML"),
        ("error.png", "JSON"),
        ("vector.svg", "SVG"),
        ("script.eps", "is PostScript (EPS): save it as JPEG or PNG"),
        ("iphone.jpg", "is HEIC, as iPhones take them: save it as JPEG or PNG"),
        ("mode F.tiff", "has floating-point pixels (mode F); save it as an 8-bit PNG"),
        ("mode I.tiff", "has 32-bit pixels"),
        ("mode LAB.tiff", "has Lab colours"),
    ],
)
def test_what_cannot_be_mended_is_refused_with_its_reason(name: str, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        prepare([ImageSource.of(CORPUS[name], name=name)], ImageOptions(fit="pad"), VARIATION, "dall-e-2")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "requirements", "model", "words"),
    [
        (
            "mode RGB.jpg",
            VARIATION,
            "dall-e-2",
            "is 96x64 JPEG; dall-e-2 takes square PNG: add `fit: crop`, `fit: pad` or `fit: stretch` to the request",
        ),
        (
            "a jpeg in truth.png",
            VARIATION,
            "dall-e-2",
            "is 64x64 JPEG; dall-e-2 takes square PNG: add `fit: pad` to the request to have it converted",
        ),
        ("orientation 6.png", VARIATION, "dall-e-2", "turned by its EXIF orientation (6)"),
        ("still.gif", GPT, "gpt-image-2", "is 96x64 GIF; gpt-image-2 takes PNG, WEBP or JPEG: add `fit: pad`"),
        (
            "square RGB.png",
            DALLE_EDIT,
            "dall-e-2",
            "has no transparency to mark what is edited (mode RGB): add `mask:`",
        ),
        (
            "transparent palette.png",
            DALLE_EDIT,
            "dall-e-2",
            "in mode P; dall-e-2 takes square PNG in mode RGBA, LA or L",
        ),
        ("opaque alpha.png", DALLE_EDIT, "dall-e-2", "marks nothing"),
        ("nothing but air.png", DALLE_EDIT, "dall-e-2", "marks everything"),
    ],
)
def test_a_refusal_gives_the_words_to_add(name: str, requirements: ImageRequirements, model: str, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        prepare([ImageSource.of(CORPUS[name], name=name)], ImageOptions(), requirements, model)
    assert words in str(caught.value)


def test_too_many_bytes_are_refused_and_shrunk_where_fit_is_given() -> None:
    noisy = encoded(grey_noise((300, 300), 90).convert("RGB"), "png")
    small = replace(VARIATION, max_bytes=20_000)
    with pytest.raises(ImageError, match=r"of 0\.2 MB; dall-e-2 takes square PNG under 0\.0191 MB"):
        prepare([ImageSource.of(noisy)], ImageOptions(), small, "dall-e-2")
    (one,) = prepare([ImageSource.of(noisy)], ImageOptions(fit="crop"), small, "dall-e-2")
    meets(one, small, carries_mask=False)
    assert len(one.content) > 10_000  # not smaller than it must be
    with pytest.raises(ImageError, match="write a smaller `resize`"):
        prepare([ImageSource.of(noisy)], ImageOptions(fit="crop", resize=(290, 290)), small, "dall-e-2")


def test_a_mask_shrinks_with_its_picture() -> None:
    noisy = encoded(grey_noise((300, 300), 90).convert("RGB"), "png")
    small = replace(DALLE_EDIT, max_bytes=20_000)
    image, mask = prepare(
        [ImageSource.of(noisy)], ImageOptions(fit="crop", mask_box=(0, 0, 150, 300)), small, "dall-e-2"
    )
    assert (image.width, image.height) == (mask.width, mask.height)
    assert image.width < 300


@pytest.mark.parametrize("name", ["square RGBA.png", "srgb.png", "orientation 1.png"])
@pytest.mark.parametrize(
    "options", [ImageOptions(), *[ImageOptions(fit=fit) for fit in FITS], ImageOptions(resize=SQUARE)]
)
def test_a_picture_that_meets_the_requirements_is_sent_byte_for_byte(name: str, options: ImageOptions) -> None:
    (one,) = prepare([ImageSource.of(CORPUS[name], name=name)], options, VARIATION, "dall-e-2")
    assert one.content == CORPUS[name]
    assert one.sha256 == one.source_sha256


@pytest.mark.parametrize("number", range(1, 9))
def test_a_turned_jpeg_goes_as_it_is_to_a_service_that_reads_exif_and_upright_where_it_is_mended(number: int) -> None:
    content = turned(number)
    (as_it_is,) = prepare([ImageSource.of(content)], ImageOptions(), GPT, "gpt-image-2")
    assert as_it_is.content == content
    (mended,) = prepare([ImageSource.of(content)], ImageOptions(resize=(48, 48), fit="pad"), GPT, "gpt-image-2")
    with Image.open(io.BytesIO(mended.content)) as image:
        assert image.getexif().get(0x0112, 1) == 1
        inside = image.getchannel("A").getbbox()
        assert inside == ((8, 0, 40, 48) if number >= 5 else (0, 8, 48, 40))
        found = image.convert("RGB").crop(inside)
    upright = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[number]  # Pillow's numbers of the turns
    wanted = drawn() if upright is None else drawn().transpose(Image.Transpose(upright))
    difference = ImageChops.difference(found, wanted.resize(found.size)).convert("L")
    assert sum(value * count for value, count in enumerate(difference.histogram())) / (32 * 48) < 6


def colour(one: PreparedInput, at: tuple[float, float]) -> tuple[int, ...]:
    with Image.open(io.BytesIO(one.content)) as image:
        pixel = image.convert("RGBA").getpixel((int(at[0] * image.width), int(at[1] * image.height)))
        assert isinstance(pixel, tuple)
        return pixel


@pytest.mark.parametrize(
    ("mode", "kind", "wanted"),
    [
        ("RGB", "png", (200, 40, 90)),
        ("CMYK", "tiff", (200, 40, 90)),
        ("YCbCr", "tiff", (200, 40, 90)),
        ("P", "png", (204, 51, 102)),
        ("L", "png", (93, 93, 93)),
    ],
)
def test_colours_survive_their_conversion(mode: str, kind: str, wanted: tuple[int, ...]) -> None:
    image = Image.new("RGB", (30, 20), (200, 40, 90))
    content = encoded(image.convert(mode), kind)
    (one,) = prepare([ImageSource.of(content)], ImageOptions(fit="crop"), VARIATION, "dall-e-2")
    assert colour(one, (0.5, 0.5))[:3] == pytest.approx(wanted, abs=3)


def test_16_bit_grey_keeps_its_brightness() -> None:
    image = Image.new("I;16", (30, 20), 128 * 257)
    (one,) = prepare([ImageSource.of(encoded(image, "png"))], ImageOptions(fit="crop"), VARIATION, "dall-e-2")
    assert colour(one, (0.5, 0.5)) == (128, 128, 128, 255)


def test_an_icc_profile_is_applied_where_the_picture_is_encoded_anew() -> None:
    swapped = bytearray(SRGB)  # Pillow can make no other RGB profile: swap its red and blue primaries by hand
    places = {}
    for entry in range(132, 132 + 12 * struct.unpack_from(">I", swapped, 128)[0], 12):
        places[bytes(swapped[entry : entry + 4])] = entry + 4
    red, blue = (bytes(swapped[places[tag] : places[tag] + 8]) for tag in (b"rXYZ", b"bXYZ"))
    swapped[places[b"rXYZ"] : places[b"rXYZ"] + 8] = blue
    swapped[places[b"bXYZ"] : places[b"bXYZ"] + 8] = red
    content = encoded(Image.new("RGB", (30, 20), (250, 0, 0)), "png", icc_profile=bytes(swapped))
    (one,) = prepare([ImageSource.of(content)], ImageOptions(fit="crop"), VARIATION, "dall-e-2")
    red_now, _, blue_now, _ = colour(one, (0.5, 0.5))
    assert red_now < 30
    assert blue_now > 200
    with Image.open(io.BytesIO(one.content)) as image:
        assert "icc_profile" not in image.info


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (ImageOptions(fit="crop"), (64, 64)),
        (ImageOptions(fit="pad"), (96, 96)),
        (ImageOptions(fit="stretch"), (96, 96)),
        (ImageOptions(resize=(50, 50)), (50, 50)),
        (ImageOptions(fit="crop", resize=(50, 50)), (50, 50)),
        (ImageOptions(fit="pad", resize=(200, 200)), (200, 200)),
    ],
)
def test_a_square_is_the_shorter_side_cropped_and_the_longer_padded_or_stretched(
    options: ImageOptions, size: tuple[int, int]
) -> None:
    (one,) = prepare([ImageSource.of(CORPUS["mode RGB.jpg"])], options, VARIATION, "dall-e-2")
    assert (one.width, one.height) == size


def test_padding_is_transparent_and_the_crop_is_the_middle() -> None:
    source = ImageSource.of(CORPUS["mode RGB.png"])
    (padded,) = prepare([source], ImageOptions(fit="pad"), VARIATION, "dall-e-2")
    assert colour(padded, (0.5, 0.05))[3] == 0
    assert colour(padded, (0.5, 0.5))[3] == 255
    (cropped,) = prepare([source], ImageOptions(fit="crop"), VARIATION, "dall-e-2")
    with Image.open(io.BytesIO(cropped.content)) as image:
        assert ImageChops.difference(image.convert("RGB"), drawn().crop((16, 0, 80, 64))).getbbox() is None


def test_a_resize_that_is_not_square_is_refused_where_squares_are_demanded() -> None:
    with pytest.raises(ImageError, match="would become 60x40 by `resize: 60x40`; dall-e-2 takes square images"):
        prepare(
            [ImageSource.of(CORPUS["mode RGB.png"], name="a.png")], ImageOptions(resize=(60, 40)), VARIATION, "dall-e-2"
        )


def test_a_very_long_picture_padded_to_a_square_is_no_bomb() -> None:
    content = encoded(Image.new("L", (30_000, 1)), "png")
    (one,) = prepare([ImageSource.of(content)], ImageOptions(fit="pad"), VARIATION, "dall-e-2")
    assert (one.width, one.height) == (4096, 4096)


def test_a_picture_for_an_unknown_model_is_sent_as_it_is() -> None:
    for name in ("mode RGB.jpg", "photo.webp", "mode P.png", "orientation 6.jpg"):
        (one,) = prepare([ImageSource.of(CORPUS[name])], ImageOptions(), None, None)
        assert one.content == CORPUS[name]
    with pytest.raises(ImageError, match="the model takes PNG, JPEG or WEBP"):
        prepare([ImageSource.of(CORPUS["old.bmp"])], ImageOptions(), None, None)


def test_all_pictures_are_named_at_once(tmp_path: Path) -> None:
    sources = [
        ImageSource.of("absent.png", folder=tmp_path),
        *(ImageSource.of(CORPUS[name], name=name) for name in ("old.bmp", "cut.jpg")),
    ]
    with pytest.raises(ImageError) as caught:
        prepare(sources, ImageOptions(mask_box=(0, 0, 9, 9)), GPT, "gpt-image-2")
    assert [problem.location for problem in caught.value.problems] == ["absent.png", "old.bmp", "cut.jpg"]


def test_several_pictures_keep_their_order_and_the_mask_comes_last() -> None:
    names = ["square RGBA.png", "mode RGB.jpg", "photo.webp"]
    sources = [ImageSource.of(CORPUS[name], name=name) for name in names]
    prepared = prepare(sources, ImageOptions(mask_box=(0, 0, 9, 9)), GPT, "gpt-image-2")
    assert [(one.role, one.source) for one in prepared] == [*(("image", name) for name in names), ("mask", "box")]
    assert [one.content for one in prepared[:3]] == [CORPUS[name] for name in names]


@pytest.mark.parametrize("photo", PHOTOGRAPHS)
@pytest.mark.parametrize("fit", FITS)
def test_a_photograph_goes_through_edits_and_variations(photo: str, fit: Fit) -> None:
    source = ImageSource.of(photograph(photo), name=photo)
    (one,) = prepare([source], ImageOptions(fit=fit), VARIATION, "dall-e-2")
    meets(one, VARIATION, carries_mask=False)
    for requirements, model in ((DALLE_EDIT, "dall-e-2"), (GPT, "gpt-image-2")):
        image, mask = prepare([source], ImageOptions(fit=fit, mask_box=(100, 100, 250, 250)), requirements, model)
        meets(image, requirements, carries_mask=False)
        meets(replace(mask, format="png"), replace(requirements, formats=("png",)), carries_mask=True)
        assert (image.width, image.height) == (mask.width, mask.height)


def test_photographs_without_fit_are_sent_or_refused_as_they_are() -> None:
    for name in PHOTOGRAPHS:
        content = photograph(name)
        source = ImageSource.of(content, name=name)
        (one,) = prepare([source], ImageOptions(), GPT, "gpt-image-2")
        assert one.content == content
        if name.startswith("square"):
            assert prepare([source], ImageOptions(), VARIATION, "dall-e-2")[0].content == content
        else:
            with pytest.raises(ImageError, match=name):
                prepare([source], ImageOptions(), VARIATION, "dall-e-2")


def test_a_shared_picture_is_prepared_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(CORPUS["mode RGB.png"])
    opened: list[int] = []

    def open_and_count(content: bytes) -> tuple[ImageInfo, Image.Image]:
        opened.append(len(content))
        return open_image(content)

    monkeypatch.setattr("pipeline.images.prepare.open_image", open_and_count)
    inputs = PreparedCache()

    def ask(options: ImageOptions) -> PreparedInput:
        return inputs.prepare([ImageSource.of("a.png", folder=tmp_path)], options, VARIATION, "dall-e-2")[0]

    first = ask(ImageOptions(fit="crop"))
    assert all(ask(ImageOptions(fit="crop")) is first for _ in range(100))
    assert len(opened) == 1
    ask(ImageOptions(fit="pad"))
    assert len(opened) == 2
    path.write_bytes(CORPUS["orientation 1.jpg"])
    assert ask(ImageOptions(fit="crop")).source_sha256 != first.source_sha256
    assert len(opened) == 3


def test_what_is_remembered_is_bounded() -> None:
    inputs = PreparedCache(max_bytes=40_000)
    sources = [ImageSource.of(encoded(grey_noise((100, 100), 90, seed), "png")) for seed in range(10)]
    for source in sources:
        inputs.prepare([source], ImageOptions(), None, None)
    assert inputs._bytes <= 40_000
    assert 0 < len(inputs._prepared) < 10


def test_problems_come_through_the_cache_all_at_once(tmp_path: Path) -> None:
    sources = [ImageSource.of(name, folder=tmp_path) for name in ("a.png", "b.png")]
    with pytest.raises(ImageError) as caught:
        PreparedCache().prepare(sources, ImageOptions(), GPT, "gpt-image-2")
    assert [str(problem) for problem in caught.value.problems] == ["a.png: does not exist", "b.png: does not exist"]


def test_inputs_are_stored_once_by_their_hash(tmp_path: Path) -> None:
    prepared = prepare(
        [ImageSource.of(CORPUS["square RGBA.png"]), ImageSource.of(CORPUS["mode RGB.jpg"])],
        ImageOptions(),
        GPT,
        "gpt-image-2",
    )
    write_inputs(tmp_path, prepared)
    files = sorted((tmp_path / "inputs").iterdir())
    assert {f"inputs/{path.name}" for path in files} == {one.file for one in prepared}
    assert sorted(path.suffix for path in files) == [".jpg", ".png"]
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in files)
    before = [path.stat().st_mtime_ns for path in files]
    write_inputs(tmp_path, prepared)
    assert [path.stat().st_mtime_ns for path in files] == before
    files[0].write_bytes(b"half")
    write_inputs(tmp_path, prepared)
    assert hashlib.sha256(files[0].read_bytes()).hexdigest() == files[0].stem


@pytest.mark.parametrize(
    "make",
    [
        lambda: prepare([ImageSource.of(CORPUS["mode RGB.png"])], ImageOptions(mask_box=(10, 10, 50, 40)), GPT, "m"),
        lambda: prepare([ImageSource.of(CORPUS["square RGBA.png"])], ImageOptions(), DALLE_EDIT, "m"),
        lambda: prepare([ImageSource.of(CORPUS["orientation 6.jpg"])], ImageOptions(), GPT, "m"),
    ],
)
def test_the_preview_tints_what_is_edited_and_nothing_else(make: Callable[[], tuple[PreparedInput, ...]]) -> None:
    prepared = make()
    mask = next((one.content for one in prepared if one.role == "mask"), None)
    drawn = draw_mask_overlay(prepared[0].content, mask)
    with Image.open(io.BytesIO(drawn)) as image, Image.open(io.BytesIO(prepared[0].content)) as sent:
        upright = sent.size if sent.getexif().get(0x0112, 1) < 5 else sent.size[::-1]
        assert image.size == upright
        if len(prepared) == 2:
            plain = sent.convert("RGB")
            difference = ImageChops.difference(image.convert("RGB"), plain)
            assert difference.getbbox() == (10, 10, 50, 40)

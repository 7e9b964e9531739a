"""Draw the image that an `ImageSpec` describes; the same spec gives the same bytes.

A pattern is drawn in shades of grey at twice the size, halved, which smooths its edges, and coloured by a palette of
256 colours: 1024x1024 in about 12 ms. Only an image that shows an uploaded one is drawn in full colour.
"""

from __future__ import annotations

import io
import random
import textwrap
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from pipeline.sandbox.drawing.encode import Colour, encode_image, encode_svg
from pipeline.sandbox.drawing.patterns import PATTERNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.sandbox.drawing.image_spec import ImageSpec

CAPTION_LINES: Final = 2
SMOOTHED_PIXELS: Final = 4_200_000
"""Above this the edges are not smoothed: twice the edge of a 4K image would be 33 megapixels."""
PALETTES: Final = tuple(
    tuple(ImageColor.getrgb(f"#{stop}") for stop in stops.split())
    for stops in (
        "1b1035 4b2a6b c0496b f58a5b ffe3b0",  # dusk
        "06202b 0f4c5c 2a9d8f a8dadc f1faee",  # lagoon
        "10221b 27543d 6a994e d9c66b fbf3d3",  # forest
        "17182f 1d4e89 d1495b edae49 fbf2df",  # poster
        "2b0f1e 7b1e45 d0486f f2a0a1 fdeee3",  # rose
        "0b1d3a 24548f 5f9fd0 b8dcec f6fbff",  # ice
        "2a140e 7a3b1f cf7b3e efbf7d fdf2dc",  # desert
        "14110f 40342a 94703a dcb567 fff4d6",  # brass
        "0a1128 123c5a 17836f 7fd47f f1f7c9",  # aurora
        "180a24 52276e a34f9b eb96b0 fff0e6",  # plum
        "101820 33475b f2545b f7a072 fdf0d5",  # coral
        "1d1a31 4d2d52 9a4c95 f08cae fde7d4",  # orchid
    )
)


def draw(spec: ImageSpec, read: Callable[[str], bytes]) -> bytes:
    """Draw and encode an image; `read` returns an uploaded file by its SHA-256 and may raise LookupError."""
    rng = random.Random(spec.seed)
    source = _decode_source(read(spec.source)) if spec.source else None
    palette = rng.choice(PALETTES) if source is None or spec.keeps_source else _palette_of(source)
    if spec.format == "svg":
        return encode_svg(spec, palette if source is None else _palette_of(source), rng)
    image = _composition(spec, palette, rng)
    if source is not None and spec.keeps_source:
        mask = _decode_source(read(spec.mask)) if spec.mask else None
        image = _edit(source, mask, image.convert("RGB"))
        _write_caption(image, spec.caption, palette[0], palette[-1])
    elif spec.transparent:
        image = _cut_out(image)
    return encode_image(image, spec)


def partial_image(content: bytes, spec: ImageSpec, step: int) -> bytes:
    """Return a partial image as a stream shows it: coarse, and finer with each step from 0."""
    with Image.open(io.BytesIO(content)) as image:
        whole = image.convert("RGBA" if spec.transparent else "RGB")
    coarse = whole.resize((16 << step, 16 << step), Image.Resampling.BOX)
    return encode_image(coarse.resize(whole.size, Image.Resampling.NEAREST), spec)


def _decode_source(content: bytes) -> Image.Image:
    """Decode an upload upright and with 8 bits; Pillow's own conversion makes all but the darkest 16-bit grey white."""
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):
            upright = upright.convert("I").point(lambda tone: tone * (255 / 65535)).convert("L")
        return upright.convert("RGBA")


def _composition(spec: ImageSpec, palette: tuple[Colour, ...], rng: random.Random) -> Image.Image:
    """Draw a pattern in shades of grey, smooth it, and colour it through the palette."""
    scale = 2 if spec.width * spec.height <= SMOOTHED_PIXELS else 1
    width, height = spec.width * scale, spec.height * scale
    canvas = Image.linear_gradient("L").resize((width, height), Image.Resampling.NEAREST)
    canvas = canvas.point([round(70 + 0.55 * tone) for tone in range(256)])
    rng.choice(PATTERNS)(ImageDraw.Draw(canvas), width, height, rng)
    if scale > 1:
        canvas = canvas.reduce(scale)
    if not spec.keeps_source:
        _write_caption(canvas, spec.caption, 0, 255)
    canvas.putpalette(_interpolate(palette))
    return canvas


def _interpolate(palette: tuple[Colour, ...]) -> bytes:
    """Return a palette's colours interpolated over 256 tones."""
    table = bytearray()
    for tone in range(256):
        stop, part = divmod(tone * (len(palette) - 1), 255)
        low, high = palette[stop], palette[min(stop + 1, len(palette) - 1)]
        table += bytes((a * (255 - part) + b * part) // 255 for a, b in zip(low, high, strict=True))
    return bytes(table)


def _palette_of(source: Image.Image) -> tuple[Colour, ...]:
    """Return the five main colours of a source from dark to light."""
    small = source.convert("RGB").resize((48, 48)).quantize(5)
    flat = small.getpalette() or []
    colours = [tuple(flat[place : place + 3]) for place in range(0, min(len(flat), 15), 3)]
    colours += colours[-1:] * (2 - len(colours))  # a source of one colour
    return tuple(sorted(colours, key=lambda rgb: 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2]))


def _edit(source: Image.Image, mask: Image.Image | None, drawing: Image.Image) -> Image.Image:
    """Paste the drawing into the transparent part of the mask, else of the source, else softly into the middle."""
    source = ImageOps.fit(source, drawing.size)
    alpha = (ImageOps.fit(mask, drawing.size) if mask else source).getchannel("A")
    if mask is None and alpha.getextrema() == (255, 255):
        alpha = Image.radial_gradient("L").resize(drawing.size).point([min(255, tone * 2) for tone in range(256)])
    return Image.composite(source.convert("RGB"), drawing, alpha)


def _cut_out(image: Image.Image) -> Image.Image:
    """Return a disc of the image on a transparent background."""
    alpha = (
        Image.radial_gradient("L")
        .resize(image.size)
        .point([max(0, min(255, 64 * (172 - tone))) for tone in range(256)])
    )
    cut = image.convert("RGBA")
    cut.putalpha(alpha)
    return cut


def _write_caption(image: Image.Image, caption: str, ground: Colour | int, ink: Colour | int) -> None:
    """Draw the caption at the bottom, light on a dark band, in at most two lines."""
    if not caption:
        return
    size = max(9, min(image.size) // 42)
    font = ImageFont.load_default(size)
    across = max(8, int(image.width * 0.94 / (size * 0.52)))
    lines = textwrap.wrap(caption, across, max_lines=CAPTION_LINES, placeholder=" \N{HORIZONTAL ELLIPSIS}")
    step = round(size * 1.35)
    top = image.height - step * len(lines) - size
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, top, image.width, image.height), fill=ground)
    for number, line in enumerate(lines):
        pen.text((image.width * 0.03, top + size * 0.45 + step * number), line, font=font, fill=ink)

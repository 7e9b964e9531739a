"""A sketch becomes the bytes of a picture, the same bytes each time.

A composition is drawn in tones at twice the size, halved, which smooths its edges, and coloured by a table of 256
colours: 1024x1024 in about 12 ms. Only what shows an uploaded picture is drawn in full colour.
"""

from __future__ import annotations

import hashlib
import io
import random
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from pipeline.sandbox.drawing.encode import encoded, svg
from pipeline.sandbox.drawing.patterns import MOTIFS

if TYPE_CHECKING:
    from collections.abc import Callable

Colour: TypeAlias = tuple[int, ...]
CAPTION_CHARACTERS: Final = 150
CAPTION_LINES: Final = 2
SMOOTHED_PIXELS: Final = 4_200_000
"""Above this the edges stay rough: twice the edge of a 4K picture would be 33 megapixels."""
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


@dataclass(frozen=True, slots=True)
class Sketch:
    """All that it takes to draw a picture; `source` and `mask` are SHA-256 sums of uploaded files."""

    seed: str
    caption: str
    width: int
    height: int
    format: str = "png"
    compression: int = 100
    transparent: bool = False
    source: str | None = None
    mask: str | None = None
    keeps_source: bool = False
    """True for an edit, which shows its source; a variation takes only the source's colours."""
    frames: int = 1
    frame_ms: int = 0
    """Of a GIF alone: its pictures, and how long each is shown."""


def caption_of(prompt: str) -> str:
    """Return the beginning of a prompt that fits under a picture, without line breaks and control characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in prompt[:1000]).split())
    return text if len(text) <= CAPTION_CHARACTERS else text[: CAPTION_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"


def seed_of(*parts: object) -> str:
    """Return a short hash of whatever makes one picture another than its neighbour."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def draw(sketch: Sketch, read: Callable[[str], bytes]) -> bytes:
    """Draw a sketch and encode it; `read` gives an uploaded file by its SHA-256 and may raise LookupError."""
    chance = random.Random(sketch.seed)
    source = _opened(read(sketch.source)) if sketch.source else None
    palette = chance.choice(PALETTES) if source is None or sketch.keeps_source else _palette_of(source)
    if sketch.format == "svg":
        return svg(sketch, palette if source is None else _palette_of(source), chance)
    picture = _composition(sketch, palette, chance)
    if source is not None and sketch.keeps_source:
        mask = _opened(read(sketch.mask)) if sketch.mask else None
        picture = _edited(source, mask, picture.convert("RGB"))
        _write_caption(picture, sketch.caption, palette[0], palette[-1])
    elif sketch.transparent:
        picture = _cut_out(picture)
    return encoded(picture, sketch)


def unfinished(content: bytes, sketch: Sketch, step: int) -> bytes:
    """Return a picture as it looks while it is being made: coarse, and finer with each step from 0."""
    with Image.open(io.BytesIO(content)) as picture:
        whole = picture.convert("RGBA" if sketch.transparent else "RGB")
    coarse = whole.resize((16 << step, 16 << step), Image.Resampling.BOX)
    return encoded(coarse.resize(whole.size, Image.Resampling.NEAREST), sketch)


def _opened(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP")) as picture:
        return picture.convert("RGBA")


def _composition(sketch: Sketch, palette: tuple[Colour, ...], chance: random.Random) -> Image.Image:
    """Draw a motif in tones, smooth it, and colour it through the palette."""
    scale = 2 if sketch.width * sketch.height <= SMOOTHED_PIXELS else 1
    width, height = sketch.width * scale, sketch.height * scale
    canvas = Image.linear_gradient("L").resize((width, height), Image.Resampling.NEAREST)
    canvas = canvas.point([round(70 + 0.55 * tone) for tone in range(256)])
    chance.choice(MOTIFS)(ImageDraw.Draw(canvas), width, height, chance)
    if scale > 1:
        canvas = canvas.reduce(scale)
    if not sketch.keeps_source:
        _write_caption(canvas, sketch.caption, 0, 255)
    canvas.putpalette(_table(palette))
    return canvas


def _table(palette: tuple[Colour, ...]) -> bytes:
    """Spread the stops of a palette evenly over 256 tones."""
    table = bytearray()
    for tone in range(256):
        stop, part = divmod(tone * (len(palette) - 1), 255)
        low, high = palette[stop], palette[min(stop + 1, len(palette) - 1)]
        table += bytes((a * (255 - part) + b * part) // 255 for a, b in zip(low, high, strict=True))
    return bytes(table)


def _palette_of(source: Image.Image) -> tuple[Colour, ...]:
    """Return a source's five main colours from dark to light."""
    small = source.convert("RGB").resize((48, 48)).quantize(5)
    flat = small.getpalette() or []
    colours = [tuple(flat[place : place + 3]) for place in range(0, min(len(flat), 15), 3)]
    colours += colours[-1:] * (2 - len(colours))  # a source of one colour
    return tuple(sorted(colours, key=lambda rgb: 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2]))


def _edited(source: Image.Image, mask: Image.Image | None, drawing: Image.Image) -> Image.Image:
    """Lay the drawing into the transparent part of the mask, else of the source, else softly into the middle."""
    source = ImageOps.fit(source, drawing.size)
    alpha = (ImageOps.fit(mask, drawing.size) if mask else source).getchannel("A")
    if mask is None and alpha.getextrema() == (255, 255):
        alpha = Image.radial_gradient("L").resize(drawing.size).point([min(255, tone * 2) for tone in range(256)])
    return Image.composite(source.convert("RGB"), drawing, alpha)


def _cut_out(picture: Image.Image) -> Image.Image:
    """Leave a disc of the picture on a transparent ground."""
    alpha = (
        Image.radial_gradient("L")
        .resize(picture.size)
        .point([max(0, min(255, 64 * (172 - tone))) for tone in range(256)])
    )
    cut = picture.convert("RGBA")
    cut.putalpha(alpha)
    return cut


def _write_caption(picture: Image.Image, caption: str, ground: Colour | int, ink: Colour | int) -> None:
    """Write the caption at the bottom, light on a dark band, in at most two lines."""
    if not caption:
        return
    size = max(9, min(picture.size) // 42)
    font = ImageFont.load_default(size)
    across = max(8, int(picture.width * 0.94 / (size * 0.52)))
    lines = textwrap.wrap(caption, across, max_lines=CAPTION_LINES, placeholder=" \N{HORIZONTAL ELLIPSIS}")
    step = round(size * 1.35)
    top = picture.height - step * len(lines) - size
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, top, picture.width, picture.height), fill=ground)
    for number, line in enumerate(lines):
        pen.text((picture.width * 0.03, top + size * 0.45 + step * number), line, font=font, fill=ink)

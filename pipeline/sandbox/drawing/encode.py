"""A finished drawing becomes the bytes of a file: PNG, JPEG, WebP, an animated GIF; or a palette becomes an SVG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from pipeline.sandbox.drawing.images import Colour, Sketch

GIF_COLOURS: Final = 64
GIF_STEP_MS: Final = 10
LONGEST_FRAME_MS: Final = 655_350
"""A GIF writes a frame's delay as hundredths of a second in 16 bits; the service rounds and caps it so."""
SHAPES: Final = 14


def encoded(picture: Image.Image, sketch: Sketch) -> bytes:
    """Encode a drawing in the format that its sketch names; an animation is the drawing with a disc that crosses it."""
    file = io.BytesIO()
    match sketch.format:
        case "jpeg":
            picture.convert("RGB").save(file, "JPEG", quality=max(1, min(95, sketch.compression)))
        case "webp":
            quality = sketch.compression
            picture.convert("RGBA" if sketch.transparent else "RGB").save(file, "WEBP", quality=quality, method=0)
        case "gif":
            first, *rest = _frames(picture, sketch.frames)
            delay = min(LONGEST_FRAME_MS, max(GIF_STEP_MS, round(sketch.frame_ms / GIF_STEP_MS) * GIF_STEP_MS))
            first.save(file, "GIF", save_all=True, append_images=rest, duration=delay, loop=0)
        case _:
            picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _frames(picture: Image.Image, number: int) -> Iterator[Image.Image]:
    """Give frames that all differ, since Pillow makes one of two that are equal."""
    flat = picture.convert("RGB").quantize(GIF_COLOURS)
    palette = flat.getpalette() or []
    dark, light = len(palette) // 3, len(palette) // 3 + 1
    flat.putpalette([*palette, 0, 0, 0, 255, 255, 255])
    size = min(flat.size) // 16
    for step in range(number):
        frame = flat.copy()
        x, y = (flat.width - size) * step // number, (flat.height - size) // 2
        ImageDraw.Draw(frame).ellipse((x, y, x + size, y + size), fill=light, outline=dark, width=max(1, size // 8))
        yield frame


def svg(sketch: Sketch, palette: tuple[Colour, ...], chance: random.Random) -> bytes:
    """Write a composition of circles on a gradient, with its caption: well-formed, small, and without a script."""
    width, height = sketch.width, sketch.height
    inks = [f"#{bytes(colour).hex()}" for colour in palette]
    circles = "".join(
        f'<circle cx="{chance.randrange(width)}" cy="{chance.randrange(height)}" '
        f'r="{chance.randrange(width // 40, width // 6)}" fill="{chance.choice(inks[1:])}" opacity="0.8"/>'
        for _ in range(SHAPES)
    )
    letter = max(9, min(width // 42, int(width * 1.7 / max(1, len(sketch.caption)))))
    document = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="{inks[0]}"/>'
        f'<stop offset="1" stop-color="{inks[-1]}"/></linearGradient></defs>'
        f'<rect width="{width}" height="{height}" fill="url(#sky)"/>{circles}'
        f'<text x="{letter}" y="{height - letter}" font-family="sans-serif" font-size="{letter}" fill="{inks[0]}">'
        f"{escape(sketch.caption)}</text></svg>\n"
    )
    return document.encode()

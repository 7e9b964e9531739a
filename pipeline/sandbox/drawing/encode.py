"""Encode a drawing as PNG, JPEG, WebP or animated GIF, or write an SVG from a palette."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final, TypeAlias
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from pipeline.sandbox.drawing.image_spec import ImageSpec

Colour: TypeAlias = tuple[int, ...]
GIF_COLOURS: Final = 64
GIF_STEP_MS: Final = 10
LONGEST_FRAME_MS: Final = 655_350
"""A GIF stores a frame's delay as hundredths of a second in 16 bits; the service rounds and caps it the same way."""
SHAPES: Final = 14


def encode_image(image: Image.Image, spec: ImageSpec) -> bytes:
    """Return the bytes of a drawing in the format of its spec; a GIF shows a disc that crosses the drawing."""
    file = io.BytesIO()
    match spec.format:
        case "jpeg":
            image.convert("RGB").save(file, "JPEG", quality=max(1, min(95, spec.compression)))
        case "webp":
            quality = spec.compression
            image.convert("RGBA" if spec.transparent else "RGB").save(file, "WEBP", quality=quality, method=0)
        case "gif":
            first, *rest = _frames(image, spec.frames)
            delay = min(LONGEST_FRAME_MS, max(GIF_STEP_MS, round(spec.frame_ms / GIF_STEP_MS) * GIF_STEP_MS))
            first.save(file, "GIF", save_all=True, append_images=rest, duration=delay, loop=0)
        case _:
            image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _frames(image: Image.Image, number: int) -> Iterator[Image.Image]:
    """Yield frames that all differ, since Pillow merges two that are equal."""
    flat = image.convert("RGB").quantize(GIF_COLOURS)
    palette = flat.getpalette() or []
    dark, light = len(palette) // 3, len(palette) // 3 + 1
    flat.putpalette([*palette, 0, 0, 0, 255, 255, 255])
    size = min(flat.size) // 16
    for step in range(number):
        frame = flat.copy()
        x, y = (flat.width - size) * step // number, (flat.height - size) // 2
        ImageDraw.Draw(frame).ellipse((x, y, x + size, y + size), fill=light, outline=dark, width=max(1, size // 8))
        yield frame


def encode_svg(spec: ImageSpec, palette: tuple[Colour, ...], rng: random.Random) -> bytes:
    """Return an SVG of circles on a gradient, with its caption: well-formed, small, and without a script."""
    width, height = spec.width, spec.height
    inks = [f"#{bytes(colour).hex()}" for colour in palette]
    circles = "".join(
        f'<circle cx="{rng.randrange(width)}" cy="{rng.randrange(height)}" '
        f'r="{rng.randrange(width // 40, width // 6)}" fill="{rng.choice(inks[1:])}" opacity="0.8"/>'
        for _ in range(SHAPES)
    )
    letter = max(9, min(width // 42, int(width * 1.7 / max(1, len(spec.caption)))))
    document = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="{inks[0]}"/>'
        f'<stop offset="1" stop-color="{inks[-1]}"/></linearGradient></defs>'
        f'<rect width="{width}" height="{height}" fill="url(#sky)"/>{circles}'
        f'<text x="{letter}" y="{height - letter}" font-family="sans-serif" font-size="{letter}" fill="{inks[0]}">'
        f"{escape(spec.caption)}</text></svg>\n"
    )
    return document.encode()

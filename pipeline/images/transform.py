"""Transform a decoded image into an upright RGBA PNG in sRGB: cropped, padded or stretched to a shape.

Every image that is encoded again becomes an RGBA PNG: lossless, accepted by every model, and able to contain a mask.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageCms

from pipeline.errors import BrokenImage

if TYPE_CHECKING:
    from pipeline.images.inspect import ImageInfo
    from pipeline.images.options import Box, Fit

Size = tuple[int, int]

_LONGEST_SIDE = (
    4096  # of a square made without `resize`: four times the size of dall-e-2; bounds the padding of 1x30000
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ICC_COLOUR_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # by mode
_UNSUPPORTED = {
    "F": "has floating-point pixels",
    "I": "has 32-bit pixels",
    "LAB": "has Lab colours",
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image is fitted: `crop` it, scale that to `size`, paste it at `offset` on `canvas`; all in pixels."""

    crop: Box
    size: Size
    offset: Size
    canvas: Size

    def is_identity(self, size: Size) -> bool:
        """Whether an image of this size stays unchanged."""
        return self.crop == (0, 0, *size) and self.size == self.canvas == size

    def apply(self, image: Image.Image, resample: Image.Resampling, empty: int | tuple[int, ...]) -> Image.Image:
        """Fit an upright image; `empty` is the colour of the padding."""
        fitted = image.resize(self.size, resample, box=self.crop)
        if self.size == self.canvas:
            return fitted
        canvas = Image.new(image.mode, self.canvas, empty)
        canvas.paste(fitted, self.offset)
        return canvas


def fit_geometry(size: Size, fit: Fit | None, resize: Size | None, *, square: bool) -> Geometry:
    """Return how an upright image of `size` is fitted to `resize`, else to a square if `square` is set.

    The square's side is the shorter one to crop, the longer one to pad or stretch. `resize` without `fit` stretches.
    """
    target = size
    if resize is not None:
        target = resize
    elif square and fit is not None and size[0] != size[1]:
        side = min(_LONGEST_SIDE, min(size) if fit == "crop" else max(size))
        target = (side, side)
    ratios = (target[0] / size[0], target[1] / size[1])
    if fit == "crop":
        width, height = (min(side, round(edge / max(ratios))) for side, edge in zip(size, target, strict=True))
        width, height = max(1, width), max(1, height)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        return Geometry((left, top, left + width, top + height), target, (0, 0), target)
    if fit == "pad":
        width, height = (max(1, min(edge, round(side * min(ratios)))) for side, edge in zip(size, target, strict=True))
        offset = ((target[0] - width) // 2, (target[1] - height) // 2)
        return Geometry((0, 0, *size), (width, height), offset, target)
    return Geometry((0, 0, *size), target, (0, 0), target)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Rotate or flip an image by its EXIF orientation (1 to 8)."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgba(image: Image.Image, info: ImageInfo) -> Image.Image:
    """Return the upright image as RGBA in sRGB, without metadata. Raises BrokenImage for modes without RGB."""
    converted = to_srgb(image, info)
    return converted if converted.mode == "RGBA" else converted.convert("RGBA")


def to_srgb(image: Image.Image, info: ImageInfo) -> Image.Image:
    """Return the upright image in sRGB, without metadata: as RGBA if it has an alpha channel, else as RGB.

    It is a copy. Raises BrokenImage for modes without RGB.
    """
    if info.mode in _UNSUPPORTED:
        raise BrokenImage(f"{_UNSUPPORTED[info.mode]} (mode {info.mode}); save it as an 8-bit PNG")
    mode = "RGBA" if info.has_alpha else "RGB"
    if info.mode.startswith("I;16"):
        return turn_upright(_eight_bit(image).convert(mode), info.orientation)
    if image.mode in {"P", "PA"}:
        image = image.convert(mode)
    converted = _to_srgb(image)
    if info.has_alpha:
        converted = converted.convert("RGBA")
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    upright = turn_upright(converted, info.orientation)
    upright.info.clear()  # else its profile or transparent colour is written into the PNG
    return upright


def _eight_bit(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8-bit grey, without a transparent colour; Pillow's own conversion would clip at 255."""
    wide = image.convert("I")
    wide.info.clear()
    return wide.point(lambda value: value * (255 / 65535)).convert("L")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert to sRGB by the embedded profile; one that is damaged or for another colour space is ignored."""
    mode = {"LA": "L", "L": "L", "1": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")
    base = image if image.mode == mode else image.convert(mode)
    icc = image.info.get("icc_profile")
    if not icc:
        return base.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space != _ICC_COLOUR_SPACES[base.mode]:
            return base.convert("RGB")
        converted = ImageCms.profileToProfile(base, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return base.convert("RGB")
    return base.convert("RGB") if converted is None else converted


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

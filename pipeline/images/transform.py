"""A decoded picture → an RGBA PNG of the shape that is wanted: turned upright, in sRGB, cropped, padded or stretched.

Every picture that is encoded anew becomes RGBA PNG: lossless, taken by every model, and able to carry a mask.
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

_LONGEST_SIDE = 4096  # of a square made without `resize`: four times what dall-e-2 draws, and 1x30000 padded is no bomb
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOURS = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # mode → what an ICC profile calls it
_REFUSED = {
    "F": "has floating-point pixels",
    "I": "has 32-bit pixels",
    "LAB": "has Lab colours",
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a picture's pixels go: `crop` of it, scaled to `size`, laid at `offset` upon `canvas`; all in pixels."""

    crop: Box
    size: Size
    offset: Size
    canvas: Size

    def keeps(self, size: Size) -> bool:
        """Whether a picture of this size comes out as it went in."""
        return self.crop == (0, 0, *size) and self.size == self.canvas == size

    def apply(self, image: Image.Image, resample: Image.Resampling, empty: int | tuple[int, ...]) -> Image.Image:
        """Fit an upright image; `empty` is the colour of the bars that padding adds."""
        fitted = image.resize(self.size, resample, box=self.crop)
        if self.size == self.canvas:
            return fitted
        canvas = Image.new(image.mode, self.canvas, empty)
        canvas.paste(fitted, self.offset)
        return canvas


def fit_geometry(size: Size, fit: Fit | None, resize: Size | None, *, square: bool) -> Geometry:
    """Plan how an upright picture of `size` gets its shape: that of `resize`, else a square if that is demanded.

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
    """Turn an image as its EXIF orientation (1 to 8) says."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def to_rgba(image: Image.Image, picture: ImageInfo) -> Image.Image:
    """Give the upright picture as RGBA in sRGB, without metadata. Raises BrokenPicture for pixels that have no RGB."""
    if picture.mode in _REFUSED:
        raise BrokenImage(f"{_REFUSED[picture.mode]} (mode {picture.mode}); save it as an 8-bit PNG")
    if picture.mode.startswith("I;16"):
        return turn_upright(_eight_bit(image).convert("RGBA"), picture.orientation)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")
    alpha = image.convert("RGBA").getchannel("A") if picture.has_alpha else None
    rgba = _to_srgb(image).convert("RGBA")
    if alpha is not None:
        rgba.putalpha(alpha)
    rgba = turn_upright(rgba, picture.orientation)
    rgba.info.clear()  # a profile or a transparent colour there would be written into the PNG
    return rgba


def _eight_bit(image: Image.Image) -> Image.Image:
    """Give 16-bit grey as 8-bit grey, without a transparent colour; Pillow's own conversion would clip at 255."""
    wide = image.convert("I")
    wide.info.clear()
    return wide.point(lambda value: value * (255 / 65535)).convert("L")


def _to_srgb(image: Image.Image) -> Image.Image:
    """Give RGB in sRGB by the embedded profile; one that is damaged or of another kind of colour is ignored."""
    base = image.convert({"LA": "L", "L": "L", "1": "L", "CMYK": "CMYK"}.get(image.mode, "RGB"))
    icc = image.info.get("icc_profile")
    if not icc:
        return base.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space != _COLOURS[base.mode]:
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

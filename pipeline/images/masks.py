"""Load, check, fit and encode masks, and draw a mask over its image for a preview.

Internally a mask is a grey image: 0 for pixels that are edited, 255 for pixels that are kept. It is sent as an RGBA PNG
that is transparent where the image is edited (OpenAI image guide); its colour is white there and black elsewhere, for
compatible servers that read the colour. Padding around an image is kept: only what was marked is edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter

from pipeline.errors import BrokenImage, ImageError, Problem
from pipeline.images.inspect import open_image
from pipeline.images.transform import Geometry, encode_png, to_rgba, turn_upright

if TYPE_CHECKING:
    from pipeline.images.inspect import ImageInfo
    from pipeline.images.options import Box, ImageOptions, MaskEdit

EDITED, KEPT = 0, 255
_HOW_TO_MARK = (
    "make the part to edit transparent, or, if it is black and white, write `mask: {image: …, edit: white}` or "
    "`edit: black`"
)
_TINT = (255, 0, 144)
_CHECKS = ((205, 205, 205), (245, 245, 245))


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask before it is fitted: upright, in the size of its upright image."""

    name: str  # as written in the job; "box" for a box
    content: bytes | None  # of its file
    is_sendable: bool  # the file can be sent as it is if the image keeps its shape
    pixels: Image.Image


def load_mask(options: ImageOptions, info: ImageInfo, of: str, max_bytes: int | None) -> Mask | None:
    """Return the mask that the options ask for, for the image called `of`. Raises ImageError, which names the mask."""
    name = options.mask.name if options.mask else "mask.box"
    try:
        if options.mask_box is not None:
            return Mask("box", None, is_sendable=False, pixels=box_mask(options.mask_box, info.upright))
        if options.mask is None:
            return None
        content = options.mask.read()
        mask_info, pixels = read_mask(content, options.mask_edit, info.upright, of)
    except BrokenImage as reason:
        raise ImageError([Problem(name, str(reason))]) from None
    is_small = max_bytes is None or len(content) < max_bytes
    is_rgba_png = mask_info.format == "png" and mask_info.mode in {"RGBA", "LA"} and mask_info.orientation == 1
    is_sendable = options.mask_edit == "alpha" and is_rgba_png and is_small and not mask_info.remarks
    return Mask(name, content, is_sendable, pixels)


def read_mask(content: bytes, edit: MaskEdit, size: tuple[int, int], of: str) -> tuple[ImageInfo, Image.Image]:
    """Decode a mask file for the image called `of`, whose upright size is `size`; return its info and the upright mask.

    Raises BrokenImage, which says what to do, if it has another size, no alpha, or marks nothing or everything.
    """
    info, image = open_image(content)
    if info.frames > 1:
        raise BrokenImage(f"is animated ({info.frames} frames); a mask has one")
    if info.upright != size:
        here, there = ("x".join(map(str, edges)) for edges in (info.upright, size))
        turned = " when it is upright" if info.upright == size[::-1] else ""
        raise BrokenImage(f"is {here}, but {of} is {there}{turned}; draw the mask in the size of the image")
    if edit == "alpha" and not info.has_alpha:
        raise BrokenImage(f"has no alpha channel, so it marks nothing; {_HOW_TO_MARK}")
    if edit == "alpha" and image.convert("RGBA").getchannel("A").getextrema() == (255, 255):
        raise BrokenImage(f"marks nothing: its alpha channel is opaque everywhere; {_HOW_TO_MARK}")
    mask = _decode(image, info, edit)
    check_mask(mask, "transparent (alpha 0)" if edit == "alpha" else edit)
    return info, mask


def box_mask(box: Box, size: tuple[int, int]) -> Image.Image:
    """Return the mask that edits a box (left, top, right, bottom) of an image. Raises BrokenImage."""
    if box[2] > size[0] or box[3] > size[1]:
        raise BrokenImage(f"{list(box)} reaches beyond the image, which is {size[0]}x{size[1]} upright")
    mask = Image.new("L", size, KEPT)
    mask.paste(EDITED, box)
    check_mask(mask, "inside the box")
    return mask


def check_mask(mask: Image.Image, marked: str) -> None:
    """Raise BrokenImage if a mask edits nothing or everything; `marked` describes an edited pixel."""
    darkest, lightest = mask.getextrema()
    if darkest != EDITED:
        raise BrokenImage(f"marks nothing: no pixel is {marked}")
    if lightest == EDITED:
        raise BrokenImage(f"marks everything: every pixel is {marked}; leave the mask out to change the whole image")


def fit_mask(mask: Image.Image, geometry: Geometry) -> Image.Image:
    """Apply the image's geometry to the mask; a pixel is edited if most of the area that it covers is."""
    return geometry.apply(mask, Image.Resampling.BOX, KEPT).point(lambda value: KEPT if value >= 128 else EDITED)


def encode_mask(mask: Image.Image) -> bytes:
    """Encode a mask as the RGBA PNG that is sent."""
    colour = ImageChops.invert(mask)
    return encode_png(Image.merge("RGBA", (colour, colour, colour, mask)))


def mask_from_alpha(image: Image.Image) -> Image.Image:
    """Return the transparency of an image as a mask: wholly transparent pixels are edited."""
    return image.convert("RGBA").getchannel("A").point(lambda value: KEPT if value else EDITED)


def _decode(image: Image.Image, info: ImageInfo, edit: MaskEdit) -> Image.Image:
    if edit == "alpha":
        return turn_upright(mask_from_alpha(image), info.orientation)
    white, black = (EDITED, KEPT) if edit == "white" else (KEPT, EDITED)
    grey = to_rgba(image, info).convert("L")
    return grey.point(lambda value: white if value >= 128 else black)


def draw_mask_overlay(content: bytes, mask_content: bytes | None, *, is_edit: bool = True) -> bytes:
    """Return a PNG of a prepared image with the edited area tinted and outlined.

    Without a mask, the edited area is that of the image's own transparency, and none without `is_edit`. Raises
    BrokenImage.
    """
    info, image = open_image(content)
    rgba = to_rgba(image, info)
    if not is_edit:
        return encode_png(Image.alpha_composite(_checkerboard(rgba.size), rgba).convert("RGB"))
    mask = mask_from_alpha(rgba if mask_content is None else open_image(mask_content)[1])
    drawn = Image.alpha_composite(_checkerboard(rgba.size), rgba).convert("RGB")
    region = ImageChops.invert(mask)
    tinted = Image.blend(drawn, Image.new("RGB", drawn.size, _TINT), 0.45)
    drawn.paste(tinted, mask=region)
    width = max(3, min(drawn.size) // 150 | 1)  # MinFilter needs an odd size
    outline = ImageChops.subtract(region, region.filter(ImageFilter.MinFilter(width)))
    drawn.paste(_TINT, mask=outline)
    return encode_png(drawn)


def _checkerboard(size: tuple[int, int]) -> Image.Image:
    """Return a checkerboard of 8-pixel squares, as a background for transparent pixels."""
    tile = Image.new("RGBA", (16, 16), (*_CHECKS[0], 255))
    tile.paste((*_CHECKS[1], 255), (8, 0, 16, 8))
    tile.paste((*_CHECKS[1], 255), (0, 8, 8, 16))
    board = Image.new("RGBA", size)
    for left in range(0, size[0], 16):
        board.paste(tile, (left, 0))
    row = board.crop((0, 0, size[0], min(16, size[1])))
    for top in range(16, size[1], 16):
        board.paste(row, (0, top))
    return board

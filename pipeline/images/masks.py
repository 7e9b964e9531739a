"""What is to be edited → a mask that agrees with the picture as the service sees it, and a drawing of it for people.

Inside, a mask is a grey image: 0 where the picture is edited, 255 where it is kept. On the wire it is an RGBA PNG
that is transparent where the picture is edited (OpenAI image guide); its colour says the same in white on black, for
compatible servers that read the colour. Padding around a picture is kept: only what was marked is edited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter

from pipeline.errors import BrokenImage, ImageError, Problem
from pipeline.images.inspect import open_whole
from pipeline.images.transform import Geometry, encode_png, to_rgba, turn_upright

if TYPE_CHECKING:
    from pipeline.images.inspect import ImageInfo
    from pipeline.images.options import Box, ImageOptions, MaskEdit

EDITED, KEPT = 0, 255
_TINT = (255, 0, 144)
_CHECKS = ((205, 205, 205), (245, 245, 245))


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask before it is fitted: upright, in the size of its upright picture."""

    name: str  # as written in the job; "box" for a box
    content: bytes | None  # of its file
    is_ready: bool  # the file can be sent as it is where the picture keeps its shape
    marked: Image.Image


def find_mask(options: ImageOptions, picture: ImageInfo, of: str, max_bytes: int | None) -> Mask | None:
    """Give the recipe's mask for the picture that is called `of`. Raises PictureError that names the mask."""
    name = options.mask.name if options.mask else "mask.box"
    try:
        if options.mask_box is not None:
            return Mask("box", None, is_ready=False, marked=box_mask(options.mask_box, picture.upright))
        if options.mask is None:
            return None
        content = options.mask.read()
        of_mask, marked = read_mask(content, options.mask_edit, picture.upright, of)
    except BrokenImage as wrong:
        raise ImageError([Problem(name, str(wrong))]) from None
    is_small = max_bytes is None or len(content) < max_bytes
    is_ready = options.mask_edit == "alpha" and of_mask.format == "png" and of_mask.mode in {"RGBA", "LA"}
    return Mask(name, content, is_ready and is_small and of_mask.orientation == 1, marked)


def read_mask(content: bytes, edit: MaskEdit, size: tuple[int, int], of: str) -> tuple[ImageInfo, Image.Image]:
    """Read a mask's picture: (what it is, the upright mask), to fit the picture `of` with upright `size`.

    Raises BrokenPicture with what to do where it has another size, no alpha, or marks nothing or everything.
    """
    picture, image = open_whole(content)
    if picture.frames > 1:
        raise BrokenImage(f"is animated ({picture.frames} frames); a mask is one picture")
    if picture.upright != size:
        here, there = ("x".join(map(str, edges)) for edges in (picture.upright, size))
        raise BrokenImage(f"is {here}, but {of} is {there}; draw the mask in the size of the picture")
    if edit == "alpha" and not picture.has_alpha:
        raise BrokenImage(
            "has no alpha channel, so it marks nothing; make the part to edit transparent, or, if it is black and "
            "white, write `mask: {image: …, edit: white}` or `edit: black`"
        )
    mask = _marked(image, picture, edit)
    refuse_useless(mask, "transparent (alpha 0)" if edit == "alpha" else edit)
    return picture, mask


def box_mask(box: Box, size: tuple[int, int]) -> Image.Image:
    """Give the mask that edits a box (left, top, right, bottom) of a picture. Raises BrokenPicture."""
    if box[2] > size[0] or box[3] > size[1]:
        raise BrokenImage(f"{list(box)} reaches beyond the picture, which is {size[0]}x{size[1]} upright")
    mask = Image.new("L", size, KEPT)
    mask.paste(EDITED, box)
    refuse_useless(mask, "inside the box")
    return mask


def refuse_useless(mask: Image.Image, marked: str) -> None:
    """Refuse a mask that edits nothing or everything. Raises BrokenPicture."""
    darkest, lightest = mask.getextrema()
    if darkest != EDITED:
        raise BrokenImage(f"marks nothing: no pixel is {marked}")
    if lightest == EDITED:
        raise BrokenImage(f"marks everything: every pixel is {marked}; leave the mask out to change the whole picture")


def fit_mask(mask: Image.Image, geometry: Geometry) -> Image.Image:
    """Take the mask through the picture's geometry; a pixel is edited where most of what it covers is."""
    return geometry.apply(mask, Image.Resampling.BOX, KEPT).point(lambda value: KEPT if value >= 128 else EDITED)


def encode_mask(mask: Image.Image) -> bytes:
    """Encode a mask for the wire."""
    colour = ImageChops.invert(mask)
    return encode_png(Image.merge("RGBA", (colour, colour, colour, mask)))


def own_mask(image: Image.Image) -> Image.Image:
    """Give a picture's own transparency as a mask: what is wholly transparent is edited."""
    return image.convert("RGBA").getchannel("A").point(lambda value: KEPT if value else EDITED)


def _marked(image: Image.Image, picture: ImageInfo, edit: MaskEdit) -> Image.Image:
    if edit == "alpha":
        return turn_upright(own_mask(image), picture.orientation)
    white, black = (EDITED, KEPT) if edit == "white" else (KEPT, EDITED)
    grey = to_rgba(image, picture).convert("L")
    return grey.point(lambda value: white if value >= 128 else black)


def draw_mask(content: bytes, mask_content: bytes | None) -> bytes:
    """Draw what is edited over a prepared picture, tinted and outlined, as PNG; without a mask its own transparency.

    Raises BrokenPicture.
    """
    picture, image = open_whole(content)
    rgba = to_rgba(image, picture)
    mask = own_mask(rgba if mask_content is None else open_whole(mask_content)[1])
    drawn = Image.alpha_composite(_checkerboard(rgba.size), rgba).convert("RGB")
    region = ImageChops.invert(mask)
    tinted = Image.blend(drawn, Image.new("RGB", drawn.size, _TINT), 0.45)
    drawn.paste(tinted, mask=region)
    width = max(3, min(drawn.size) // 150 | 1)  # odd, as the filter wants it
    outline = ImageChops.subtract(region, region.filter(ImageFilter.MinFilter(width)))
    drawn.paste(_TINT, mask=outline)
    return encode_png(drawn)


def _checkerboard(size: tuple[int, int]) -> Image.Image:
    """Give the usual ground for transparent pixels, in squares of 8 pixels."""
    tile = Image.new("RGBA", (16, 16), (*_CHECKS[0], 255))
    tile.paste((*_CHECKS[1], 255), (8, 0, 16, 8))
    tile.paste((*_CHECKS[1], 255), (0, 8, 8, 16))
    snapshot = Image.new("RGBA", size)
    for left in range(0, size[0], 16):
        snapshot.paste(tile, (left, 0))
    row = snapshot.crop((0, 0, size[0], min(16, size[1])))
    for top in range(16, size[1], 16):
        snapshot.paste(row, (0, top))
    return snapshot

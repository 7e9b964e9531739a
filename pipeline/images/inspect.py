"""Bytes → a picture that is whole, its kind and size; what is cut, bombed or no picture at all is refused.

Used for inputs and for results, from worker threads. Pillow's readers are called directly: `Image.open` would warn
of bombs through Python's process-wide warning filters and try plugins that start other programs; here the size is
compared before a pixel is decoded, and only the kinds in `_READERS` are read.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from pipeline.errors import BrokenImage
from pipeline.images import containers
from pipeline.images.svg import svg_size

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 89_478_485
"""Pixels of one frame, at most: Pillow's own bound, above which it warns of a bomb (a quarter of a GiB as RGB)."""

MAX_FRAMES = 100
"""Frames that are decoded, at most; what follows is only known to be closed."""

_ALL_FRAMES_PIXELS = 4 * MAX_PIXELS  # over all frames: some seconds of work
_ORIENTATION = 0x0112  # EXIF tag: 1 upright … 8
_TRANSPOSED = frozenset({5, 6, 7, 8})

_READERS: dict[str, type[ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,  # reads an MPO's first picture as the JPEG that it is
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
}
try:
    from PIL import AvifImagePlugin  # Pillow 11.3
except ImportError:
    pass
else:
    _READERS["avif"] = AvifImagePlugin.AvifImageFile

# Pillow remarks upon harmless oddities of metadata (TIFF tags, APNG control): not for the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.(Tiff|Png)ImagePlugin")


_MISTAKEN = {
    b"<!doctype html": "is an HTML page, not a picture",
    b"<html": "is an HTML page, not a picture",
    b"<svg": "is SVG, not a picture made of pixels",
    b"<": "is XML or HTML, not a picture",
    b"{": "is JSON, not a picture",
    b"[": "is JSON, not a picture",
    b"%pdf": "is a PDF, not a picture",
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known of a whole picture. `width` and `height` are pixels as stored, before EXIF orientation."""

    format: str  # lower case, by the bytes: png, jpeg, webp, gif, bmp, tiff, avif, svg
    width: int
    height: int
    mode: str  # Pillow's word: 1, L, LA, P, PA, RGB, RGBA, CMYK, YCbCr, LAB, I;16, I, F; "svg" for SVG
    frames: int  # pictures of an animation, pages of a TIFF
    has_alpha: bool  # an alpha channel, or a colour or palette entry that is transparent
    orientation: int  # EXIF, 1 to 8; 1 where there is none
    has_icc: bool

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after EXIF orientation."""
        return (self.height, self.width) if self.orientation in _TRANSPOSED else (self.width, self.height)


def inspect(content: bytes | memoryview) -> ImageInfo:
    """Decode the whole picture, every frame up to `MAX_FRAMES`. Raises BrokenPicture with what is wrong."""
    picture, image = open_whole(content)
    budget = _ALL_FRAMES_PIXELS - image.width * image.height
    try:
        for frame in range(1, min(picture.frames, MAX_FRAMES)):
            image.seek(frame)
            _refuse_bomb(image)
            budget -= image.width * image.height
            if budget < 0:
                break
            image.load()
    except BrokenImage:
        raise
    except Exception as reason:
        raise BrokenImage(f"is a {picture.format.upper()} that cannot be decoded: {_words(reason)}") from reason
    return picture


def open_whole(content: bytes | memoryview) -> tuple[ImageInfo, ImageFile]:
    """Decode the first frame: (what it is, Pillow's image with its pixels in memory). Raises BrokenPicture."""
    kind = containers.kind(content)
    if kind is None or kind not in _READERS:
        raise BrokenImage(_not_a_picture(content))
    if fault := containers.fault(kind, content):
        raise BrokenImage(f"is a {kind.upper()} that {fault}")
    try:
        image = _READERS[kind](io.BytesIO(content))
        _refuse_bomb(image)
        frames = getattr(image, "n_frames", 1)
        has_alpha = image.has_transparency_data
        image.load()
        return _describe(kind, image, frames, has_alpha=has_alpha), image
    except BrokenImage:
        raise
    except Exception as reason:  # a hostile file can make Pillow raise anything, and it is the file's fault
        raise BrokenImage(f"is a {kind.upper()} that cannot be decoded: {_words(reason)}") from reason


def inspect_svg(content: bytes) -> ImageInfo:
    """Check SVG as XML without scripts, entities or links to the outside. Raises BrokenPicture."""
    if not content.strip():
        raise BrokenImage("is empty (0 bytes)")
    width, height = svg_size(content)
    return ImageInfo("svg", width, height, "svg", 1, has_alpha=True, orientation=1, has_icc=False)


def extension(format: str) -> str:  # noqa: A002 - the word of `ImageInfo` and of the API
    """Give the file name's end for a format, without the dot: "jpeg" → "jpg"."""
    return {"jpeg": "jpg"}.get(format, format)


def _describe(kind: str, image: ImageFile, frames: int, *, has_alpha: bool) -> ImageInfo:
    return ImageInfo(
        format=kind,
        width=image.width,
        height=image.height,
        mode=image.mode,
        frames=frames,
        has_alpha=has_alpha,
        orientation=_orientation(image),
        has_icc=bool(image.info.get("icc_profile")),
    )


def _orientation(image: ImageFile) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF is a remark that cannot be read, not a damaged picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _refuse_bomb(image: ImageFile) -> None:
    if image.width < 1 or image.height < 1:
        raise BrokenImage(f"claims a size of {image.width}x{image.height}")
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImage(f"claims {image.width}x{image.height} pixels; more than {MAX_PIXELS:,} are not decoded")


def _not_a_picture(content: bytes | memoryview) -> str:
    """Say what these bytes seem to be instead: a server's error page is the usual case."""
    if not len(content):
        return "is empty (0 bytes)"
    head = bytes(content[:512]).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, what in _MISTAKEN.items():
        if head.startswith(mark):
            return what
    kinds = ", ".join(_READERS)
    return f"is not a picture of a kind that is taken ({kinds}); it begins with {bytes(content[:8]).hex(' ')}"


def _words(reason: Exception) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__

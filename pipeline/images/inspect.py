"""Decode bytes to verify that they are a complete image, and return its format and size.

Truncated files, decompression bombs and other content are rejected. Used for inputs and results, from worker threads.
Pillow's readers are called directly: `Image.open` would warn of bombs through Python's process-wide warning filters
and try plugins that start other programs; here the size is checked before a pixel is decoded, and only the formats in
`_READERS` are read.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from pipeline.errors import BrokenImage
from pipeline.images.containers import detect_format, structure_error
from pipeline.images.svg import svg_size

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 89_478_485
"""Maximum pixels of one frame: Pillow's own limit, above which it warns of a bomb (a quarter of a GiB as RGB)."""

MAX_FRAMES = 100
"""Maximum frames that are decoded; of the rest only the structure of the file is checked."""

_ALL_FRAMES_PIXELS = 4 * MAX_PIXELS  # of all frames: takes some seconds
_ORIENTATION = 0x0112  # EXIF tag: 1 upright … 8
_TRANSPOSED = frozenset({5, 6, 7, 8})

_READERS: dict[str, type[ImageFile]] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,  # reads the first image of an MPO, which is a JPEG
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

# Pillow warns of harmless deviations in metadata (TIFF tags, APNG control), which should not reach the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.(Tiff|Png)ImagePlugin")


_OTHER_CONTENT = {
    b"<!doctype html": "is an HTML page, not an image",
    b"<html": "is an HTML page, not an image",
    b"<svg": "is SVG, not a bitmap image",
    b"<": "is XML or HTML, not an image",
    b"{": "is JSON, not an image",
    b"[": "is JSON, not an image",
    b"%pdf": "is a PDF, not an image",
}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Properties of a complete image. `width` and `height` are pixels as stored, before EXIF orientation."""

    format: str  # lower case, detected from the bytes: png, jpeg, webp, gif, bmp, tiff, avif, svg
    width: int
    height: int
    mode: str  # Pillow's mode: 1, L, LA, P, PA, RGB, RGBA, CMYK, YCbCr, LAB, I;16, I, F; "svg" for SVG
    frames: int  # frames of an animation, pages of a TIFF
    has_alpha: bool  # an alpha channel, or a transparent colour or palette entry
    orientation: int  # EXIF, 1 to 8; 1 if there is none

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after EXIF orientation."""
        return (self.height, self.width) if self.orientation in _TRANSPOSED else (self.width, self.height)


def inspect(content: bytes | memoryview) -> ImageInfo:
    """Decode the whole image, every frame up to `MAX_FRAMES`. Raises BrokenImage with what is wrong."""
    info, image = open_image(content)
    budget = _ALL_FRAMES_PIXELS - image.width * image.height
    try:
        for frame in range(1, min(info.frames, MAX_FRAMES)):
            image.seek(frame)
            _check_size(image)
            budget -= image.width * image.height
            if budget < 0:
                break
            image.load()
    except BrokenImage:
        raise
    except Exception as reason:
        raise BrokenImage(f"is a {info.format.upper()} that cannot be decoded: {_reason(reason)}") from reason
    return info


def open_image(content: bytes | memoryview) -> tuple[ImageInfo, ImageFile]:
    """Decode the first frame; return the info and Pillow's image with its pixels in memory. Raises BrokenImage."""
    name = detect_format(content)
    if name is None or name not in _READERS:
        raise BrokenImage(_describe_other_content(content))
    if error := structure_error(name, content):
        raise BrokenImage(f"is a {name.upper()} that {error}")
    try:
        image = _READERS[name](io.BytesIO(content))
        _check_size(image)
        frames = getattr(image, "n_frames", 1)
        has_alpha = image.has_transparency_data
        image.load()
        return _describe(name, image, frames, has_alpha=has_alpha), image
    except BrokenImage:
        raise
    except Exception as reason:  # a hostile file can make Pillow raise any exception
        raise BrokenImage(f"is a {name.upper()} that cannot be decoded: {_reason(reason)}") from reason


def inspect_svg(content: bytes) -> ImageInfo:
    """Check that SVG is XML without scripts, entities or external references. Raises BrokenImage."""
    if not content.strip():
        raise BrokenImage("is empty (0 bytes)")
    width, height = svg_size(content)
    return ImageInfo("svg", width, height, "svg", 1, has_alpha=True, orientation=1)


def extension(format: str) -> str:  # noqa: A002 - the name in `ImageInfo` and in the API
    """Return the file name extension for a format, without the dot: "jpeg" → "jpg"."""
    return {"jpeg": "jpg"}.get(format, format)


def _describe(name: str, image: ImageFile, frames: int, *, has_alpha: bool) -> ImageInfo:
    return ImageInfo(
        format=name,
        width=image.width,
        height=image.height,
        mode=image.mode,
        frames=frames,
        has_alpha=has_alpha,
        orientation=_orientation(image),
    )


def _orientation(image: ImageFile) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF does not make the image unusable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_size(image: ImageFile) -> None:
    if image.width < 1 or image.height < 1:
        raise BrokenImage(f"claims a size of {image.width}x{image.height}")
    if image.width * image.height > MAX_PIXELS:
        raise BrokenImage(f"claims {image.width}x{image.height} pixels; more than {MAX_PIXELS:,} are not decoded")


def _describe_other_content(content: bytes | memoryview) -> str:
    """Describe bytes that are not an image; most often they are a server's error page."""
    if not len(content):
        return "is empty (0 bytes)"
    head = bytes(content[:512]).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, description in _OTHER_CONTENT.items():
        if head.startswith(mark):
            return description
    formats = ", ".join(_READERS)
    return f"is not an image of a supported format ({formats}); it begins with {bytes(content[:8]).hex(' ')}"


def _reason(reason: Exception) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__

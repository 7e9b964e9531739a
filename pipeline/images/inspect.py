"""Decode bytes to verify that they are a complete image, and return its format and size.

Truncated files, decompression bombs and other content are rejected. What every viewer shows is accepted with remarks:
wrong checksums of metadata, a missing end mark after the last pixel, a wrong outer size. Used for inputs and results,
from worker threads.
Pillow's readers are called directly: `Image.open` would warn of bombs through Python's process-wide warning filters
and try plugins that start other programs; here the size is checked before a pixel is decoded, and only the formats in
`_READERS` are read.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from pipeline.errors import BrokenImage
from pipeline.images.containers import check_container, detect_format
from pipeline.images.decoder import decode_apart
from pipeline.images.limits import MAX_FRAMES, MAX_PIXELS, SMALL, MemoryBudget, memory_budget
from pipeline.images.png import without_metadata
from pipeline.images.svg import svg_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.ImageFile import ImageFile

    from pipeline.images.container_check import Container, Content, Size

_BYTES_PER_PIXEL = {"jpeg": 10, "webp": 16, "avif": 16}  # measured: the image, and what its decoder keeps beside it
_BYTES_ANIMATED = 16
_ALL_FRAMES = 4  # times the pixels of one frame: takes some seconds
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

# Pillow warns of harmless deviations in metadata (TIFF tags, APNG control), and logs why it refuses an image, which is
# in its error, too: neither should reach the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.(Tiff|Png)ImagePlugin")
logging.getLogger("PIL").addHandler(logging.NullHandler())


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
    remarks: tuple[str, ...] = ()  # what deviates and harms no pixel: "its end mark is missing"

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> ImageInfo:
        """Return the info that `dataclasses.asdict` and JSON made these fields of."""
        return cls(**{**fields, "remarks": tuple(fields["remarks"])})

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after EXIF orientation."""
        return (self.height, self.width) if self.orientation in _TRANSPOSED else (self.width, self.height)


def inspect(
    content: bytes | memoryview, max_pixels: int = MAX_PIXELS, budget: MemoryBudget = memory_budget
) -> ImageInfo:
    """Decode a whole result, every frame up to `MAX_FRAMES`. Raises BrokenImage with what is wrong.

    `max_pixels` is the limit of one frame, the option `download.max_pixels`.
    """
    limit = PixelLimit.of_results(max_pixels)
    name, container = _checked(content, limit)
    with budget.hold(_memory(name, container)):
        if container.is_heavy:
            return ImageInfo.of_json(decode_apart(name, content, max_pixels, all_frames=True)[0])
        return _decode_frames(name, container, limit)[0]


def inspect_here(content: bytes, limit: PixelLimit, *, all_frames: bool) -> tuple[ImageInfo, ImageFile]:
    """Do what `inspect` does, or decode the first frame only, in this process and thread, without the budget."""
    name, container = _checked(content, limit)
    return (_decode_frames if all_frames else _decode_first)(name, container, limit)[:2]


def _decode_frames(name: str, container: Container, limit: PixelLimit) -> tuple[ImageInfo, ImageFile, Content]:
    info, image, decoded = _decode_first(name, container, limit)
    budget = _ALL_FRAMES * limit.pixels - image.width * image.height
    try:
        for frame in range(1, min(info.frames, MAX_FRAMES)):
            image.seek(frame)
            limit.check(image.size)
            budget -= image.width * image.height
            if budget < 0:
                break
            image.load()
    except BrokenImage:
        raise
    except Exception as reason:
        raise BrokenImage(f"is a {info.format.upper()} that cannot be decoded: {_reason(reason)}") from reason
    return info, image, decoded


@dataclass(frozen=True, slots=True)
class PixelLimit:
    """The maximum pixels of one frame; `hint` says how to raise it, empty if nothing does."""

    pixels: int = MAX_PIXELS
    hint: str = ""

    @classmethod
    def of_results(cls, max_pixels: int) -> PixelLimit:
        """Return the limit for results, the option `download.max_pixels`."""
        return cls(max_pixels, "set `download.max_pixels` higher to accept it")

    def check(self, size: Size) -> None:
        """Raise BrokenImage if an image of this size has no pixels or too many."""
        width, height = size
        if width < 1 or height < 1:
            raise BrokenImage(f"claims a size of {width}x{height}")
        if width * height > self.pixels:
            what = f"claims {width}x{height} pixels; more than {self.pixels:,} are not decoded"
            raise BrokenImage(f"{what}: {self.hint}" if self.hint else what)


_DEFAULT_LIMIT = PixelLimit()
_NO_LIMIT = PixelLimit(1 << 62)


def open_image(content: bytes | memoryview) -> tuple[ImageInfo, ImageFile]:
    """Decode the first frame; return the info and Pillow's image with its pixels in memory. Raises BrokenImage."""
    with opened_image(content) as (info, image, _):
        return info, image


def mended(content: bytes) -> bytes:
    """Return an image as a strict decoder takes it: without what its remarks name. Raises BrokenImage."""
    with opened_image(content) as (_, _, decoded):
        return bytes(decoded)


@contextlib.contextmanager
def opened_image(content: bytes | memoryview) -> Iterator[tuple[ImageInfo, ImageFile, Content]]:
    """Decode the first frame: the info, Pillow's image, and the content that was decoded.

    The memory is held until the block ends. What a process has to decode is decoded there, not only tried. Raises
    BrokenImage.
    """
    name, container = _checked(content, _DEFAULT_LIMIT)
    with memory_budget.hold(_memory(name, container)):
        if container.is_opaque:
            fields, pixels = decode_apart(name, content, _DEFAULT_LIMIT.pixels, with_pixels=True)
            yield ImageInfo.of_json(fields), _decode("tiff", pixels, _DEFAULT_LIMIT)[1], container.content
            return
        if container.is_heavy:
            decode_apart(name, content, _DEFAULT_LIMIT.pixels)
        yield _decode_first(name, container, _DEFAULT_LIMIT)


def _checked(content: bytes | memoryview, limit: PixelLimit) -> tuple[str, Container]:
    """Return the format and the container, whose size is checked before a decoder sees it. Raises BrokenImage."""
    name = detect_format(content)
    if name is None or name not in _READERS:
        from pipeline.images.other_content import describe_other_content

        raise BrokenImage(describe_other_content(content, _READERS))
    container = check_container(name, content)
    if container.pixels > limit.pixels:
        limit.check(container.size)
    return name, container


def _memory(name: str, container: Container) -> int:
    """Return about how many bytes the decoding takes at most; what is heavy counts as large, since it takes long."""
    images = 1 + len(container.same[:3])  # of those that are compared, three are in memory at a time
    pixel = _BYTES_ANIMATED if container.frames > 1 else _BYTES_PER_PIXEL.get(name, 8)
    return max(container.pixels * images * pixel, SMALL + 1 if container.is_heavy else 0)


def _decode_first(name: str, container: Container, limit: PixelLimit) -> tuple[ImageInfo, ImageFile, Content]:
    """Return the info, Pillow's image with the pixels of the first frame, and the content that was decoded."""
    decoded = container.content
    try:
        info, image = _decode(name, decoded, limit)
    except BrokenImage:
        if name != "png" or len(plain := without_metadata(decoded)) == len(decoded):
            raise
        decoded = plain
        info, image = _decode(name, decoded, limit)
        container = replace(container, remarks=(*container.remarks, "its metadata cannot be read"))
    if container.same and not _is_complete(name, container):
        raise BrokenImage(f"is a {name.upper()} that is cut off: {container.remarks[0]}, and pixels are missing")
    return replace(info, remarks=container.remarks), image, decoded


def _is_complete(name: str, container: Container) -> bool:
    """Decode what the container says must be the same, and what must not; its size has been checked."""
    first, *others = (_decode(name, content, _NO_LIMIT)[1].tobytes() for content in container.same)
    is_same = all(other == first for other in others)
    return is_same and not (container.other and _decode(name, container.other, _NO_LIMIT)[1].tobytes() == first)


def _decode(name: str, content: bytes | memoryview, limit: PixelLimit) -> tuple[ImageInfo, ImageFile]:
    try:
        image = _READERS[name](io.BytesIO(content))
        limit.check(image.size)
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


def _reason(reason: Exception) -> str:
    return " ".join(str(reason).split())[:200] or type(reason).__name__

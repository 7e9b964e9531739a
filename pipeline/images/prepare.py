"""One request's sources and recipe → the pictures and the mask as they are sent, or everything that is wrong with them.

A picture that meets the demands is sent byte for byte, with its provenance and its profile. One that does not is
refused with the words to add to the job, or, where the job says `fit` or `resize`, mended. A JPEG whose EXIF turns it
is sent as it is to a service that reads EXIF, unless a mask has to agree with it: then it is turned here. With a mask
the first picture becomes a PNG, for mask and picture must be of one format (OpenAI image guide).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from pipeline.errors import BrokenImage, ImageError, Problem
from pipeline.images.inspect import ImageInfo, extension, open_whole
from pipeline.images.masks import Mask, encode_mask, find_mask, fit_mask, own_mask, refuse_useless
from pipeline.images.options import ImageOptions, Source
from pipeline.images.transform import Geometry, encode_png, fit_geometry, to_rgba
from pipeline.models.model import ImageRequirements, default_requirements
from pipeline.models.rules import join_or

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MEGA = 2**20
_SHAPES = "add `fit: crop`, `fit: pad` or `fit: stretch` to the request"
_CONVERT = "add `fit: pad` to the request to have it converted"
_ADD_MASK = "add `mask:` (a file, or {box: [left, top, right, bottom]}) to the request"
_SHRINKS = 10  # rounds at most; each aims 5 % below the limit, and two are usual

Fault = Literal["format", "shape", "bytes", "turned", "mode"]


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """One file part of a call, ready to send."""

    role: Literal["image", "mask"]
    source: str  # the name as written in the job; "box" for a mask made from a box
    source_sha256: str | None  # of the source's bytes; None for a box
    sha256: str  # of `content`
    content: bytes
    format: str  # png, jpeg, webp …
    width: int  # pixels as stored
    height: int

    @property
    def file(self) -> str:
        """Where it is kept, relative to the job's folder: inputs/<sha256>.<ext>."""
        return f"inputs/{self.sha256}.{extension(self.format)}"


def prepare(
    images: Sequence[Source], options: ImageOptions, requirements: ImageRequirements | None, model_name: str | None
) -> tuple[PreparedInput, ...]:
    """Make the pictures of one request ready: images in their order, the mask last.

    `requirements` is None for a model without rules. Raises PictureError with all problems.
    """
    problems: list[Problem] = []
    prepared: list[PreparedInput] = []
    for number, source in enumerate(images):
        asked = options if number == 0 else ImageOptions(options.fit, options.resize)  # a mask is the first picture's
        try:
            prepared += _Preparation(
                source, asked, requirements or default_requirements(), model_name or "the model", is_first=number == 0
            ).run()
        except ImageError as wrong:
            problems += wrong.problems
    if problems:
        raise ImageError(problems)
    return tuple(sorted(prepared, key=lambda one: one.role == "mask"))


@dataclass(frozen=True, slots=True)
class _Preparation:
    """One picture, with its mask, on its way to the wire."""

    source: Source
    options: ImageOptions
    requirements: ImageRequirements
    model: str
    is_first: bool

    def run(self) -> list[PreparedInput]:
        """Give the picture and, where there is one, its mask. Raises PictureError."""
        content = self.source.read()
        try:
            picture, image = open_whole(content)
        except BrokenImage as wrong:
            raise self._wrong(wrong) from None
        geometry, mask = self._decide(picture, content)
        own = self._carries_mask and mask is None
        if geometry is None:
            if own:
                self._refuse_own(own_mask(image))
            size = (picture.width, picture.height)
            sent = _prepared("image", self.source.name, content, content, picture.format, size)
        else:
            try:
                mended, geometry = self._mend(to_rgba(image, picture), geometry, own=own)
            except BrokenImage as wrong:
                raise self._wrong(wrong) from None
            sent = _prepared("image", self.source.name, content, mended, "png", geometry.canvas)
        return [sent] if mask is None else [sent, self._send_mask(mask, geometry)]

    @property
    def _carries_mask(self) -> bool:
        """Whether the picture's own transparency says what is edited."""
        return self.is_first and bool(self.requirements.own_mask_modes) and not self.options.masks

    def _wrong(self, reason: BrokenImage) -> ImageError:
        return ImageError([Problem(self.source.name, str(reason))])

    def _decide(self, picture: ImageInfo, content: bytes) -> tuple[Geometry | None, Mask | None]:
        """Give the picture's way, None for byte for byte, and its mask. Raises PictureError with all problems."""
        problems: list[Problem] = []
        geometry = mask = None
        try:
            geometry = self._geometry(picture, content)
        except BrokenImage as wrong:
            problems += self._wrong(wrong).problems
        if self._carries_mask and not picture.has_alpha and self.options.fit != "pad":
            what = f"has no transparency that says what to edit (mode {picture.mode}): {_ADD_MASK}"
            problems.append(Problem(self.source.name, what))
        try:
            mask = find_mask(self.options, picture, self.source.name, self.requirements.mask_max_bytes)
        except ImageError as wrong:
            problems += wrong.problems
        if problems:
            raise ImageError(problems)
        return geometry, mask

    def _geometry(self, picture: ImageInfo, content: bytes) -> Geometry | None:
        if picture.frames > 1:
            raise BrokenImage(f"has {picture.frames} frames or pages; give a picture of one, not an animation")
        options, requirements = self.options, self.requirements
        faults = set(self._faults(picture, content))
        if faults and not options.mends:
            raise BrokenImage(self._words(picture, content, faults))
        if requirements.square and options.resize and options.resize[0] != options.resize[1]:
            size = _edges(options.resize)
            raise BrokenImage(f"would become {size} by `resize: {size}`; {self.model} takes square pictures")
        geometry = fit_geometry(picture.upright, options.fit, options.resize, square=requirements.square)
        must_agree = options.masks and (picture.orientation != 1 or picture.format != "png")
        return geometry if faults or must_agree or not geometry.keeps(picture.upright) else None

    def _faults(self, picture: ImageInfo, content: bytes) -> Iterator[Fault]:
        requirements = self.requirements
        if picture.format not in requirements.formats:
            yield "format"
        if requirements.square and picture.width != picture.height:
            yield "shape"
        if requirements.max_bytes is not None and len(content) >= requirements.max_bytes:
            yield "bytes"
        if requirements.upright and picture.orientation != 1:
            yield "turned"
        if self._carries_mask and picture.has_alpha and picture.mode not in requirements.own_mask_modes:
            yield "mode"

    def _words(self, picture: ImageInfo, content: bytes, faults: set[Fault]) -> str:
        """Say what the picture is, what the model takes, and what to add to the job."""
        is_now = f"is {_edges(picture.upright)} {picture.format.upper()}"
        takes = join_or([kind.upper() for kind in self.requirements.formats])
        if self.requirements.square:
            takes = f"square {takes}"
        if "turned" in faults:
            is_now += f", turned by its EXIF orientation ({picture.orientation})"
            takes += " that stands upright"
        if "mode" in faults:
            is_now += f" in mode {picture.mode}"
            takes += f" in mode {join_or(self.requirements.own_mask_modes)} where it carries its own mask"
        if "bytes" in faults:
            is_now += f" of {len(content) / _MEGA:.1f} MB"
            takes += f" under {(self.requirements.max_bytes or 0) / _MEGA:.3g} MB"
        return f"{is_now}; {self.model} takes {takes}: {_SHAPES if 'shape' in faults else _CONVERT}"

    def _mend(self, rgba: Image.Image, geometry: Geometry, *, own: bool) -> tuple[bytes, Geometry]:
        """Encode the picture in its shape, smaller and smaller until it is below the byte limit."""
        limit = self.requirements.max_bytes
        content = b""
        for _ in range(_SHRINKS):
            fitted = geometry.apply(rgba, Image.Resampling.LANCZOS, (0, 0, 0, 0))
            if own:
                self._refuse_own(own_mask(fitted))
            content = encode_png(fitted)
            if limit is None or len(content) < limit:
                return content, geometry
            if self.options.resize is not None or not self.options.mends:
                break
            factor = 0.95 * math.sqrt(limit / len(content))
            smaller = (max(1, int(geometry.canvas[0] * factor)), max(1, int(geometry.canvas[1] * factor)))
            geometry = fit_geometry(rgba.size, self.options.fit, smaller, square=False)
        made = f"becomes a PNG of {len(content) / _MEGA:.1f} MB at {_edges(geometry.canvas)}"
        instead = "write a smaller `resize`" if self.options.resize else "add `fit: pad` to the request to shrink it"
        raise BrokenImage(f"{made}; {self.model} takes less than {(limit or 0) / _MEGA:.3g} MB: {instead}")

    def _refuse_own(self, mask: Image.Image) -> None:
        try:
            refuse_useless(mask, "wholly transparent")
        except BrokenImage as wrong:
            raise self._wrong(BrokenImage(f"is its own mask and {wrong}: {_ADD_MASK}")) from None

    def _send_mask(self, mask: Mask, geometry: Geometry | None) -> PreparedInput:
        marked = mask.marked
        keeps_shape = geometry is None or geometry.keeps(marked.size)
        if mask.content is not None and mask.is_ready and keeps_shape:
            return _prepared("mask", mask.name, mask.content, mask.content, "png", marked.size)
        if geometry is not None and not keeps_shape:
            marked = fit_mask(marked, geometry)
        try:
            refuse_useless(marked, "to be edited once it is fitted like its picture")
        except BrokenImage as wrong:
            raise ImageError([Problem(mask.name, str(wrong))]) from None
        content = encode_mask(marked)
        limit = self.requirements.mask_max_bytes
        if limit is not None and len(content) >= limit:
            what = f"is {len(content) / _MEGA:.1f} MB as a mask: add a `resize` to the request"
            raise ImageError([Problem(mask.name, what)])
        return _prepared("mask", mask.name, mask.content, content, "png", marked.size)


def _prepared(
    role: Literal["image", "mask"], name: str, source: bytes | None, content: bytes, kind: str, size: tuple[int, int]
) -> PreparedInput:
    sha256 = hashlib.sha256(content).hexdigest()
    of_source = None if source is None else sha256 if source is content else hashlib.sha256(source).hexdigest()
    return PreparedInput(role, name, of_source, sha256, content, kind, *size)


def _edges(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

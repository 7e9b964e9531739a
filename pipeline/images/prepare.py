"""Prepare the input images and the mask of a request for upload, or raise with every problem they have.

An image that meets the requirements is sent byte for byte, with its provenance and its color profile. One that does
not is rejected with what to add to the job, or, if the job has `fit` or `resize`, converted. A JPEG with an EXIF
orientation is sent as it is to a service that reads EXIF, unless a mask has to match it: then it is turned here. With a
mask the first image becomes a PNG, since mask and image must have one format (OpenAI image guide).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from pipeline.errors import BrokenImage, ImageError, Problem
from pipeline.images.inspect import ImageInfo, extension, mended, open_image
from pipeline.images.masks import Mask, check_mask, encode_mask, fit_mask, load_mask, mask_from_alpha
from pipeline.images.options import ImageOptions
from pipeline.images.requirements import MEGABYTE, Comparison, edges
from pipeline.images.transform import Geometry, encode_png, fit_geometry, to_rgba
from pipeline.models.model import ImageRequirements, default_requirements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.images.source import ImageSource

Role = Literal["image", "mask"]

_ADD_MASK = "add `mask:` (a file, or {box: [left, top, right, bottom]}) to the request"
_MAX_SHRINKS = 10  # each aims 5 % below the limit, and two are usual


@dataclass(frozen=True, slots=True)
class PreparedInput:
    """One file part of a call, ready to send."""

    role: Role
    source: str  # the name as written in the job; "box" for a mask made from a box
    source_sha256: str | None  # of the source's bytes; None for a box
    sha256: str  # of `content`
    content: bytes
    format: str  # png, jpeg, webp …
    width: int  # pixels as stored
    height: int

    @property
    def file(self) -> str:
        """Its path relative to the job's folder: inputs/<sha256>.<ext>."""
        return f"inputs/{self.sha256}.{extension(self.format)}"


def prepare(
    images: Sequence[ImageSource], options: ImageOptions, requirements: ImageRequirements | None, model_name: str | None
) -> tuple[PreparedInput, ...]:
    """Prepare the input images of one request: images in their order, the mask last.

    `requirements` is None for a model without rules. Raises ImageError with all problems.
    """
    problems: list[Problem] = []
    prepared: list[PreparedInput] = []
    for number, source in enumerate(images):
        own = options if number == 0 else ImageOptions(options.fit, options.resize)  # a mask is for the first image
        try:
            prepared += _Preparation(
                source, own, requirements or default_requirements(), model_name or "the model", is_first=number == 0
            ).run()
        except ImageError as error:
            problems += error.problems
    if problems:
        raise ImageError(problems)
    return tuple(sorted(prepared, key=lambda prepared_input: prepared_input.role == "mask"))


@dataclass(frozen=True, slots=True)
class _Preparation:
    """The preparation of one image and its mask."""

    source: ImageSource
    options: ImageOptions
    requirements: ImageRequirements
    model: str
    is_first: bool

    def run(self) -> list[PreparedInput]:
        """Return the image and, if there is one, its mask. Raises ImageError."""
        content = self.source.read()
        try:
            info, image = open_image(content)
        except BrokenImage as reason:
            raise self._error(reason) from None
        geometry, mask = self._plan(info, content)
        is_own_mask = self._is_own_mask and mask is None
        if geometry is None:
            if is_own_mask:
                self._check_own_mask(mask_from_alpha(image))
            size = (info.width, info.height)
            whole = mended(content) if info.remarks else content
            sent = _prepared("image", self.source.name, content, whole, info.format, size)
        else:
            try:
                converted, geometry = self._convert(to_rgba(image, info), geometry, is_own_mask=is_own_mask)
            except BrokenImage as reason:
                raise self._error(reason) from None
            sent = _prepared("image", self.source.name, content, converted, "png", geometry.canvas)
        return [sent] if mask is None else [sent, self._prepare_mask(mask, geometry)]

    @property
    def _is_own_mask(self) -> bool:
        """Whether the transparency of the image is the mask."""
        return self.is_first and bool(self.requirements.own_mask_modes) and not self.options.has_mask

    def _error(self, reason: BrokenImage) -> ImageError:
        return ImageError([Problem(self.source.name, str(reason))])

    def _plan(self, info: ImageInfo, content: bytes) -> tuple[Geometry | None, Mask | None]:
        """Return the image's geometry, None to send it byte for byte, and its mask. Raises ImageError."""
        problems: list[Problem] = []
        geometry = mask = None
        try:
            geometry = self._geometry(info, content)
        except BrokenImage as reason:
            problems += self._error(reason).problems
        if self._is_own_mask and not info.has_alpha and self.options.fit != "pad":
            message = f"has no transparency to mark what is edited (mode {info.mode}): {_ADD_MASK}"
            problems.append(Problem(self.source.name, message))
        try:
            mask = load_mask(self.options, info, self.source.name, self.requirements.mask_max_bytes)
        except ImageError as error:
            problems += error.problems
        if problems:
            raise ImageError(problems)
        return geometry, mask

    def _geometry(self, info: ImageInfo, content: bytes) -> Geometry | None:
        if info.frames > 1:
            raise BrokenImage(f"has {info.frames} frames or pages; give an image with one, not an animation")
        options = self.options
        comparison = Comparison(info, len(content), self.requirements, self._is_own_mask)
        violations = set(comparison.violations())
        if violations and not options.may_change:
            raise BrokenImage(comparison.describe(violations, self.model))
        if self.requirements.square and options.resize and options.resize[0] != options.resize[1]:
            size = edges(options.resize)
            raise BrokenImage(f"would become {size} by `resize: {size}`; {self.model} takes square images")
        geometry = fit_geometry(info.upright, options.fit, options.resize, square=self.requirements.square)
        must_match = options.has_mask and (info.orientation != 1 or info.format != "png")
        return geometry if violations or must_match or not geometry.is_identity(info.upright) else None

    def _convert(self, rgba: Image.Image, geometry: Geometry, *, is_own_mask: bool) -> tuple[bytes, Geometry]:
        """Apply the geometry and encode the image, shrinking it until it is below the byte limit."""
        limit = self.requirements.max_bytes
        content = b""
        for _ in range(_MAX_SHRINKS):
            fitted = geometry.apply(rgba, Image.Resampling.LANCZOS, (0, 0, 0, 0))
            if is_own_mask:
                self._check_own_mask(mask_from_alpha(fitted))
            content = encode_png(fitted)
            if limit is None or len(content) < limit:
                return content, geometry
            if self.options.resize is not None or not self.options.may_change:
                break
            factor = 0.95 * math.sqrt(limit / len(content))
            smaller = (max(1, int(geometry.canvas[0] * factor)), max(1, int(geometry.canvas[1] * factor)))
            geometry = fit_geometry(rgba.size, self.options.fit, smaller, square=False)
        result = f"becomes a PNG of {len(content) / MEGABYTE:.1f} MB at {edges(geometry.canvas)}"
        remedy = "write a smaller `resize`" if self.options.resize else "add `fit: pad` to the request to shrink it"
        raise BrokenImage(f"{result}; {self.model} takes less than {(limit or 0) / MEGABYTE:.3g} MB: {remedy}")

    def _check_own_mask(self, mask: Image.Image) -> None:
        try:
            check_mask(mask, "wholly transparent")
        except BrokenImage as reason:
            raise self._error(BrokenImage(f"is its own mask and {reason}: {_ADD_MASK}")) from None

    def _prepare_mask(self, mask: Mask, geometry: Geometry | None) -> PreparedInput:
        pixels = mask.pixels
        is_same_shape = geometry is None or geometry.is_identity(pixels.size)
        if mask.content is not None and mask.is_sendable and is_same_shape:
            return _prepared("mask", mask.name, mask.content, mask.content, "png", pixels.size)
        if geometry is not None and not is_same_shape:
            pixels = fit_mask(pixels, geometry)
        try:
            check_mask(pixels, "to be edited once it is fitted like its image")
        except BrokenImage as reason:
            raise ImageError([Problem(mask.name, str(reason))]) from None
        content = encode_mask(pixels)
        limit = self.requirements.mask_max_bytes
        if limit is not None and len(content) >= limit:
            message = f"is {len(content) / MEGABYTE:.1f} MB as a mask: add a `resize` to the request"
            raise ImageError([Problem(mask.name, message)])
        return _prepared("mask", mask.name, mask.content, content, "png", pixels.size)


def _prepared(
    role: Role, name: str, source: bytes | None, content: bytes, image_format: str, size: tuple[int, int]
) -> PreparedInput:
    sha256 = hashlib.sha256(content).hexdigest()
    of_source = None if source is None else sha256 if source is content else hashlib.sha256(source).hexdigest()
    return PreparedInput(role, name, of_source, sha256, content, image_format, *size)

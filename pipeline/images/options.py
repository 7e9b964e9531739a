"""Parse the job's `fit`, `resize` and `mask`: how input images are fitted and masked. Nothing is decoded here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from pipeline.config.yaml_document import unknown_key_message
from pipeline.errors import ImageError
from pipeline.images.source import ImageSource
from pipeline.models.rules import join_or, parse_size, quoted
from pipeline.models.validation import FieldProblem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Fit = Literal["crop", "pad", "stretch"]
MaskEdit = Literal["alpha", "white", "black"]
Box = tuple[int, int, int, int]

_FITS: tuple[Fit, ...] = get_args(Fit)
MAX_EDGE = 8192
"""The longest edge that `resize` takes: twice what any model makes."""

_MASK_FORMS = "a file name, {image: FILE, edit: white} or {box: [left, top, right, bottom]}"


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How the input images of a request are fitted, and which part of the first one is edited."""

    fit: Fit | None = None
    resize: tuple[int, int] | None = None  # pixels; without `fit` the image is stretched to it
    mask: ImageSource | None = None
    mask_edit: MaskEdit = "alpha"  # which part of the mask's image is edited: transparent, white or black
    mask_box: Box | None = None  # left, top, right, bottom in pixels of the first image, upright, before fitting

    @property
    def has_mask(self) -> bool:
        """Whether a mask is asked for."""
        return self.mask is not None or self.mask_box is not None

    @property
    def may_change(self) -> bool:
        """Whether an image that does not meet the requirements may be changed."""
        return self.fit is not None or self.resize is not None

    def canonical(self) -> dict[str, object]:
        """Return JSON values for the content key, without unset options. Reads the mask. Raises ImageError."""
        options: dict[str, object] = {}
        if self.fit is not None:
            options["fit"] = self.fit
        if self.resize is not None:
            options["resize"] = list(self.resize)
        if self.mask_box is not None:
            options["mask"] = {"box": list(self.mask_box)}
        elif self.mask is not None:
            options["mask"] = {"edit": self.mask_edit, "sha256": self.mask.sha256()}
        return options


def parse_image_options(
    fit: object, resize: object, mask: object, folder: Path | None = None
) -> tuple[ImageOptions, list[FieldProblem]]:
    """Parse the job's values of `fit`, `resize` and `mask` (None if absent): the options, and every problem."""
    options, problems = parse_mask(mask, folder)
    known = next((word for word in _FITS if word == fit), None)
    if fit is not None and known is None:
        problems.append(FieldProblem("fit", f"is {quoted(fit)}; it takes {join_or(_FITS)}"))
    size = parse_size(resize)
    if resize is not None and (size is None or max(size) > MAX_EDGE):
        accepted = f"it takes WIDTHxHEIGHT, like 512x512, up to {MAX_EDGE} pixels an edge"
        problems.append(FieldProblem("resize", f"is {quoted(resize)}; {accepted}"))
        size = None
    return replace(options, fit=known, resize=size), problems


def parse_mask(value: object, folder: Path | None = None) -> tuple[ImageOptions, list[FieldProblem]]:
    """Parse the job's value of `mask`: options with the mask alone, and every problem of its form."""
    if value is None:
        return ImageOptions(), []
    if isinstance(value, dict):
        return _parse_mask_mapping(value, folder)
    try:
        return ImageOptions(mask=ImageSource.of(value, folder=folder)), []
    except ImageError:
        return ImageOptions(), [FieldProblem("mask", f"is {quoted(value)}; it takes {_MASK_FORMS}")]


def _parse_mask_mapping(value: Mapping[Any, Any], folder: Path | None) -> tuple[ImageOptions, list[FieldProblem]]:
    known = ("image", "edit", "box")
    unknown = [key for key in value if key not in known]
    problems = [FieldProblem("mask", f"has an {unknown_key_message(str(key), known)}") for key in unknown]
    options = ImageOptions()
    if ("image" in value) == ("box" in value):
        problems.append(FieldProblem("mask", f"is {quoted(value)}; it takes {_MASK_FORMS}"))
    elif "box" in value:
        box, more = _parse_box(value)
        options, problems = ImageOptions(mask_box=box), problems + more
    else:
        options, more = _parse_mask_file(value, folder)
        problems += more
    return (ImageOptions(), problems) if problems else (options, [])


def _parse_box(value: Mapping[Any, Any]) -> tuple[Box | None, list[FieldProblem]]:
    box, problems = value["box"], []
    if "edit" in value:
        problems.append(FieldProblem("mask.edit", "is for `image`; with `box` the inside of the box is edited"))
    if not _is_box(box):
        accepted = "four whole numbers [left, top, right, bottom] with left < right and top < bottom"
        return None, [*problems, FieldProblem("mask.box", f"is {quoted(box)}; it takes {accepted}")]
    return (box[0], box[1], box[2], box[3]), problems


def _is_box(box: object) -> bool:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return False
    if not all(isinstance(edge, int) and not isinstance(edge, bool) and edge >= 0 for edge in box):
        return False
    return bool(box[0] < box[2] and box[1] < box[3])


def _parse_mask_file(value: Mapping[Any, Any], folder: Path | None) -> tuple[ImageOptions, list[FieldProblem]]:
    problems: list[FieldProblem] = []
    edit = value.get("edit", "alpha")
    if edit not in get_args(MaskEdit):
        problems.append(FieldProblem("mask.edit", f"is {quoted(edit)}; it takes alpha, white or black"))
    options, _ = parse_mask(value["image"], folder)
    if isinstance(value["image"], dict) or options.mask is None:
        problems.append(FieldProblem("mask.image", f"is {quoted(value['image'])}; it takes a file name"))
    return options if problems else replace(options, mask_edit=edit), problems

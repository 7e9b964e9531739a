"""Compare an input image with the requirements of its model, and describe what to add to the job if it differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.models.rules import join_or

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.images.inspect import ImageInfo
    from pipeline.models.model import ImageRequirements

MEGABYTE = 2**20

_ADD_FIT = "add `fit: crop`, `fit: pad` or `fit: stretch` to the request"
_ADD_PAD = "add `fit: pad` to the request to have it converted"

Violation = Literal["format", "shape", "bytes", "orientation", "mode"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image and the requirements for it. `is_own_mask`: its transparency is the mask; `size` is in bytes."""

    info: ImageInfo
    size: int
    requirements: ImageRequirements
    is_own_mask: bool

    def violations(self) -> Iterator[Violation]:
        """Yield every requirement that the image does not meet."""
        info, requirements = self.info, self.requirements
        if info.format not in requirements.formats:
            yield "format"
        if requirements.square and info.width != info.height:
            yield "shape"
        if requirements.max_bytes is not None and self.size >= requirements.max_bytes:
            yield "bytes"
        if requirements.upright and info.orientation != 1:
            yield "orientation"
        if self.is_own_mask and info.has_alpha and info.mode not in requirements.own_mask_modes:
            yield "mode"

    def describe(self, violations: set[Violation], model: str) -> str:
        """Return a message: what the image is, what the model takes, and what to add to the job."""
        requirements = self.requirements
        is_now = f"is {edges(self.info.upright)} {self.info.format.upper()}"
        takes = join_or([name.upper() for name in requirements.formats])
        if requirements.square:
            takes = f"square {takes}"
        if "orientation" in violations:
            is_now += f", turned by its EXIF orientation ({self.info.orientation})"
            takes += " that is stored upright"
        if "mode" in violations:
            is_now += f" in mode {self.info.mode}"
            takes += f" in mode {join_or(requirements.own_mask_modes)} if it is its own mask"
        if "bytes" in violations:
            is_now += f" of {self.size / MEGABYTE:.1f} MB"
            takes += f" under {(requirements.max_bytes or 0) / MEGABYTE:.3g} MB"
        return f"{is_now}; {model} takes {takes}: {_ADD_FIT if 'shape' in violations else _ADD_PAD}"


def edges(size: tuple[int, int]) -> str:
    """Format (width, height) as WIDTHxHEIGHT."""
    return f"{size[0]}x{size[1]}"

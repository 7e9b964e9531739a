"""Compares what a canary brought with what was asked for: size, format and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.doctor.job_checks import COST_TOLERANCE
from pipeline.models.rules import parse_size
from pipeline.reports.facts import dollars

if TYPE_CHECKING:
    from pipeline.ledger.samples import Sample, SampleImage

_SHAPE_TOLERANCE = 0.02
_SAME_FORMATS = {"jpg": "jpeg"}


@dataclass(frozen=True, slots=True)
class SampleFault:
    """What is wrong with a sample, and what to do."""

    what: str
    do: str


def find_fault(sample: Sample, least_usd: float | None, *, exact_size: bool) -> SampleFault | None:
    """Return what is wrong with a sample; None if all is as asked for, as far as the request says it.

    `least_usd` is what it may cost at least, where the estimate had to assume something. Without `exact_size`, only the
    shape counts: the server is asked for an aspect ratio.
    """
    asked, form = parse_size(sample.params.get("size")), sample.params.get("output_format")
    for image in sample.images:
        if asked is not None and not _has_size(image, asked, exact=exact_size):
            came = f"came in {image.width}x{image.height}, and {asked[0]}x{asked[1]} was asked for"
            return SampleFault(came, "name a size that the server makes, or another provider")
        if isinstance(form, str) and image.format != _SAME_FORMATS.get(form, form):
            came = f"came as {image.format}, and {form} was asked for"
            return SampleFault(came, "name an `output_format` that the server makes, or another provider")
    cost, estimate = sample.cost_usd, sample.estimate_usd
    if cost is None or estimate is None or sample.by_batch:
        return None
    least = estimate if least_usd is None else min(estimate, least_usd)
    if not least * (1 - COST_TOLERANCE) - 1e-9 <= cost <= estimate * (1 + COST_TOLERANCE) + 1e-9:
        what = f"cost {dollars(cost)}, and the estimate was {dollars(estimate)}"
        return SampleFault(what, "correct `prices` of the model in the config, or name the quality instead of `auto`")
    return None


def _has_size(image: SampleImage, asked: tuple[int, int], *, exact: bool) -> bool:
    if image.width is None or image.height is None:  # an SVG without a size
        return True
    if exact:
        return (image.width, image.height) == asked
    return abs(image.width * asked[1] / (image.height * asked[0]) - 1) <= _SHAPE_TOLERANCE


def sample_words(sample: Sample) -> str:
    """Return what came: the first image and the cost."""
    first = sample.images[0]
    size = "" if first.width is None else f"{first.width}x{first.height} "
    cost = "" if sample.cost_usd is None else f", {dollars(sample.cost_usd)}"
    more = f", {len(sample.images)} images" if len(sample.images) > 1 else ""
    return f"{size}{first.format}{more}{cost}"

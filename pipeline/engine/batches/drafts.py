"""Drafts: cuts the pending requests of a group into the lines of one batch, within the bounds of its provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.models.batch_estimate import BatchEstimate, LineEstimate, estimate_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.config.batch_rules import BatchRules
    from pipeline.ledger.queue import QueuedRequest
    from pipeline.models.model import Model


@dataclass(frozen=True, slots=True)
class DraftLine:
    """A line to be: images of a request, with what it takes of a batch."""

    request: QueuedRequest
    images: int
    takes: LineEstimate


def cut(
    requests: Iterable[QueuedRequest], rules: BatchRules, model: Model | None, images_per_call: int, room: int | None
) -> tuple[list[DraftLine], bool]:
    """Return the lines of the next batch, and whether it ends because `room`, in input tokens, does.

    One request may exceed a bound alone; the room, too, if it is whole: the caller says so with None.
    """
    lines: list[DraftLine] = []
    total = BatchEstimate()
    for request in requests:
        own = list(_lines_of(request, model, images_per_call))
        takes = [line.takes for line in own]
        if room is not None and total.tokens + sum(estimate.tokens for estimate in takes) > room:
            return lines, True
        if lines and not _fits(total, takes, rules):
            break
        for line in own:
            total.add(line.takes)
        lines += own
    return lines, False


def _fits(total: BatchEstimate, takes: list[LineEstimate], rules: BatchRules) -> bool:
    """Return whether all lines of a request may be added: a request is not spread over batches."""
    whole = LineEstimate(
        sum(estimate.images for estimate in takes),
        sum(estimate.output_bytes for estimate in takes),
        sum(estimate.tokens for estimate in takes),
        sum(estimate.input_bytes for estimate in takes),
    )
    return total.requests + len(takes) <= rules.most_requests and total.has_room(whole, rules)


def _lines_of(request: QueuedRequest, model: Model | None, images_per_call: int) -> Iterator[DraftLine]:
    sizes = [(input_image["width"], input_image["height"]) for input_image in request.inputs]
    left = request.missing
    while left > 0:
        images = min(left, images_per_call)
        takes = estimate_line(request.prompt, request.params, images, sizes, request.served_by, model)
        yield DraftLine(request, images, takes)
        left -= images

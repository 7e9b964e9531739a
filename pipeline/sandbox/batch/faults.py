"""Choose the faults of batches, their lines and their files by number; the same seed gives the same faults."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.sandbox.batch_settings import FATES, LINE_FAULTS
from pipeline.sandbox.faults import pick

if TYPE_CHECKING:
    from pipeline.sandbox.batch_settings import Fate, LineFault
    from pipeline.sandbox.settings import SandboxSettings


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What is decided about a batch before it is created."""

    validating_seconds: float
    working_seconds: float
    fate: Fate | None
    form: bool  # which of the two forms of its fate
    share: float  # of the lines that are done before it expires, if that is its fate
    loses_answer: bool
    drops: bool  # the connection closes, in place of a 500
    empty_ids: bool


@dataclass(frozen=True, slots=True)
class ContentPlan:
    """What is decided about one answer with a file's content."""

    has_length: bool
    ends_after: float | None  # this share of the bytes; None: it is whole
    ends_cleanly: bool  # without a length: as if it were whole


def plan_batch(settings: SandboxSettings, number: int) -> BatchPlan:
    """Choose what happens to the batch with this number."""
    rng, faults = random.Random(f"{settings.seed}:batch:{number}"), settings.batch.faults
    return BatchPlan(
        validating_seconds=rng.uniform(*settings.batch.seconds),
        working_seconds=rng.uniform(*settings.batch.seconds),
        fate=pick(FATES, [getattr(faults, name) for name in FATES], rng),
        form=rng.random() < 0.5,
        share=rng.random(),
        loses_answer=rng.random() < faults.create_lost,
        drops=rng.random() < 0.5,
        empty_ids=rng.random() < faults.empty_ids,
    )


def hidden_creates(settings: SandboxSettings, file_number: int) -> int:
    """Choose how many creates do not see a file that was just uploaded."""
    rng = random.Random(f"{settings.seed}:hidden:{file_number}")
    return rng.randint(1, 3) if rng.random() < settings.batch.faults.not_yet_visible else 0


def pick_line_fault(settings: SandboxSettings, batch_number: int, line: int) -> LineFault | None:
    """Choose what happens to a line of a batch."""
    rng, faults = random.Random(f"{settings.seed}:line:{batch_number}:{line}"), settings.batch.faults
    return pick(LINE_FAULTS, [getattr(faults, name) for name in LINE_FAULTS], rng)


def plan_content(settings: SandboxSettings, file_number: int, answer: int) -> ContentPlan:
    """Choose how a content is sent, by the file and how often its content was asked for."""
    rng = random.Random(f"{settings.seed}:content:{file_number}:{answer}")
    is_cut = rng.random() < settings.batch.faults.cut_content
    return ContentPlan(
        has_length=rng.random() < 0.5,
        ends_after=rng.random() if is_cut else None,
        ends_cleanly=rng.random() < 0.5,
    )

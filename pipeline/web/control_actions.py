"""What the page's buttons for controls do, and what is asked before: pause, unpause, throttle and priority."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.controls import MAX_PRIORITY, limit_of
from pipeline.errors import BadInput
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.submit import known_names
from pipeline.reports.controls import limit_words
from pipeline.web.actions import ActionResult, Question

if TYPE_CHECKING:
    from pipeline.batch import Batch

_HOLDS = "it holds until it is taken back, over all runs"


def ask_pause(batch: Batch, provider: str) -> Question:
    """Return what a pause means. Raises BadInput."""
    name = batch.controls.provider(provider, "pause").name
    lines = (f"no call is sent to `{name}`; downloads and calls in flight go on", _HOLDS)
    return Question(lines, f"Pause {name}", "Leave it on")


def pause(batch: Batch, provider: str) -> ActionResult:
    """Have no call sent to a provider, as `pipeline pause` does. Raises BadInput."""
    changed = batch.controls.pause(provider)
    return ActionResult((f"provider `{provider}` is paused" + ("" if changed else " already"),))


def ask_unpause(batch: Batch, provider: str) -> Question:
    """Return what the end of a pause means. Raises BadInput."""
    name = batch.controls.provider(provider, "unpause").name
    return Question((f"calls are sent to `{name}` again, and paid",), f"Unpause {name}", "Leave it paused")


def unpause(batch: Batch, provider: str) -> ActionResult:
    """End the pause of a provider, as `pipeline unpause` does. Raises BadInput."""
    changed = batch.controls.unpause(provider)
    return ActionResult((f"provider `{provider}` is not paused{' any more' * bool(changed)}",))


def ask_throttle(batch: Batch, provider: str) -> Question:
    """Return what a lower limit means, and what may be entered. Raises BadInput."""
    found = batch.controls.provider(provider, "throttle")
    limit, now = limit_of(found), batch.controls.read().facts.of(found.name).throttle
    what = (
        f"images per {limit.per_seconds:g} s that are asked of `{found.name}` at most; {limit.images:,} is no throttle"
    )
    return Question((what, _HOLDS), "Set the limit", "Leave it as it is", (1, limit.images, now or limit.images))


def throttle(batch: Batch, provider: str, value: str) -> ActionResult:
    """Lower the limit of a provider, as `pipeline throttle` does; the configured number takes that back.

    Raises BadInput.
    """
    found, images = batch.controls.provider(provider, "throttle"), _whole(value)
    if images == limit_of(found).images:
        batch.controls.throttle(provider, None)
        return ActionResult((f"provider `{provider}` is not throttled",))
    batch.controls.throttle(provider, images)
    return ActionResult((f"provider `{provider}` is throttled to {limit_words(found, images)}",))


def ask_priority(batch: Batch, job: str) -> Question:
    """Return what a priority means, and what may be entered. Raises BadInput."""
    with ledger.reading(batch.folder, job) as connection:
        (summary,) = read_job_summaries(connection, known_names(connection, [job]))
    what = f"jobs with a higher number than `{summary.name}` go before it; 0 is the default, and it may be negative"
    number = (-MAX_PRIORITY, MAX_PRIORITY, summary.priority)
    return Question((what,), "Set the priority", "Leave it as it is", number)


def prioritise(batch: Batch, job: str, value: str) -> ActionResult:
    """Set the priority of a job, as `pipeline priority` does. Raises BadInput."""
    number = _whole(value)
    batch.controls.prioritise(job, number)
    return ActionResult((f"job `{job}` has priority {number}",))


def _whole(value: str) -> int:
    """Return the number that was entered. Raises BadInput."""
    try:
        return int(value)
    except ValueError:
        raise BadInput(f"`{value:.60}` is no whole number") from None

"""What the page's buttons do: the same as the commands of that name, and a sentence about what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.ledger.lock import find_owner
from pipeline.reports.facts import counted
from pipeline.reports.next_command import NextCommand

if TYPE_CHECKING:
    from pipeline.batch import Batch
    from pipeline.ledger.lock import LockOwner


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What a button did, in a sentence. `command` is what to type now, if that is for a person to do."""

    sentence: str
    command: str | None = None


def resume(batch: Batch, name: str) -> ActionResult:
    """Queue what failed, came back partial or was cancelled again. Starts no run. Raises BadInput."""
    number = batch.put_back(name)
    if not number:
        return ActionResult(f"{name} has no request to queue again.")
    queued = f"{counted(number, 'request')} of {name} queued again."
    line = NextCommand.anywhere(batch.config).line("run")
    owner = _lock_owner(batch)
    if owner is None:
        return ActionResult(f"{queued} No run is at work on this folder. To start one, type", line)
    who = f"{owner.who[0].upper()}{owner.who[1:]}"
    return ActionResult(
        f"{queued} {who} is at work and processes them if it works on the whole queue or on this job; otherwise, when"
        " it has ended, type",
        line,
    )


def cancel(batch: Batch, name: str) -> ActionResult:
    """Take what is pending out of the queue, and have the job's batches cancelled. Raises BadInput."""
    number, batches, owner = batch.cancel(name), batch.count_batches(name), _lock_owner(batch)
    sentence = f"{counted(number, 'request')} of {name} taken out of the queue; Resume queues them again."
    sentence += " Calls in flight still finish." if owner else ""
    if not batches:
        return ActionResult(sentence)
    them = "The batch" if batches == 1 else f"The {batches:,} batches"
    sentence += f" {them} of {name} will be cancelled at the service, and what is made until then is collected:"
    if owner:
        return ActionResult(f"{sentence} the run at work ({owner.who}) does that if it works on this job.")
    command = NextCommand.anywhere(batch.config).line("cancel", name)
    return ActionResult(f"{sentence} by the next run, or now if you type", command)


def _lock_owner(batch: Batch) -> LockOwner | None:
    with ledger.reading(batch.folder) as connection:
        return find_owner(batch.folder, connection)

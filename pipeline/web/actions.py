"""A button pressed → the job's queue changed, as by the command of that name, and a sentence about what comes next."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.database import named_errors, open_for_reading
from pipeline.ledger.lock import find_owner
from pipeline.reports.next_command import commands

if TYPE_CHECKING:
    from pipeline.batch import Batch
    from pipeline.ledger.lock import LockOwner


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an order came to. `command` is what to type now, where that is for a person to do."""

    said: str
    command: str | None = None


def resume(batch: Batch, name: str) -> ActionResult:
    """Put what failed, came back partial or was cancelled back into the queue. It starts no run. Raises BadInput."""
    number = batch.put_back(name)
    if not number:
        return ActionResult(f"There is nothing of {name} to put back.")
    queued = f"{_requests(number)} of {name} queued again."
    line = commands(batch.config).line("run")
    owner = _holder(batch)
    if owner is None:
        return ActionResult(f"{queued} Nothing works on this folder now. To start, type", line)
    who = f"{owner.who[0].upper()}{owner.who[1:]}"
    return ActionResult(
        f"{queued} {who} is working and takes them up, if it works the whole queue or this job; else, when it has"
        " ended, type",
        line,
    )


def cancel(batch: Batch, name: str) -> ActionResult:
    """Take what is pending out of the queue. Raises BadInput."""
    number = batch.cancel(name)
    flying = " What is in flight still ends." if _holder(batch) else ""
    return ActionResult(f"{_requests(number)} of {name} taken out of the queue; Resume puts them back.{flying}")


def _requests(number: int) -> str:
    return f"{number:,} request{'' if number == 1 else 's'}"


def _holder(batch: Batch) -> LockOwner | None:
    connection = open_for_reading(batch.folder)
    if connection is None:
        return None
    with contextlib.closing(connection), named_errors(batch.folder):
        return find_owner(batch.folder, connection)

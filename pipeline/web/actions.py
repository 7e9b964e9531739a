"""What the page's buttons do, and what is asked before: in the words of the commands of that name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline import ledger
from pipeline.job_queue import queued_message
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.lock import find_owner
from pipeline.ledger.put_back import Selection, find_ended
from pipeline.ledger.submit import known_names
from pipeline.reports.facts import counted
from pipeline.reports.next_command import NextCommand
from pipeline.reports.put_back import put_back_lines

if TYPE_CHECKING:
    from pipeline.batch import Batch
    from pipeline.ledger.lock import LockOwner


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What a button did, in lines. `command` is what to type now, if that is for a person to do."""

    lines: tuple[str, ...]
    command: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return this as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Question:
    """What a button is about to do, in lines, and what its two answers say; without `yes` there is nothing to do.

    `number` is what is to be entered, if anything is: its minimum, its maximum, and what holds now.
    """

    lines: tuple[str, ...]
    yes: str | None
    no: str
    number: tuple[int, int, int] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return this as plain values for JSON."""
        return asdict(self)


def ask_resume(batch: Batch, name: str) -> Question:
    """Return what `resume` would put back, what that may cost, and what it would leave alone. Raises BadInput."""
    with ledger.reading(batch.folder, name) as connection:
        selection = Selection(tuple(known_names(connection, [name])), only_retryable=True)
        found = find_ended(connection, selection, batch.config.discounts)
    number = sum(job.requests for job in found)
    yes = f"Put {counted(number, 'request')} back" if number else None
    return Question(tuple(put_back_lines(found, _command(batch))), yes, "Leave as it is")


def resume(batch: Batch, name: str) -> ActionResult:
    """Queue again what failed or came back partial, as `pipeline resume` does. Starts no run. Raises BadInput."""
    found = batch.put_back(name)
    lines = tuple(put_back_lines(found, _command(batch)))
    if not any(job.requests for job in found):
        return ActionResult(lines)
    with ledger.reading(batch.folder) as connection:
        owner = find_owner(batch.folder, connection)
        if owner is not None:
            return ActionResult((*lines, *(queued_message(connection, job.job, owner.who) for job in found)))
    return ActionResult((*lines, "no run is at work; to start one, type"), _command(batch).line("run"))


def ask_cancel(batch: Batch, name: str) -> Question:
    """Return what `cancel` would take out of the queue, and what puts it back. Raises BadInput."""
    with ledger.reading(batch.folder, name) as connection:
        (summary,) = read_job_summaries(connection, known_names(connection, [name]))
    out = 0 if summary.is_being_cancelled else summary.in_batches.requests
    number = summary.counts["pending"] + out
    if not number:
        return Question((f"nothing of `{summary.name}` is queued",), None, "Close")
    requests = counted(number, "request")
    lines = [f"{requests} of `{summary.name}` would leave the queue"]
    lines += ["calls in flight still finish"] if _lock_owner(batch) else []
    if out:
        lines.append(f"{out:,} of them {'is' if out == 1 else 'are'} out in batches: what is made until then is paid")
    lines.append(f"to put {_them(number)} back later, type: {_command(batch).line('resume', summary.name)}")
    return Question(tuple(lines), f"Cancel {requests}", f"Keep {_them(number)}")


def cancel(batch: Batch, name: str) -> ActionResult:
    """Take what is pending out of the queue, and have the job's batches cancelled. Raises BadInput."""
    number, batches, owner = batch.cancel(name), batch.count_batches(name), _lock_owner(batch)
    lines = [f"{counted(number, 'request')} of `{name}` taken out of the queue"] * bool(number)
    lines += ["calls in flight still finish"] * bool(owner and number)
    if batches:
        them = "the batch" if batches == 1 else f"the {batches:,} batches"
        lines.append(f"{them} of `{name}` will be cancelled at the service, and what is made until then is collected:")
        if owner:
            return ActionResult((*lines, f"the run at work ({owner.who}) does that if it works on this job"))
        return ActionResult((*lines, "by the next run, or now if you type"), _command(batch).line("cancel", name))
    if not number:
        return ActionResult((f"nothing of `{name}` was queued",))
    return ActionResult((*lines, f"to put {_them(number)} back, type"), _command(batch).line("resume", name))


def _them(number: int) -> str:
    return "it" if number == 1 else "them"


def _command(batch: Batch) -> NextCommand:
    return NextCommand.anywhere(batch.config)


def _lock_owner(batch: Batch) -> LockOwner | None:
    with ledger.reading(batch.folder) as connection:
        return find_owner(batch.folder, connection)

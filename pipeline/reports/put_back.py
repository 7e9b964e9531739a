"""Writes what `pipeline resume` puts back, what that may cost, and what it leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.reports.facts import counted, dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.ledger.put_back import JobPutBack
    from pipeline.reports.next_command import NextCommand


def put_back_lines(found: Sequence[JobPutBack], command: NextCommand) -> Iterator[str]:
    """Yield a line for each job that gets requests back, and one for each kind of request that is left alone."""
    chosen = [one for one in found if one.requests]
    for one in chosen:
        yield f"put back: {counted(one.requests, 'request')} of `{one.job}`: {_cost(one)}"
    if not chosen:
        yield "nothing to put back"
    for one in found:
        if one.cancelled_left:
            yield (
                f"left alone: {counted(one.cancelled_left, 'cancelled request')} of `{one.job}`; to put back, type:"
                f" {command.line('resume', one.job)}"
            )
        if one.moderated_left:
            yield (
                f"left alone: {counted(one.moderated_left, 'request')} of `{one.job}` that the content policy refused;"
                f" change the prompt and run the job file, or type: {command.line('resume', one.job)}"
            )
        if one.others_left:
            others = counted(one.others_left, "other request")
            yield f"left alone: {others} of `{one.job}` that failed or came back partial"


def _cost(one: JobPutBack) -> str:
    parts = [str(counted(one.images, "image"))] if one.images or not one.paid else []
    if one.images:
        parts.append("cost unknown" if one.cost_usd is None else f"about {dollars(one.cost_usd)}")
        parts += ["a rehearsal: nothing is billed"] if one.rehearsal else []
    if one.paid:
        parts.append(f"{counted(one.paid, 'image')} paid already and downloaded at no cost")
    return ", ".join(parts)

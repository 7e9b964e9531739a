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
    chosen = [job for job in found if job.requests]
    for job in chosen:
        yield f"put back: {counted(job.requests, 'request')} of `{job.job}`: {_cost(job)}"
    if not chosen:
        yield "nothing to put back"
    for job in found:
        if job.cancelled_left:
            yield (
                f"left alone: {counted(job.cancelled_left, 'cancelled request')} of `{job.job}`; to put back, type:"
                f" {command.line('resume', job.job)}"
            )
        if job.moderated_left:
            yield (
                f"left alone: {counted(job.moderated_left, 'request')} of `{job.job}` that the content policy refused;"
                f" change the prompt and run the job file, or type: {command.line('resume', job.job)}"
            )
        if job.others_left:
            others = counted(job.others_left, "other request")
            yield f"left alone: {others} of `{job.job}` that failed or came back partial"


def _cost(job: JobPutBack) -> str:
    parts = [str(counted(job.images, "image"))] if job.images or not job.paid else []
    if job.images:
        parts.append("cost unknown" if job.cost_usd is None else f"about {dollars(job.cost_usd)}")
        parts += ["a rehearsal: nothing is billed"] if job.rehearsal else []
    if job.paid:
        parts.append(f"{counted(job.paid, 'image')} paid already and downloaded at no cost")
    return ", ".join(parts)

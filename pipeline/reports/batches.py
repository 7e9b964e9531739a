"""Writes how batches stand: those that are out in one sentence, each of them on request, and all of them as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.ledger.batch_queries import BatchesOut, read_batch_cost
from pipeline.reports.facts import Fact, clock, counted, dollars, utc_time

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from pipeline.ledger.batch_queries import RecordedBatch
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.reports.forms import BatchForm


def mode_words(summary: JobSummary) -> str:
    """Return how a job is served, and until when that is to be done; empty if that is realtime."""
    now = time.time()
    if summary.mode == "realtime":
        return ""
    if summary.mode == "batch":
        return "by batch"
    deadline = "" if summary.deadline is None else f", deadline {clock(summary.deadline, now)}"
    if summary.realtime_since is not None:
        return f"auto{deadline}, in realtime since {clock(summary.realtime_since, now)}"
    return f"auto{deadline}"


def batch_lines(summary: JobSummary, *, each: bool) -> Iterator[str]:
    """Yield how the batches of a job stand: one line for those that are out, and with `each` one for every batch."""
    now = time.time()
    if summary.living:
        yield batch_sentence(summary, now)
    if each:
        for batch in summary.batches:
            yield f"  {_batch_words(batch, now)}"


def batch_sentence(summary: JobSummary, now: float) -> str:
    """Return how the batches of a job that are out stand."""
    return f"{'being cancelled; ' if summary.is_being_cancelled else ''}{out_words(summary.out, now)}"


def out_words(out: BatchesOut, now: float) -> str:
    """Return how many batches are out, how far they are, since when, and when they end at the latest."""
    first, last = ("the first ", "the last ") if out.batches > 1 else ("", "")
    parts = [made_words(out)]
    parts += ["being sent" if out.sent_at is None else f"{first}sent {clock(out.sent_at, now)}"]
    parts += [] if out.expires_at is None else [f"{last}expires {clock(out.expires_at, now)} at the latest"]
    return f"{counted(out.batches, 'batch')} out: {', '.join(parts)}"


def made_words(out: BatchesOut | RecordedBatch) -> str:
    """Return how many of the lines of batches are made, and how many of them have failed."""
    failed = f", {out.failed:,} failed" if out.failed else ""
    return f"{out.completed:,} of {counted(out.requests, 'line')} made{failed}"


def waits_words(out: BatchesOut, now: float) -> str:
    """Return for how many batches the work waits, and until when at the latest."""
    if out.expires_at is None:
        return f"waits for {counted(out.batches, 'batch')}"
    last = ", the last expires" if out.batches > 1 else ", which expires"
    return f"waits for {counted(out.batches, 'batch')}{last} {clock(out.expires_at, now)} at the latest"


def left_out_lines(summaries: Sequence[JobSummary], command: str) -> list[str]:
    """Return for each provider how many batches are out there, and what collects them."""
    found = []
    for provider in dict.fromkeys(batch.provider for summary in summaries for batch in summary.batches):
        of_provider = (batch for summary in summaries for batch in summary.batches if batch.provider == provider)
        if (out := BatchesOut.of(of_provider)).batches:
            are, them = ("is", "it") if out.batches == 1 else ("are", "them")
            held = counted(out.requests, "request")
            found.append(
                f"{counted(out.batches, 'batch')} ({held}) {are} out at {provider}; `{command}` collects {them}"
            )
    return found


def batches_json(batches: Iterable[RecordedBatch]) -> list[BatchForm]:
    """Return batches in the fields that scripts know."""
    return [
        {
            "id": batch.id,
            "provider": batch.provider,
            "model": batch.model,
            "status": batch.status,
            "requests": batch.requests,
            "completed": batch.completed,
            "failed": batch.failed,
            "sent_at": utc_time(batch.sent_at),
            "expires_at": utc_time(batch.expires_at),
        }
        for batch in batches
    ]


def _batch_words(batch: RecordedBatch, now: float) -> str:
    sent = [] if batch.sent_at is None else [f"sent {clock(batch.sent_at, now)}"]
    is_open = batch.is_living and batch.expires_at is not None
    expires = [f"expires {clock(batch.expires_at or 0.0, now)} at the latest"] if is_open else []
    model = [batch.model] if batch.model else []
    return f"{batch.id or 'a batch'}: {', '.join([batch.status, made_words(batch), *model, *sent, *expires])}"


def batch_facts(connection: sqlite3.Connection, summary: JobSummary) -> list[Fact]:
    """Return how a job is served, unless that is in realtime, how many batches it has had, and what they cost."""
    cost = read_batch_cost(connection, summary.name)
    batches, out = len(summary.batches), summary.out
    is_out = f", {out.batches:,} of them out" if out.batches else ""
    facts = [] if summary.mode == "realtime" else [Fact(summary.mode, "mode")]
    facts += [Fact(f"{batches:,}{is_out}", "batches")] if batches else []
    return [*facts, *([] if cost is None else [Fact(dollars(cost), "of that by batch")])]

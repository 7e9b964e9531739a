"""Reads what the live page shows: jobs, who works on them and how fast, causes of failure, and the newest images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.put_back import Selection, find_ended
from pipeline.ledger.queries import read_captions
from pipeline.progress.from_ledger import make_view
from pipeline.reports.batches import batch_sentence
from pipeline.reports.facts import count_facts, counted, dollars, expected_facts, spent_facts
from pipeline.reports.failure_report import read_causes
from pipeline.reports.next_command import WITHOUT_OPTIONS
from pipeline.reports.stops import stops_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from pipeline.config.load import Config
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.ledger.lock import LockOwner
    from pipeline.progress.view import ProviderView
    from pipeline.reports.controls import ControlsInForce
    from pipeline.reports.failure_report import FailureCause
    from pipeline.reports.next_command import NextCommand

NEWEST = 24
"""Images that the page shows."""


def read_snapshot(
    connection: sqlite3.Connection,
    config: Config,
    owner: LockOwner | None,
    now: float,
    command: NextCommand = WITHOUT_OPTIONS,
) -> dict[str, Any]:
    """Return how all jobs stand, what works on them, and the commands that continue, as plain values for JSON."""
    summaries = read_job_summaries(connection, None, config.discounts)
    to_resume = {job.job: job.requests for job in find_ended(connection, Selection())}
    reading = make_view(connection, summaries, config.providers, owner, now)
    view = reading.view
    ends_at = view.total.ends_at
    return {
        "jobs": [_job(connection, summary, to_resume.get(summary.name, 0), command, now) for summary in summaries],
        "run": None if owner is None else {"who": owner.who, "since": owner.started_at},
        "providers": [_provider(provider) for provider in view.providers],
        "controls": _controls(reading.status.controls, [provider.name for provider in view.providers], command),
        "minutes_left": None if ends_at is None else max(0.0, ends_at - now) / 60,
        "spent": _spent(summaries),
        "stops": stops_json(reading.status.stops, command),
    }


def _job(
    connection: sqlite3.Connection, summary: JobSummary, to_resume: int, command: NextCommand, now: float
) -> dict[str, Any]:
    counts, out = summary.counts, summary.out
    facts = [
        *(fact for fact in count_facts(summary) if fact.label != "succeeded"),
        counted(summary.images, "image"),
        *spent_facts(summary),
        *expected_facts(summary),
    ]
    causes = read_causes(connection, [summary.name]) if summary.unsuccessful else []
    return {
        "name": summary.name,
        "provider": summary.provider,
        "rehearsal": summary.rehearsal,
        "priority": summary.priority,
        "counts": dict(counts),
        "images": summary.images,
        "missing": summary.missing,
        "facts": [[fact.value, fact.label] for fact in facts],
        "can_resume": to_resume,
        "can_cancel": counts["pending"] + (0 if summary.is_being_cancelled else summary.in_batches.requests),
        "batches": batch_sentence(summary, now) if out.batches else None,
        "in_batch": [out.completed, out.requests],
        "unfinished": summary.unfinished,
        "unsuccessful": summary.unsuccessful,
        "causes": [_cause(cause, command) for cause in causes],
    }


def _cause(cause: FailureCause, command: NextCommand) -> dict[str, Any]:
    (job,) = cause.jobs
    return {
        "title": cause.title,
        "message": job.message,
        "advice": cause.advice,
        "commands": [command.line(*words) for words in cause.commands],
        "count": cause.count,
        "example": job.prompt or job.id,
    }


def _provider(provider: ProviderView) -> dict[str, Any]:
    return {
        "name": provider.name,
        "per_minute": provider.per_minute,
        "limit_per_minute": provider.limit,
        "in_flight": provider.in_flight,
        "paused_until": provider.until,
        "down_since": provider.down_since,
    }


def _controls(controls: ControlsInForce, names: Collection[str], command: NextCommand) -> dict[str, Any]:
    """Return what people have set, in lines, and the providers that can be paused or throttled: those that have work,
    and those that are paused.
    """
    providers = [
        provider
        for provider in controls.json()
        if provider["name"] in names or provider["paused"] or provider["throttle"] or provider["down_since"]
    ]
    return {
        "lines": list(controls.lines(command, {provider["name"] for provider in providers})),
        "providers": providers,
    }


def _spent(summaries: Sequence[JobSummary]) -> str | None:
    """Return what all jobs but rehearsals have cost, None if that is known of none."""
    costs = [summary.cost_usd for summary in summaries if not summary.rehearsal and summary.cost_usd is not None]
    return dollars(sum(costs)) if costs else None


def read_shown_images(connection: sqlite3.Connection, image_pks: Collection[int]) -> list[dict[str, Any]]:
    """Return what the page shows of these images."""
    return [
        {"pk": image.image_pk, "job": image.job, "file": image.file, "id": image.id, "prompt": image.prompt}
        for image in read_captions(connection, image_pks)
    ]

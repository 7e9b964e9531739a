"""Makes a view from the ledger alone, for `status --watch` and the live page, beside a run or after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.ledger.activity import read_activity
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.lock import find_owner
from pipeline.ledger.submit import known_names
from pipeline.progress.view import JobView, ProviderView, View, speed_of, with_ends
from pipeline.reports.status import FolderStatus
from pipeline.reports.stops import read_holding_stops

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.ledger.activity import ProviderActivity
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.ledger.lock import LockOwner


@dataclass(frozen=True, slots=True)
class LedgerView:
    """One reading of the ledger: how the jobs stand, as numbers and as a view."""

    summaries: Sequence[JobSummary]
    view: View
    status: FolderStatus


def read_view(folder: Path, job: str | None, providers: Mapping[str, Provider], now: float) -> LedgerView:
    """Return the view of a job, or of all. Raises BadInput for an unknown one, and LedgerError."""
    with ledger.reading(folder) as connection:
        summaries = read_job_summaries(connection, None if job is None else known_names(connection, [job]))
        return make_view(connection, summaries, providers, find_owner(folder, connection), now)


def make_view(
    connection: sqlite3.Connection,
    summaries: Sequence[JobSummary],
    providers: Mapping[str, Provider],
    owner: LockOwner | None,
    now: float,
) -> LedgerView:
    """Return the view of these jobs and of the providers that they wait for; `owner` is the run at work, if any is."""
    shown = []
    for name in dict.fromkeys(summary.provider for summary in summaries if summary.unfinished):
        limit = providers[name].rate_limit if name in providers else None
        activity = read_activity(connection, name, limit, owner, now)
        shown.append(_provider(activity, None if limit is None else limit.per_minute))
    speeds = {
        one.name: speed
        for one in shown
        if owner is not None and (speed := speed_of(one.limit, one.per_minute or None, one.bottleneck))
    }
    starts = {one.name: max(now, one.until or now) for one in shown}
    jobs = [_job(summary) for summary in summaries]
    status = FolderStatus(summaries, owner, read_holding_stops(connection, [one.name for one in summaries]))
    return LedgerView(summaries, View(now, with_ends(jobs, starts, speeds), shown), status)


def _job(summary: JobSummary) -> JobView:
    return JobView(
        name=summary.name,
        provider=summary.provider,
        done=summary.counts["succeeded"],
        failed=summary.unsuccessful,
        left=summary.unfinished,
        missing=summary.missing,
        cost_usd=summary.cost_usd,
        expected_usd=summary.expected_usd,
        rehearsal=summary.rehearsal,
    )


def _provider(activity: ProviderActivity, limit: float | None) -> ProviderView:
    return ProviderView(
        name=activity.name,
        per_minute=activity.per_minute,
        limit=limit,
        in_flight=activity.in_flight,
        bottleneck=activity.bottleneck,
        until=activity.paused_until,
        expires_at=activity.expires_at,
    )

"""Makes a view from the ledger alone, for `status --watch` and the live page, beside a run or after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.ledger.activity import read_activity
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.lock import find_owner
from pipeline.ledger.submit import known_names
from pipeline.progress.view import (
    JobView,
    ProviderView,
    View,
    out_at,
    speed_of,
    with_ends,
)
from pipeline.reports.controls import ControlsInForce
from pipeline.reports.status import FolderStatus
from pipeline.reports.stops import read_holding_stops

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from pipeline.config.load import Config, Provider
    from pipeline.config.provider import RateLimit
    from pipeline.ledger.activity import ProviderActivity
    from pipeline.ledger.batch_queries import BatchesOut
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.ledger.lock import LockOwner


@dataclass(frozen=True, slots=True)
class LedgerView:
    """One reading of the ledger: how the jobs stand, as numbers and as a view."""

    summaries: Sequence[JobSummary]
    view: View
    status: FolderStatus


def read_view(config: Config, job: str | None, now: float) -> LedgerView:
    """Return the view of a job, or of all. Raises BadInput for an unknown one, and LedgerError."""
    with ledger.reading(config.output) as connection:
        names = None if job is None else known_names(connection, [job])
        summaries = read_job_summaries(connection, names, config.discounts)
        return make_view(connection, summaries, config.providers, find_owner(config.output, connection), now)


def make_view(
    connection: sqlite3.Connection,
    summaries: Sequence[JobSummary],
    providers: Mapping[str, Provider],
    owner: LockOwner | None,
    now: float,
) -> LedgerView:
    """Return the view of these jobs and of the providers that they wait for; `owner` is the run at work, if any is."""
    jobs = [_job(summary) for summary in summaries]
    controls = ControlsInForce.read(connection, providers, owner)
    windows = {name: provider.window for name, provider in providers.items() if provider.window is not None}
    views = []
    for name in dict.fromkeys(name for summary in summaries if summary.unfinished for name in summary.serving):
        limit = controls.at_work(providers[name]).rate_limit if name in providers else None
        activity = read_activity(connection, name, limit, owner, now)
        view = _provider(activity, limit, out_at(name, jobs), owner)
        hours = windows.get(name)
        if hours is not None and not hours.is_open(now):
            view = replace(view, bottleneck="held", until=hours.next_change(now))
        if outage := controls.outages.get(name):
            view = replace(view, down_since=outage.since, given_up_at=outage.until)
        views.append(view)
    speeds = {
        view.name: speed
        for view in views
        if owner is not None
        and view.down_since is None
        and (speed := speed_of(view.limit, view.per_minute or None, view.bottleneck))
    }
    starts = {view.name: max(now, view.until or now) for view in views}
    stops = read_holding_stops(connection, [summary.name for summary in summaries])
    status = FolderStatus(summaries, owner, stops, controls)
    return LedgerView(summaries, View(now, with_ends(jobs, starts, speeds, windows), views), status)


def _job(summary: JobSummary) -> JobView:
    return JobView(
        name=summary.name,
        provider=summary.provider,
        members=summary.members,
        done=summary.counts["succeeded"],
        failed=summary.unsuccessful,
        left=summary.unfinished,
        missing=max(0, summary.missing - summary.in_batches.images),
        cost_usd=summary.cost_usd,
        expected_usd=summary.expected_usd,
        rehearsal=summary.rehearsal,
        batches=summary.living,
        by_batch=summary.mode == "batch",
    )


def _provider(
    activity: ProviderActivity, limit: RateLimit | None, out: BatchesOut, owner: LockOwner | None
) -> ProviderView:
    waits = out.batches and owner is not None and not activity.bottleneck
    return ProviderView(
        name=activity.name,
        per_minute=activity.per_minute,
        limit=None if limit is None else limit.per_minute,
        in_flight=activity.in_flight,
        bottleneck="batch" if waits else activity.bottleneck,
        until=activity.paused_until,
        expires_at=activity.expires_at,
        out=out,
    )

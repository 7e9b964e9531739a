"""The ledger alone → a view, for `status --watch`: beside a run that works in another process, or after it.

What it asks for stands in indexes or among the newest attempts, so that a look is as cheap with many requests as with
few. Moments are seconds since 1970.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.submit import known_names
from pipeline.progress.view import JobView, ProviderView, View, speed_of, with_ends

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider, RateLimit
    from pipeline.ledger.job_summary import JobSummary

_NEWEST = 5000
"""Attempts that are looked at; a run that makes more of them in a minute is measured by the seconds that they took."""

_SECONDS = 60.0  # over which images a minute are counted
_AT_THE_LIMIT = 0.9  # what part of the limit counts as all of it: large calls leave gaps in the window

_LEAST_CALLS = 3  # in the window, before they are called a pace


@dataclass(frozen=True, slots=True)
class LedgerView:
    """One look at the ledger."""

    summaries: Sequence[JobSummary]
    view: View


def read_view(folder: Path, job: str | None, providers: Mapping[str, Provider], now: float) -> LedgerView:
    """Look at a job, or at all. Raises BadInput for an unknown one, and LedgerError."""
    connection = open_for_reading(folder)
    if connection is None:
        return LedgerView((), View(now, (), ()))
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        summaries = read_job_summaries(connection, None if job is None else known_names(connection, [job]))
        attempts = connection.execute(
            "SELECT provider, n, sent_at, ended_at, outcome FROM attempt ORDER BY pk DESC LIMIT ?", (_NEWEST,)
        ).fetchall()
        names = dict.fromkeys(summary.provider for summary in summaries if summary.unfinished)
        shown = [_provider(connection, name, providers.get(name), attempts, now) for name in names]
    jobs = [_job(summary) for summary in summaries]
    speeds = {
        one.name: speed for one in shown if (speed := speed_of(one.limit, one.per_minute or None, one.bottleneck))
    }
    starts = {one.name: max(now, one.until or now) for one in shown}
    return LedgerView(summaries, View(now, with_ends(jobs, starts, speeds), shown))


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


def _provider(
    connection: sqlite3.Connection, name: str, provider: Provider | None, newest: Sequence[sqlite3.Row], now: float
) -> ProviderView:
    attempts = [attempt for attempt in newest if attempt["provider"] == name]
    limit = provider.rate_limit if provider else None
    longest = provider.timeout_seconds if provider else _SECONDS
    # A call that is open for longer than any can take belongs to a run that died.
    in_flight = sum(one["outcome"] is None and now - one["sent_at"] <= longest + _SECONDS for one in attempts)
    paused = connection.execute("SELECT max(paused_until) FROM provider WHERE name = ?", (name,)).fetchone()[0]
    paid, expires_at = _downloads(connection, name)
    if paused is not None and paused > now:
        bottleneck = "paused"
    elif limit and _keeps_pace(attempts, limit, now):
        bottleneck = "limit"
    else:
        bottleneck = "downloads" if paid > in_flight else "provider" if in_flight else ""
    return ProviderView(
        name=name,
        per_minute=_per_minute(attempts, now),
        limit=limit.images / limit.per_seconds * 60 if limit else None,
        in_flight=in_flight,
        bottleneck=bottleneck,
        until=paused if bottleneck == "paused" else None,
        expires_at=expires_at,
    )


def _keeps_pace(attempts: Sequence[sqlite3.Row], limit: RateLimit, now: float) -> bool:
    """Say whether calls are sent as fast as the limit allows: in its window, or since the first of them."""
    sent = [
        (now - one["sent_at"], one["n"])
        for one in attempts
        if one["outcome"] != "not_sent" and now - one["sent_at"] < limit.window
    ]
    seconds = max((ago for ago, _ in sent), default=0.0)
    allowed = limit.images * seconds / limit.window
    return len(sent) >= _LEAST_CALLS and sum(images for _, images in sent) >= _AT_THE_LIMIT * allowed


def _downloads(connection: sqlite3.Connection, provider: str) -> tuple[int, float | None]:
    """Count the URLs that are paid and whose pictures are not here, and give the nearest death among them."""
    row = connection.execute(
        "SELECT count(*), min(i.expires_at) FROM image i JOIN job j ON j.pk = i.job"
        " WHERE i.state = 'paid' AND j.provider = ?",
        (provider,),
    ).fetchone()
    return row[0], row[1]


def _per_minute(attempts: Sequence[sqlite3.Row], now: float) -> float | None:
    """Give the images a minute that answers brought lately; None where nothing was asked lately."""
    answered = [one for one in attempts if one["outcome"] == "answered" and one["ended_at"] > now - _SECONDS]
    if not attempts:
        return None
    seconds = min(_SECONDS, max(1.0, now - min(one["sent_at"] for one in attempts)))  # less, where the run is young
    return float(sum(one["n"] for one in answered) / seconds * 60)

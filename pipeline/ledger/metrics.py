"""Reads the figures of `/metrics` from the ledger: they survive restarts, and are those of every run.

The attempts are read once for all figures of calls. Moments are seconds since 1970, money is US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.ledger.job_summary import read_job_summaries

if TYPE_CHECKING:
    import sqlite3

LATENCY_BUCKETS = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56),
    *(5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36),
)
"""Upper bounds in seconds: those that OpenTelemetry advises for calls of models, and three more for images."""

Values = dict[tuple[str, ...], float]
"""Values by the names of a job and of a provider, and for some by a third word."""


@dataclass(slots=True)
class Latency:
    """How long the calls of one place took: their number by bucket, those above the last one too, and the sum."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BUCKETS) + 1))
    seconds: float = 0.0


@dataclass(slots=True)
class Figures:
    """The figures of all jobs, by job and provider; `requests` also by status, `calls` by outcome, `failures` by kind.

    `expires_at` is when the first paid URL expires that is not downloaded yet.
    """

    places: dict[tuple[str, ...], None] = field(default_factory=dict)
    images: dict[tuple[str, ...], float] = field(default_factory=dict)
    calls: dict[tuple[str, ...], float] = field(default_factory=dict)
    failures: dict[tuple[str, ...], float] = field(default_factory=dict)
    cost_usd: dict[tuple[str, ...], float] = field(default_factory=dict)
    maybe_paid: dict[tuple[str, ...], float] = field(default_factory=dict)
    in_flight: dict[tuple[str, ...], float] = field(default_factory=dict)
    requests: dict[tuple[str, ...], float] = field(default_factory=dict)
    expires_at: dict[tuple[str, ...], float] = field(default_factory=dict)
    latency: dict[tuple[str, ...], Latency] = field(default_factory=dict)


_BUCKET = " ".join(f"WHEN seconds <= {bound} THEN {place}" for place, bound in enumerate(LATENCY_BUCKETS))
_ATTEMPTS = f"""
SELECT j.name, s.provider, outcome, is_call, kind, CASE WHEN seconds IS NULL THEN NULL {_BUCKET}
  ELSE {len(LATENCY_BUCKETS)} END AS bucket, count(*), total(cost_usd), total(seconds)
FROM (SELECT r.job, a.provider, a.outcome, a.batch IS NULL AS is_call, a.cost_usd,
    CASE WHEN a.error IS NOT NULL THEN coalesce(json_extract(a.error, '$.kind'), error_kind(a.error)) END AS kind,
    CASE WHEN a.outcome = 'answered' AND a.batch IS NULL THEN max(0.0, a.ended_at - a.sent_at) END AS seconds
  FROM attempt a JOIN request r ON r.pk = a.request) s JOIN job j ON j.pk = s.job
GROUP BY s.job, s.provider, outcome, is_call, kind, bucket
"""


def read_figures(connection: sqlite3.Connection, *, is_at_work: bool) -> Figures:
    """Return the figures of all jobs. If no run is at work, open attempts are of a dead one: none is in flight.

    The lines of batches are no calls; what they cost and how they failed counts.
    """
    found = Figures()
    for summary in read_job_summaries(connection):
        for provider in summary.serving:
            found.places[summary.name, provider] = None
        for status, number in summary.counts.items():
            found.requests[summary.name, summary.provider, status] = number
        found.maybe_paid[summary.name, summary.provider] = summary.maybe_paid
    for job, provider, outcome, is_call, kind, bucket, number, cost, seconds in connection.execute(_ATTEMPTS):
        place = (job, provider)
        found.places[place] = None
        _add(found.cost_usd, place, cost)
        if kind is not None:
            _add(found.failures, (*place, kind), number)
        if is_call and outcome is not None:
            _add(found.calls, (*place, outcome), number)
        elif is_call and is_at_work:
            _add(found.in_flight, place, number)
        if bucket is not None:
            latency = found.latency.setdefault(place, Latency())
            latency.buckets[bucket] += number
            latency.seconds += seconds
    _read_images(connection, found)
    return found


def _add(values: Values, key: tuple[str, ...], more: float) -> None:
    values[key] = values.get(key, 0) + more


def _read_images(connection: sqlite3.Connection, found: Figures) -> None:
    for state, job, provider, number, expires_at in connection.execute(
        "SELECT i.state, j.name, a.provider, count(*), min(i.expires_at)"
        " FROM image i JOIN attempt a ON a.pk = i.attempt JOIN job j ON j.pk = i.job"
        " WHERE i.state != 'lost' GROUP BY 1, 2, 3"
    ):
        if state == "stored":
            found.images[job, provider] = number
        else:
            found.expires_at[job, provider] = expires_at

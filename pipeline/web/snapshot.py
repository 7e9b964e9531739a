"""The ledger → all that the live page shows: jobs, what works on them and how fast, failures, the newest pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline.ledger.job_summary import read_job_summaries
from pipeline.reports.causes import find_causes

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from pipeline.config.load import Provider
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.ledger.lock import LockOwner

NEWEST = 24
"""Pictures that the page shows."""

_WINDOW = 2000  # newest rows among which pictures land: more than there are calls in flight
_RATE_SECONDS = 60.0  # over which images a minute are counted
_LONGEST_CALL = 900.0  # seconds before that in which a call may have been sent
_MOST_FAILURES = 2000  # of one job that are grouped by cause

_FAILURES = """
SELECT r.id, r.prompt, r.error FROM request r JOIN job j ON j.pk = r.job
WHERE j.name = ? AND r.stated = j.revision AND r.status IN ('failed', 'partial') ORDER BY r.position LIMIT ?
"""
_RATE = """
SELECT count(*) FROM attempt a JOIN image i ON i.request = a.request AND i.attempt = a.pk
WHERE a.provider = ? AND a.sent_at > ? AND a.ended_at > ? AND i.state = 'stored'
"""
_PICTURES = """
SELECT i.pk, j.name AS job, r.id, r.prompt FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = i.job
WHERE i.pk IN (SELECT value FROM json_each(?)) ORDER BY i.pk
"""


def read_snapshot(
    connection: sqlite3.Connection, providers: Mapping[str, Provider], owner: LockOwner | None, now: float
) -> dict[str, Any]:
    """Give the standing of all jobs and what works on them, as plain values for JSON."""
    summaries = read_job_summaries(connection)
    return {
        "jobs": [_job(connection, summary) for summary in summaries],
        "run": None if owner is None else {"who": owner.who, "since": owner.started_at},
        "providers": [
            _provider(connection, name, providers.get(name), summaries, owner, now)
            for name in dict.fromkeys(summary.provider for summary in summaries)
        ],
    }


def _job(connection: sqlite3.Connection, summary: JobSummary) -> dict[str, Any]:
    counts = summary.counts
    return {
        "name": summary.name,
        "provider": summary.provider,
        "rehearsal": summary.rehearsal,
        "counts": dict(counts),
        "images": summary.images,
        "missing": summary.missing,
        "cost_usd": summary.cost_usd,
        "expected_usd": summary.expected_usd,
        "maybe_paid": summary.maybe_paid,
        "can_resume": counts["failed"] + counts["partial"] + counts["cancelled"],
        "can_cancel": counts["pending"],
        "causes": _causes(connection, summary.name) if summary.unsuccessful else [],
    }


def _causes(connection: sqlite3.Connection, name: str) -> list[dict[str, Any]]:
    rows = connection.execute(_FAILURES, (name, _MOST_FAILURES)).fetchall()
    errors = ((place, None if row["error"] is None else json.loads(row["error"])) for place, row in enumerate(rows))
    return [
        {
            "title": cause.title,
            "message": cause.message,
            "advice": cause.advice,
            "count": len(cause.requests),
            "example": rows[cause.requests[0]]["prompt"] or rows[cause.requests[0]]["id"],
        }
        for cause in find_causes(errors)
    ]


def _provider(
    connection: sqlite3.Connection,
    name: str,
    provider: Provider | None,
    summaries: Iterable[JobSummary],
    owner: LockOwner | None,
    now: float,
) -> dict[str, Any]:
    span = _RATE_SECONDS if owner is None else min(_RATE_SECONDS, max(1.0, now - owner.started_at))
    since = now - span
    (landed,) = connection.execute(_RATE, (name, since - _LONGEST_CALL, since)).fetchone()
    (flying,) = connection.execute(
        "SELECT count(*) FROM attempt WHERE outcome IS NULL AND provider = ?", (name,)
    ).fetchone()
    paused = connection.execute("SELECT paused_until FROM provider WHERE name = ?", (name,)).fetchone()
    limit = None if provider is None else provider.rate_limit
    return {
        "name": name,
        "per_minute": landed * 60 / span,
        "limit_per_minute": None if limit is None else limit.images / limit.per_seconds * 60,
        "in_flight": 0 if owner is None else flying,
        "missing": sum(summary.missing for summary in summaries if summary.provider == name),
        "paused_until": paused[0] if paused is not None and paused[0] > now else None,
    }


def landed(connection: sqlite3.Connection) -> list[int]:
    """Name the newest pictures that are on disk, the oldest first. A row is older than its file: it waits for it."""
    rows = connection.execute(
        "SELECT pk FROM image WHERE state = 'stored' AND pk > (SELECT max(pk) FROM image) - ? ORDER BY pk", (_WINDOW,)
    )
    return [pk for (pk,) in rows]


def pictures(connection: sqlite3.Connection, pks: Iterable[int]) -> list[dict[str, Any]]:
    """Give what the page shows of these pictures."""
    return [dict(row) for row in connection.execute(_PICTURES, (json.dumps(list(pks)),))]

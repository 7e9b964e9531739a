"""Reads why requests failed, which calls were lost, and which files submit the jobs again, as frozen values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.ledger.error_kind import INTERRUPTED

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class RecordedFailure:
    """Requests of one job that failed or came back partial with the same error; `id` and `prompt` are of the first."""

    job: str
    file: str | None  # the job file, None for a job made in Python
    provider: str
    error: Mapping[str, Any] | None
    count: int
    id: str
    prompt: str | None
    quarantined: str | None  # the newest file that came instead of an image of one of them


def read_failures(connection: sqlite3.Connection, jobs: Collection[str]) -> list[RecordedFailure]:
    """Return the failures of these jobs, job by job in their order, the first in the job file first."""
    # With min(), SQLite takes the other columns from the row that has it: the first request of the job file.
    rows = connection.execute(
        "SELECT j.name, j.file, j.provider, r.error, count(*), r.id, r.prompt,"
        " (SELECT q.file FROM quarantine q JOIN request o ON o.pk = q.request WHERE o.job = j.pk AND o.error IS r.error"
        "  ORDER BY q.pk DESC LIMIT 1), min(r.position)"
        " FROM request r JOIN job j ON j.pk = r.job WHERE r.stated = j.revision AND r.status IN ('failed', 'partial')"
        " AND j.name IN (SELECT value FROM json_each(?)) GROUP BY j.pk, r.error ORDER BY j.pk, min(r.position)",
        (json.dumps(list(jobs)),),
    )
    return [
        RecordedFailure(
            name, file, provider, None if error is None else json.loads(error), count, id_, prompt, quarantined
        )
        for name, file, provider, error, count, id_, prompt, quarantined, _ in rows
    ]


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call whose response was lost, after how many seconds, and what it cost at most if it is paid."""

    http_status: int | None
    error_type: str | None
    seconds: float
    estimate_usd: float | None


def read_lost_calls(connection: sqlite3.Connection, job: str) -> list[LostCall]:
    """Return the calls of a job that ended as OutcomeUnknown, the shortest first.

    No line of a batch is cut in time, and no call that the death of a run cut off.
    """
    rows = connection.execute(
        "SELECT a.http_status, json_extract(a.error, '$.type'), a.ended_at - a.sent_at AS seconds, a.estimate_usd"
        " FROM attempt a JOIN request r ON r.pk = a.request JOIN job j ON j.pk = r.job WHERE j.name = ?"
        " AND a.outcome = 'unknown' AND a.batch IS NULL"
        " AND json_extract(a.error, '$.kind') = 'OutcomeUnknown' AND json_extract(a.error, '$.type') IS NOT ?"
        " ORDER BY seconds",
        (job, INTERRUPTED),
    )
    return [LostCall(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class JobFile:
    """Which file submits a job again, None for a job made in Python, and for which provider."""

    job: str
    file: str | None
    provider: str


def read_job_files(connection: sqlite3.Connection, jobs: Collection[str]) -> list[JobFile]:
    """Return the files of these jobs, the oldest job first."""
    rows = connection.execute(
        "SELECT name, file, provider FROM job WHERE name IN (SELECT value FROM json_each(?)) ORDER BY pk",
        (json.dumps(list(jobs)),),
    )
    return [JobFile(*row) for row in rows]

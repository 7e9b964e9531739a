"""Reads what became of single requests: their attempts, which ids there are, and what failed, as frozen values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml_document
from pipeline.errors import BadInput

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping

_MOST_IDS = 10_000  # that a misspelt one is compared with


@dataclass(frozen=True, slots=True)
class RecordedAttempt:
    """One call for a request, or the line of a batch. Moments are seconds since 1970; `outcome` is None in flight."""

    error: Mapping[str, Any] | None
    provider: str
    n: int
    sent_at: float
    ended_at: float | None
    outcome: str | None
    http_status: int | None
    cost_usd: float | None
    request_id: str | None
    batch_id: str | None
    key: str | None  # the idempotency key of its purchase; a line of a batch has none


def read_attempts(connection: sqlite3.Connection, request_pk: int) -> list[RecordedAttempt]:
    """Return the attempts of a request, the oldest first."""
    rows = connection.execute(
        "SELECT a.provider, a.n, a.sent_at, a.ended_at, a.outcome, a.http_status, a.cost_usd, a.request_id, b.id,"
        " a.idempotency_key, a.error FROM attempt a LEFT JOIN batch b ON b.pk = a.batch"
        " WHERE a.request = ? ORDER BY a.pk",
        (request_pk,),
    )
    return [RecordedAttempt(_parsed(error), *plain) for *plain, error in rows]


def _parsed(error: str | None) -> Mapping[str, Any] | None:
    return None if error is None else json.loads(error)


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request that failed or came back partial."""

    error: Mapping[str, Any] | None
    job: str
    id: str
    status: str
    received: int
    n: int
    attempts: int


def read_failed_requests(connection: sqlite3.Connection, jobs: Collection[str] | None) -> list[FailedRequest]:
    """Return what failed or came back partial of these jobs, or of all, in the order of the job files."""
    rows = connection.execute(
        "SELECT j.name, r.id, r.status, r.received, r.n, r.attempts, r.error FROM request r JOIN job j ON j.pk = r.job"
        " WHERE r.stated = j.revision AND r.status IN ('failed', 'partial')"
        " AND (?1 IS NULL OR j.name IN (SELECT value FROM json_each(?1))) ORDER BY j.pk, r.position",
        (None if jobs is None else json.dumps(list(jobs)),),
    )
    return [FailedRequest(_parsed(error), *plain) for *plain, error in rows]


def check_ids(connection: sqlite3.Connection, jobs: Collection[str] | None, ids: Iterable[str]) -> None:
    """Check that each id is one of a request of these jobs, or of all. Raises BadInput with the closest ones."""
    names = None if jobs is None else json.dumps(list(jobs))
    known = (
        "FROM request r JOIN job j ON j.pk = r.job WHERE (?1 IS NULL OR j.name IN (SELECT value FROM json_each(?1)))"
    )
    for request_id in ids:
        if connection.execute(f"SELECT 1 {known} AND r.id = ?2 COLLATE NOCASE LIMIT 1", (names, request_id)).fetchone():
            continue
        found = connection.execute(f"SELECT DISTINCT r.id {known} LIMIT {_MOST_IDS}", (names,))
        near = yaml_document.nearest(request_id, [row[0] for row in found])
        where = f" in {' and '.join(f'`{name}`' for name in jobs)}" if jobs else ""
        hint = f"did you mean `{near}`?" if near else "the manifest lists the ids of a job"
        raise BadInput(f"there is no request `{request_id}`{where}; {hint}")

"""Reads the batches of jobs as people see them: each one, those that are out, and what is in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class RecordedBatch:
    """One batch as the service last reported it. `id` is None while it is being sent; moments are since 1970."""

    id: str | None
    provider: str
    model: str | None
    status: str
    requests: int
    completed: int
    failed: int
    sent_at: float | None
    expires_at: float | None
    ended_at: float | None

    @property
    def is_living(self) -> bool:
        """Whether it is not over: it is not sent yet, at the service, or not collected."""
        return self.ended_at is None


def read_batches(connection: sqlite3.Connection, job_pk: int) -> tuple[RecordedBatch, ...]:
    """Return the batches of a job in their order, the ended ones too, but none that was never sent."""
    rows = connection.execute(
        "SELECT id, provider, model, coalesce(status, 'sending'), requests, completed, failed, sent_at, expires_at,"
        " ended_at FROM batch WHERE job = ? AND (ended_at IS NULL OR id IS NOT NULL) ORDER BY pk",
        (job_pk,),
    )
    return tuple(RecordedBatch(*row) for row in rows)


@dataclass(frozen=True, slots=True)
class BatchesOut:
    """Living batches added up: their lines, those that are made and have failed, and the moments that bound them."""

    batches: int = 0
    requests: int = 0
    completed: int = 0
    failed: int = 0
    sent_at: float | None = None  # the first of them
    expires_at: float | None = None  # the last of them

    @classmethod
    def of(cls, batches: Iterable[RecordedBatch]) -> BatchesOut:
        """Add up those of these batches that are out."""
        living = [batch for batch in batches if batch.is_living]
        return cls(
            batches=len(living),
            requests=sum(batch.requests for batch in living),
            completed=sum(batch.completed for batch in living),
            failed=sum(batch.failed for batch in living),
            sent_at=min((batch.sent_at for batch in living if batch.sent_at is not None), default=None),
            expires_at=max((batch.expires_at for batch in living if batch.expires_at is not None), default=None),
        )


@dataclass(frozen=True, slots=True)
class InBatches:
    """What the living batches of a job hold of its current requests."""

    requests: int = 0
    images: int = 0


def read_in_batches(connection: sqlite3.Connection, job_pk: int) -> InBatches:
    """Return what is in the living batches of a job: lines without a result, of requests that are not superseded."""
    row = connection.execute(
        "SELECT count(DISTINCT r.pk), total(a.n)"
        " FROM batch b JOIN job j ON j.pk = b.job JOIN attempt a ON a.batch = b.pk AND a.outcome IS NULL"
        " JOIN request r ON r.pk = a.request AND r.status = 'running' AND r.stated = j.revision"
        " WHERE b.job = ? AND b.ended_at IS NULL",
        (job_pk,),
    ).fetchone()
    return InBatches(row[0], int(row[1]))


def read_batch_cost(connection: sqlite3.Connection, job: str) -> float | None:
    """Return what the lines of a job's batches have cost in US dollars; None if no cost is known."""
    row = connection.execute(
        "SELECT sum(a.cost_usd) FROM batch b JOIN attempt a ON a.batch = b.pk"
        " WHERE b.job = (SELECT pk FROM job WHERE name = ?)",
        (job,),
    ).fetchone()
    return None if row[0] is None else float(row[0])

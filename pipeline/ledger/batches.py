"""Batches: what is written down before a batch is sent, as it moves, and when it has ended.

Functions run inside a transaction of the caller, such as `Writer.do`. A batch is a row with a token before anything of
it is sent; each of its lines is an attempt, which is open until the batch is collected.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.ledger.queue import IN_SCOPE, Block, free_stem, scope_values
from pipeline.ledger.uploaded_files import input_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from pipeline.ledger.queue import Scope


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch, as the ledger has it. Times are in seconds since 1970; `id` and `status` are the service's."""

    pk: int
    job_pk: int
    job_name: str
    provider: str
    served_by: str
    model: str | None
    token: str
    requests: int
    tokens: int
    input_file_id: str | None
    create_sent_at: float | None
    looks: int
    id: str | None
    status: str | None
    is_valid: bool
    sent_at: float | None
    expires_at: float | None
    cancelled_at: float | None
    has_ended: bool

    @property
    def group(self) -> Block:
        """The requests that may share a batch with those of this one."""
        return Block(self.provider, self.job_pk, self.model, self.served_by)

    @property
    def input_name(self) -> str:
        """The unique name of its input file."""
        return input_name(self.token)


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A job that goes by batch, or whose batches are to be cancelled. Times are in seconds since 1970."""

    pk: int
    name: str
    provider: str
    mode: str
    deadline: float | None
    realtime_since: float | None
    cancel_since: float | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A line of a batch before it is recorded: images of a request, its input tokens, and its highest cost."""

    request_pk: int
    images: int
    tokens: int
    estimate_usd: float | None = None


def begin_batch(
    connection: sqlite3.Connection,
    group: Block,
    token: str,
    drafts: Sequence[Draft],
    endpoint: str,
    now: float,
) -> tuple[BatchRow, list[int | None]] | None:
    """Record a batch and its lines before anything of it is sent; return it with the primary keys of its attempts.

    A key is None if its request is no longer to be processed; the whole is None if none of them is, or if the job no
    longer goes by batch: `cancel` and `submit` work beside a run.
    """
    if not _goes_by_batch(connection, group):
        return None
    wanted: dict[int, int] = {}
    for draft in drafts:
        wanted[draft.request_pk] = wanted.get(draft.request_pk, 0) + draft.images
    stems = {pk: _stem(connection, pk, images) for pk, images in wanted.items()}
    kept = [draft for draft in drafts if stems[draft.request_pk] is not None]
    if not kept:
        return None
    row = connection.execute(
        "INSERT INTO batch (job, provider, served_by, model, token, requests, tokens, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING pk",
        (
            group.job_pk,
            group.provider,
            group.served_by,
            group.model,
            token,
            len(kept),
            sum(draft.tokens for draft in kept),
            now,
        ),
    ).fetchone()
    for pk, stem in stems.items():
        if stem is not None:
            connection.execute(
                "UPDATE request SET status = 'running', stem = ?, endpoint = ?, finished_at = NULL WHERE pk = ?",
                (stem, endpoint, pk),
            )
    attempts = [
        None if stems[draft.request_pk] is None else _begin_line(connection, group, draft, row[0], now)
        for draft in drafts
    ]
    return read_batch(connection, row[0]), attempts


def _stem(connection: sqlite3.Connection, request_pk: int, images: int) -> str | None:
    """Return the stem of a pending request's file names; None if it may not be sent, or a worker has taken it."""
    row = connection.execute("SELECT status FROM request WHERE pk = ?", (request_pk,)).fetchone()
    return free_stem(connection, request_pk, images) if row["status"] == "pending" else None


def _goes_by_batch(connection: sqlite3.Connection, group: Block) -> bool:
    row = connection.execute(
        "SELECT mode != 'realtime' AND realtime_since IS NULL AND cancel_since IS NULL FROM job WHERE pk = ?",
        (group.job_pk,),
    ).fetchone()
    return bool(row and row[0])


def _begin_line(connection: sqlite3.Connection, group: Block, draft: Draft, batch_pk: int, now: float) -> int:
    row = connection.execute(
        "INSERT INTO attempt (request, provider, n, estimate_usd, sent_at, batch) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING pk",
        (draft.request_pk, group.provider, draft.images, draft.estimate_usd, now, batch_pk),
    ).fetchone()
    return int(row[0])


_BATCH = (
    "SELECT b.pk, b.job AS job_pk, j.name AS job_name, b.provider, b.served_by, b.model, b.token, b.requests, b.tokens,"
    " b.input_file_id, b.create_sent_at, b.looks, b.id, b.status, b.is_valid, b.sent_at, b.expires_at, b.cancelled_at,"
    " b.ended_at IS NOT NULL AS has_ended"
    " FROM batch b JOIN job j ON j.pk = b.job"
)


def read_batch(connection: sqlite3.Connection, batch_pk: int) -> BatchRow:
    """Read a batch by its primary key."""
    return _row(connection.execute(f"{_BATCH} WHERE b.pk = ?", (batch_pk,)).fetchone())


def living_batches(connection: sqlite3.Connection, scope: Scope, provider: str | None = None) -> list[BatchRow]:
    """Return the batches of a scope that have not ended, the oldest first: those of a provider, or of all."""
    rows = connection.execute(
        f"{_BATCH} WHERE b.ended_at IS NULL AND (?1 IS NULL OR b.provider = ?1) AND {IN_SCOPE} ORDER BY b.pk",
        (provider, *scope_values(scope)),
    )
    return [_row(row) for row in rows]


def living_tokens(connection: sqlite3.Connection, provider: str, model: str | None) -> int:
    """Return the estimated input tokens of a model's living batches, whoever's job they belong to."""
    row = connection.execute(
        "SELECT total(tokens) FROM batch WHERE ended_at IS NULL AND provider = ? AND model IS ?", (provider, model)
    ).fetchone()
    return int(row[0])


def _row(row: sqlite3.Row) -> BatchRow:
    values: dict[str, Any] = {**dict(row), **{name: bool(row[name]) for name in ("is_valid", "has_ended")}}
    return BatchRow(**values)


def has_batch_work(connection: sqlite3.Connection) -> bool:
    """Return whether any job goes by batch, or any batch is living."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM job WHERE mode != 'realtime' OR cancel_since IS NOT NULL)"
        " OR EXISTS (SELECT 1 FROM batch WHERE ended_at IS NULL)"
    ).fetchone()
    return bool(row[0])


_JOB = "SELECT pk, name, provider, mode, deadline, realtime_since, cancel_since FROM job j"


def batch_jobs(connection: sqlite3.Connection, scope: Scope) -> list[BatchJob]:
    """Return the jobs of a scope that go by batch, or whose batches are to be cancelled."""
    rows = connection.execute(
        f"{_JOB} WHERE (mode != 'realtime' OR cancel_since IS NOT NULL) AND {IN_SCOPE}"
        " ORDER BY priority DESC, submitted_at, pk",
        (None, *scope_values(scope)),
    )
    return [BatchJob(*row) for row in rows]


def unfinished_images(connection: sqlite3.Connection, job_pks: Collection[int]) -> dict[int, int]:
    """Count the images that are still to be made, those in batches included, by job; a job without any is left out."""
    rows = connection.execute(
        "SELECT j.pk, sum(r.n - r.received - r.moderated) AS images FROM request r JOIN job j ON j.pk = r.job"
        " WHERE j.pk IN (SELECT value FROM json_each(?)) AND r.stated = j.revision"
        " AND r.status IN ('pending', 'running') GROUP BY j.pk HAVING images > 0",
        (json.dumps(list(job_pks)),),
    )
    return dict(rows.fetchall())


def record_realtime(connection: sqlite3.Connection, job_pk: int, now: float) -> BatchJob:
    """Record that the deadline of a job is near: what no batch has brought is made in realtime; return the job."""
    connection.execute("UPDATE job SET realtime_since = ? WHERE pk = ? AND realtime_since IS NULL", (now, job_pk))
    return BatchJob(*connection.execute(f"{_JOB} WHERE pk = ?", (job_pk,)).fetchone())


def request_cancel(connection: sqlite3.Connection, name: str, now: float) -> int:
    """Record that the living batches of a job are to be cancelled; return their number."""
    count = connection.execute(
        "SELECT count(*) FROM batch b JOIN job j ON j.pk = b.job WHERE j.name = ? AND b.ended_at IS NULL", (name,)
    ).fetchone()[0]
    if count:
        connection.execute("UPDATE job SET cancel_since = coalesce(cancel_since, ?) WHERE name = ?", (now, name))
    return int(count)


def end_cancelling(connection: sqlite3.Connection, job_pk: int) -> None:
    """Forget the wish to cancel a job once none of its batches is living."""
    connection.execute(
        "UPDATE job SET cancel_since = NULL WHERE pk = ?1"
        " AND NOT EXISTS (SELECT 1 FROM batch WHERE job = ?1 AND ended_at IS NULL)",
        (job_pk,),
    )


def record_input_file(connection: sqlite3.Connection, batch_pk: int, file_id: str) -> None:
    """Record the service's id of a batch's input file."""
    connection.execute("UPDATE batch SET input_file_id = ?, input_sent_at = NULL WHERE pk = ?", (file_id, batch_pk))


def record_create(connection: sqlite3.Connection, batch_pk: int, now: float) -> None:
    """Record, before it is sent, the call that creates a batch."""
    connection.execute("UPDATE batch SET create_sent_at = ?, looks = 0 WHERE pk = ?", (now, batch_pk))


def record_time_of_create(connection: sqlite3.Connection, batch_pk: int, now: float) -> None:
    """Record anew when a batch was created at the latest."""
    connection.execute("UPDATE batch SET create_sent_at = ? WHERE pk = ?", (now, batch_pk))


def record_not_created(connection: sqlite3.Connection, batch_pk: int) -> None:
    """Record that the service has refused to create a batch."""
    connection.execute("UPDATE batch SET create_sent_at = NULL, looks = 0 WHERE pk = ?", (batch_pk,))


def record_look(connection: sqlite3.Connection, batch_pk: int) -> None:
    """Record that a batch whose creation is unknown was not in the service's list."""
    connection.execute("UPDATE batch SET looks = looks + 1 WHERE pk = ?", (batch_pk,))


def record_created(
    connection: sqlite3.Connection, batch_pk: int, batch_id: str, sent_at: float, expires_at: float
) -> None:
    """Record the id that the service has given to a batch."""
    connection.execute(
        "UPDATE batch SET id = ?, sent_at = ?, expires_at = ? WHERE pk = ?", (batch_id, sent_at, expires_at, batch_pk)
    )


def record_progress(
    connection: sqlite3.Connection, batch_pk: int, status: str, completed: int, failed: int, *, is_valid: bool
) -> None:
    """Record what the service says of a batch. Once it has passed validation, its lines count as attempts."""
    is_new = connection.execute(
        "UPDATE batch SET is_valid = 1 WHERE pk = ? AND NOT is_valid AND ?", (batch_pk, is_valid)
    ).rowcount
    if is_new:
        connection.execute(
            "UPDATE request SET attempts = attempts + (SELECT count(*) FROM attempt WHERE request = request.pk"
            " AND batch = ?1) WHERE pk IN (SELECT request FROM attempt WHERE batch = ?1)",
            (batch_pk,),
        )
    connection.execute(
        "UPDATE batch SET status = ?, completed = ?, failed = ? WHERE pk = ?", (status, completed, failed, batch_pk)
    )


def record_cancelled(connection: sqlite3.Connection, batch_pk: int, now: float) -> None:
    """Record that the service has been asked to cancel a batch."""
    connection.execute("UPDATE batch SET cancelled_at = ? WHERE pk = ?", (now, batch_pk))


def end_batch(connection: sqlite3.Connection, batch_pk: int, now: float) -> None:
    """Record that all of a batch is recorded."""
    connection.execute("UPDATE batch SET ended_at = ? WHERE pk = ?", (now, batch_pk))

"""Lines of batches: attempts that are open until their batch is collected, and what becomes of their requests.

Functions run inside a transaction of the caller, such as `Writer.do`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger import attempts, batches
from pipeline.ledger.error_kind import error_json
from pipeline.ledger.queue import read_queued

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from pipeline.errors import AttemptOutcome, RequestError
    from pipeline.ledger.attempts import Ending
    from pipeline.ledger.queue import QueuedRequest


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a batch that is out: its attempt and its request as the ledger has it now."""

    attempt_pk: int
    stem: str
    images: int
    estimate_usd: float | None
    request: QueuedRequest


def read_line(connection: sqlite3.Connection, batch_pk: int, attempt_pk: int) -> Line | None:
    """Return an open line of a batch; None if it has been recorded already, or is not a line of this batch."""
    row = connection.execute(
        "SELECT a.request, a.provider, a.n, a.estimate_usd, r.stem, r.id"
        " FROM attempt a JOIN request r ON r.pk = a.request WHERE a.pk = ? AND a.batch = ? AND a.outcome IS NULL",
        (attempt_pk, batch_pk),
    ).fetchone()
    if row is None:
        return None
    (request,) = read_queued(connection, [row["request"]], row["provider"])
    return Line(attempt_pk, row["stem"] or row["id"], row["n"], row["estimate_usd"], request)


def requests_of(connection: sqlite3.Connection, batch_pk: int) -> list[QueuedRequest]:
    """Return the requests of a batch, each once."""
    rows = connection.execute("SELECT DISTINCT request, provider FROM attempt WHERE batch = ?", (batch_pk,)).fetchall()
    return read_queued(connection, [row["request"] for row in rows], rows[0]["provider"] if rows else None)


def request_at(connection: sqlite3.Connection, batch_pk: int, number: int) -> QueuedRequest | None:
    """Return the request of a line of a living batch's input file, the first has the number 1; None without one."""
    query = "SELECT request, provider FROM attempt WHERE batch = ? AND outcome IS NULL ORDER BY pk LIMIT 1 OFFSET ?"
    row = connection.execute(query, (batch_pk, max(0, number - 1))).fetchone()
    return None if row is None or number < 1 else read_queued(connection, [row[0]], row[1])[0]


def count_images(connection: sqlite3.Connection, batch_pk: int) -> int:
    """Count the images that the lines of a batch ask for."""
    row = connection.execute("SELECT total(n) FROM attempt WHERE batch = ?", (batch_pk,)).fetchone()
    return int(row[0])


def most_images(connection: sqlite3.Connection, batch_pk: int) -> int:
    """Return the most images that a line of a batch asks for."""
    row = connection.execute("SELECT max(n) FROM attempt WHERE batch = ?", (batch_pk,)).fetchone()
    return int(row[0] or 1)


def open_lines(connection: sqlite3.Connection, batch_pk: int) -> list[int]:
    """Return the primary keys of the attempts of a batch that have no outcome yet, in their order."""
    query = "SELECT pk FROM attempt WHERE batch = ? AND outcome IS NULL ORDER BY pk"
    return [row[0] for row in connection.execute(query, (batch_pk,))]


def tries_in_batches(connection: sqlite3.Connection, request_pk: int, outcome: AttemptOutcome) -> int:
    """Count the lines of a request that were run and ended so since it was last made, without those of a rate limit."""
    row = connection.execute(
        "SELECT count(*) FROM attempt WHERE request = ?1 AND batch IS NOT NULL AND outcome = ?2"
        " AND http_status IS NOT 429"
        ' AND error NOT LIKE \'%"code": "batch_%\''
        " AND pk > coalesce((SELECT max(pk) FROM attempt WHERE request = ?1 AND outcome = 'answered'), 0)",
        (request_pk, outcome),
    ).fetchone()
    return int(row[0])


def record_lines(
    connection: sqlite3.Connection,
    attempt_pks: Iterable[int],
    outcome: AttemptOutcome,
    error: RequestError,
    now: float,
    *,
    is_release: bool,
) -> list[float | None]:
    """Record the end of lines that brought nothing; an unknown one may be paid. Return the estimates of their costs.

    With `is_release`, their requests are released; one of which nothing was run has no error by that.
    """
    text, estimates = error_json(error), []
    for pk in attempt_pks:
        row = connection.execute(
            "UPDATE attempt SET outcome = ?, ended_at = ?, error = ?, http_status = ? WHERE pk = ? AND outcome IS NULL"
            " RETURNING request, estimate_usd",
            (outcome, now, text, error.http_status, pk),
        ).fetchone()
        if row is None:
            continue
        connection.execute(
            "UPDATE request SET maybe_paid = maybe_paid + ?1, error = CASE WHEN ?2 THEN error ELSE ?3 END"
            " WHERE pk = ?4",
            (outcome == "unknown", is_release and outcome != "unknown", text, row["request"]),
        )
        if is_release:
            release(connection, row["request"], now)
        estimates.append(row["estimate_usd"])
    return estimates


def release(connection: sqlite3.Connection, request_pk: int, now: float) -> None:
    """Return a running request to the queue, unless another line of it is out; a cancelled job's is cancelled."""
    if _is_out(connection, request_pk):
        return
    connection.execute(
        "UPDATE request SET (status, finished_at) = (SELECT CASE WHEN j.cancel_since IS NULL THEN 'pending'"
        " ELSE 'cancelled' END, CASE WHEN j.cancel_since IS NULL THEN NULL ELSE ?2 END FROM job j"
        " WHERE j.pk = request.job) WHERE pk = ?1 AND status = 'running'",
        (request_pk, now),
    )


def finish_line(
    connection: sqlite3.Connection, request_pk: int, error: RequestError | None, now: float
) -> tuple[Ending, RequestError | None]:
    """Record how the request of a recorded line ended, and return it; pending while another line of it is out."""
    if _is_out(connection, request_pk):
        return "pending", None
    ending, error = attempts.finish(connection, request_pk, error, now)
    if ending == "pending":
        connection.execute("UPDATE request SET status = 'running' WHERE pk = ? AND status = 'pending'", (request_pk,))
        release(connection, request_pk, now)
    return ending, error


def _is_out(connection: sqlite3.Connection, request_pk: int) -> bool:
    query = "SELECT EXISTS (SELECT 1 FROM attempt WHERE request = ? AND outcome IS NULL)"
    return bool(connection.execute(query, (request_pk,)).fetchone()[0])


def fail_unsent(
    connection: sqlite3.Connection, batch_pk: int, attempt_pk: int, error: RequestError, now: float
) -> tuple[float, Ending]:
    """Record a line that cannot be sent, and that its request has failed.

    Return the estimate of the line's cost, and how the request ended; pending while another line of it is open.
    """
    row = connection.execute(
        "UPDATE attempt SET outcome = 'not_sent', ended_at = ?, error = ? WHERE pk = ? RETURNING request, estimate_usd",
        (now, error_json(error), attempt_pk),
    ).fetchone()
    connection.execute("UPDATE batch SET requests = requests - 1 WHERE pk = ?", (batch_pk,))
    return row["estimate_usd"] or 0.0, finish_line(connection, row["request"], error, now)[0]


def broken_tries(connection: sqlite3.Connection, request_pk: int) -> int:
    """Count the responses that brought an image of a request which is not valid."""
    query = "SELECT count(DISTINCT attempt) FROM image WHERE request = ? AND state = 'lost'"
    return int(connection.execute(query, (request_pk,)).fetchone()[0])


def withdraw(connection: sqlite3.Connection, batch_pk: int, now: float) -> float:
    """End a batch of which nothing was run: its lines were not sent, and do not count as attempts.

    Return the estimate of what they would have cost.
    """
    rows = connection.execute(
        "UPDATE attempt SET outcome = 'not_sent', ended_at = ? WHERE batch = ? AND outcome IS NULL"
        " RETURNING request, estimate_usd",
        (now, batch_pk),
    ).fetchall()
    for pk in dict.fromkeys(row[0] for row in rows):
        release(connection, pk, now)
    batches.end_batch(connection, batch_pk, now)
    return sum(row[1] or 0.0 for row in rows)


def withdraw_unsent(connection: sqlite3.Connection, now: float) -> None:
    """End the batches of a process that died before it sent the calls that create them."""
    rows = connection.execute(
        "SELECT pk FROM batch WHERE ended_at IS NULL AND id IS NULL AND create_sent_at IS NULL"
    ).fetchall()
    for row in rows:
        withdraw(connection, row[0], now)

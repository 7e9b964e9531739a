"""Purchases: which idempotency key a call carries, and which calls of unknown outcome a replayed response settles.

A purchase is all calls with one key. A server that honours keys charges it once, and answers each further call of it
with the first response again. Functions that take a connection run inside a transaction of the caller (`Writer.do`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ledger import attempts
from pipeline.ledger.route_queue import take_home

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from pipeline.errors import AttemptOutcome, RequestError
    from pipeline.ledger.attempts import BegunCall, ImageUrl, ResponseRecord
    from pipeline.ledger.queue import PaidUrl, QueuedRequest
    from pipeline.storage import StoredImage


def begin(
    connection: sqlite3.Connection,
    request_pk: int,
    provider: str,
    endpoint: str,
    n: int,
    estimate_usd: float | None,
    now: float,
    body: str,
    home: tuple[Sequence[str], Sequence[str]] | None,
) -> BegunCall | None:
    """Record a call as `attempts.begin` does, unless its request has its home at another member of its route.

    `home` are the last arguments of `take_home`, None if the request has none.
    """
    if home is not None and not take_home(connection, request_pk, provider, *home):
        return None
    return attempts.begin(connection, request_pk, provider, endpoint, n, estimate_usd, now, body)


def headers(begun: BegunCall) -> dict[str, str]:
    """Return the headers by which a server knows the purchase of a call, and its logs this attempt of it."""
    key = begun.idempotency_key
    return {"Idempotency-Key": key, "X-Client-Request-Id": f"{key}-{begun.number}"}


def record_response(
    connection: sqlite3.Connection,
    request: QueuedRequest,
    attempt_pk: int,
    response: ResponseRecord,
    urls: Sequence[ImageUrl],
    images: Sequence[StoredImage],
    *,
    is_replay: bool,
    withheld: int = 0,
) -> tuple[list[PaidUrl], bool, float]:
    """Record a response as `attempts.record_response` does, and what it settles if it is a replay.

    `withheld` counts the images that the content policy kept back, also those that another provider is asked for.
    Return in addition the estimates of the calls that are settled by that, in US dollars.
    """
    paid, succeeded = attempts.record_response(connection, request, attempt_pk, response, urls, images)
    if withheld:
        connection.execute("UPDATE attempt SET withheld = ? WHERE pk = ?", (withheld, attempt_pk))
    return paid, succeeded, _settle_replay(connection, attempt_pk) if is_replay else 0.0


def record_failure(
    connection: sqlite3.Connection,
    attempt_pk: int,
    error: RequestError,
    outcome: AttemptOutcome,
    sent_at: float | None,
    now: float,
) -> float:
    """Record a failed attempt as `attempts.record_failure` does, and what it settles if its response is a replay.

    Return the estimates of the calls that are settled by that, in US dollars.
    """
    attempts.record_failure(connection, attempt_pk, error, outcome, sent_at, now)
    return _settle_replay(connection, attempt_pk) if error.is_replay else 0.0


def _settle_replay(connection: sqlite3.Connection, attempt_pk: int) -> float:
    """Record that a response was a replay: the earlier calls of the purchase cost nothing beside it.

    That holds for those that `pipeline reconcile` has found charged, too: it was for this purchase.
    """
    connection.execute("UPDATE attempt SET is_replay = 1 WHERE pk = ?", (attempt_pk,))
    earlier = connection.execute(
        "SELECT a.pk, a.settled IS NULL AS is_open, a.cost_usd, a.estimate_usd FROM attempt a JOIN attempt last"
        " ON a.request = last.request AND a.idempotency_key = last.idempotency_key AND a.pk < last.pk"
        " WHERE last.pk = ? AND a.outcome = 'unknown' AND (a.settled IS NULL OR a.settled = 'charged')",
        (attempt_pk,),
    ).fetchall()
    connection.executemany(
        "UPDATE attempt SET settled = 'replayed', cost_usd = 0.0 WHERE pk = ?", [(call["pk"],) for call in earlier]
    )
    charged = sum(call["cost_usd"] or 0.0 for call in earlier)
    connection.execute(
        "UPDATE request SET maybe_paid = maybe_paid - ?, cost_usd = cost_usd - ?"
        " WHERE pk = (SELECT request FROM attempt WHERE pk = ?)",
        (sum(call["is_open"] for call in earlier), charged, attempt_pk),
    )
    return float(sum(call["cost_usd"] or call["estimate_usd"] or 0.0 for call in earlier))


def committed_of_job(connection: sqlite3.Connection, name: str) -> float:
    """Return what a job has spent, or may have spent; nothing if it is unknown."""
    row = connection.execute("SELECT pk FROM job WHERE name = ?", (name,)).fetchone()
    return 0.0 if row is None else attempts.committed_usd(connection, row[0])


def most_of_calls(connection: sqlite3.Connection, job: str) -> float:
    """Return how many times their estimate in realtime a job's calls could have cost at most; 1 before the first."""
    most, estimate = connection.execute(
        "SELECT total(a.estimate_usd), total(r.estimate_usd * a.n / r.n) FROM job j JOIN request r ON r.job = j.pk"
        " JOIN attempt a ON a.request = r.pk"
        " WHERE j.name = ? AND a.estimate_usd IS NOT NULL AND r.estimate_usd > 0",
        (job,),
    ).fetchone()
    return most / estimate if estimate else 1.0

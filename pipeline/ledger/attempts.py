"""Attempt records: what a worker writes to the ledger before a call, after it, and after each download.

Each function records one fact completely or not at all, and runs inside a transaction of the caller (`Writer.do`).
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipeline.errors import Moderated, ServerFault
from pipeline.ledger.error_kind import error_json
from pipeline.ledger.queue import PaidUrl, free_stem, missing_images
from pipeline.ledger.replaced_images import replace_images

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from pipeline.errors import AttemptOutcome, RequestError
    from pipeline.ledger.queue import QueuedRequest
    from pipeline.storage import QuarantinedFile, StoredImage

Ending = Literal["succeeded", "partial", "failed", "pending"]
"""How a worker leaves a request; pending if the job asks for more than when the worker started."""


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """The URL of a paid image, recorded before its download starts. `expires_at` is in seconds since 1970."""

    number: int
    url: str
    expires_at: float
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class ResponseRecord:
    """A success response. `sent_at` and `ended_at` are in seconds since 1970.

    `moderated` counts images that the service withheld, `broken` those that it returned and that are not valid.
    """

    http_status: int
    request_id: str | None
    usage: Mapping[str, Any] | None
    cost_usd: float | None
    sent_at: float
    ended_at: float
    moderated: int = 0
    broken: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


class BegunCall(NamedTuple):
    """A call that is recorded and may be sent now. `number` counts the attempts of its request, this one included."""

    pk: int
    stem: str
    idempotency_key: str
    number: int


_BEGIN = """INSERT INTO attempt (request, provider, n, estimate_usd, sent_at, body, idempotency_key)
 VALUES (?1, ?2, ?3, ?4, ?5, ?6, coalesce((SELECT idempotency_key FROM attempt
 WHERE pk = (SELECT max(pk) FROM attempt WHERE request = ?1)
 AND provider = ?2 AND body = ?6 AND outcome != 'answered' AND NOT is_replay), ?7)) RETURNING pk, idempotency_key"""


def begin(
    connection: sqlite3.Connection,
    request_pk: int,
    provider: str,
    endpoint: str,
    n: int,
    estimate_usd: float | None,
    now: float,
    body: str = "",
) -> BegunCall | None:
    """Record a call with its idempotency key before it is sent; `body` is the digest of what is sent.

    The key is that of the last call if the call is the same and that one left its purchase open: an answer or a replay
    ends it. None if the job no longer asks for this call, or asks for it by batch, as other processes may decide.
    """
    stem = free_stem(connection, request_pk, n)
    if stem is None:
        return None
    number = connection.execute(
        "UPDATE request SET status = 'running', stem = ?, attempts = attempts + 1, endpoint = ?, finished_at = NULL,"
        " cut_off = 0, cancel_asked = 0 WHERE pk = ? RETURNING attempts",
        (stem, endpoint, request_pk),
    ).fetchone()[0]
    call = (request_pk, provider, n, estimate_usd, now, body, str(uuid.uuid4()))
    row = connection.execute(_BEGIN, call).fetchone()
    return BegunCall(int(row[0]), stem, row[1], int(number))


def record_withdrawal(connection: sqlite3.Connection, attempt_pk: int, now: float) -> None:
    """Record that a call was withdrawn before it was sent; it does not count as an attempt."""
    connection.execute("UPDATE attempt SET outcome = 'not_sent', ended_at = ? WHERE pk = ?", (now, attempt_pk))
    connection.execute(
        "UPDATE request SET attempts = attempts - 1 WHERE pk = (SELECT request FROM attempt WHERE pk = ?)",
        (attempt_pk,),
    )


def record_failure(
    connection: sqlite3.Connection,
    attempt_pk: int,
    error: RequestError,
    outcome: AttemptOutcome,
    sent_at: float | None,
    now: float,
) -> None:
    """Record an attempt that brought no image: one that was not sent does not count, an unknown one may be paid."""
    connection.execute(
        "UPDATE attempt SET outcome = ?, ended_at = ?, sent_at = coalesce(?, sent_at), http_status = ?, error = ?,"
        " request_id = ? WHERE pk = ?",
        (outcome, now, sent_at, error.http_status, error_json(error), error.request_id, attempt_pk),
    )
    wait_until = now + error.retry_after if isinstance(error, ServerFault) and error.retry_after else None
    connection.execute(
        "UPDATE request SET attempts = attempts - ?, maybe_paid = maybe_paid + ?, error = ?, wait_until = ?"
        " WHERE pk = (SELECT request FROM attempt WHERE pk = ?)",
        (outcome == "not_sent", outcome == "unknown", error_json(error), wait_until, attempt_pk),
    )


def record_response(
    connection: sqlite3.Connection,
    request: QueuedRequest,
    attempt_pk: int,
    response: ResponseRecord,
    urls: Sequence[ImageUrl],
    images: Sequence[StoredImage],
) -> tuple[list[PaidUrl], bool]:
    """Record a response: its cost, the URLs still to be downloaded, and the images that are stored already.

    Return the paid URLs, and whether the request has succeeded with this response.
    """
    usage = None if response.usage is None else json.dumps(response.usage)
    settings = json.dumps(dict(response.settings)) if response.settings else None
    connection.execute(
        "UPDATE attempt SET outcome = 'answered', http_status = ?, request_id = ?, usage = ?, cost_usd = ?,"
        " sent_at = ?, ended_at = ?, settings = ? WHERE pk = ?",
        (
            *(response.http_status, response.request_id, usage, response.cost_usd),
            *(response.sent_at, response.ended_at, settings, attempt_pk),
        ),
    )
    if response.cost_usd is not None or response.moderated:
        connection.execute(
            "UPDATE request SET moderated = moderated + ?, cost_usd = CASE WHEN ?2 IS NULL THEN cost_usd"
            " ELSE coalesce(cost_usd, 0) + ?2 END WHERE pk = ?3",
            (response.moderated, response.cost_usd, request.pk),
        )
    paid = [_insert_url(connection, request, attempt_pk, url) for url in urls]
    for image in images:
        insert_image(connection, request, attempt_pk, image)
    _insert_broken(connection, request, attempt_pk, len(urls) + len(images), response.broken)
    return paid, count_received(connection, request.pk, len(images), response.ended_at)


def _insert_url(connection: sqlite3.Connection, request: QueuedRequest, attempt_pk: int, url: ImageUrl) -> PaidUrl:
    row = connection.execute(
        "INSERT INTO image (request, attempt, job, state, number, url, expires_at, revised_prompt)"
        " VALUES (?, ?, ?, 'paid', ?, ?, ?, ?) RETURNING pk",
        (request.pk, attempt_pk, request.job_pk, url.number, url.url, url.expires_at, url.revised_prompt),
    ).fetchone()
    return PaidUrl(
        image_pk=row[0], number=url.number, url=url.url, expires_at=url.expires_at, provider=request.provider
    )


def insert_image(connection: sqlite3.Connection, request: QueuedRequest, attempt_pk: int, image: StoredImage) -> None:
    """Record a stored image of an attempt; `count_received` counts it."""
    connection.execute(
        "INSERT INTO image (request, attempt, job, state, number, file, sha256, bytes, width, height, format,"
        " revised_prompt, remark, root, spooled)"
        " VALUES (?, ?, ?, 'stored', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (request.pk, attempt_pk, request.job_pk, *image),
    )


def _insert_broken(
    connection: sqlite3.Connection, request: QueuedRequest, attempt_pk: int, whole: int, broken: int
) -> None:
    """Record images that are paid and lost, since their bytes are not valid; their number names no file."""
    connection.executemany(
        "INSERT INTO image (request, attempt, job, state, number) VALUES (?, ?, ?, 'lost', ?)",
        [(request.pk, attempt_pk, request.job_pk, whole + place) for place in range(1, broken + 1)],
    )


def record_download(
    connection: sqlite3.Connection, request_pk: int, image_pk: int, image: StoredImage, now: float
) -> bool:
    """Record that a paid image is stored, and drop its URL. Return whether the request has succeeded."""
    connection.execute(
        "UPDATE image SET state = 'stored', url = NULL, file = ?, sha256 = ?, bytes = ?, width = ?, height = ?,"
        " format = ?, remark = ?, root = ?, spooled = ? WHERE pk = ?",
        (
            *(image.file, image.sha256, image.bytes, image.width, image.height, image.format, image.remark),
            *(image.root, image.spooled, image_pk),
        ),
    )
    return count_received(connection, request_pk, 1, now)


def count_received(connection: sqlite3.Connection, request_pk: int, images: int, now: float) -> bool:
    """Add stored images to a request; the image that completes it ends it in the same transaction.

    They are in the place of those that were asked for again.
    """
    if not images:
        return False
    row = connection.execute(
        "UPDATE request SET received = received + ?1,"
        " status = CASE WHEN received + ?1 >= n THEN 'succeeded' ELSE status END,"
        " error = CASE WHEN received + ?1 >= n THEN NULL ELSE error END,"
        " finished_at = CASE WHEN received + ?1 >= n THEN ?2 ELSE finished_at END"
        " WHERE pk = ?3 RETURNING status, EXISTS"
        " (SELECT 1 FROM image i WHERE i.request = request.pk AND i.redo = 'asked')",
        (images, now, request_pk),
    ).fetchone()
    if row[1]:
        replace_images(connection, request_pk, images)
    return bool(row[0] == "succeeded")


def record_expired_url(connection: sqlite3.Connection, image_pk: int) -> None:
    """Record that a paid URL expired before its image was stored."""
    connection.execute("UPDATE image SET state = 'lost', url = NULL WHERE pk = ?", (image_pk,))


def record_quarantine(connection: sqlite3.Connection, request_pk: int, files: Sequence[QuarantinedFile]) -> None:
    """Record bytes that were paid and are not a valid image; the same bytes are recorded once."""
    connection.executemany(
        "INSERT OR IGNORE INTO quarantine (request, file, sha256, bytes, reason) VALUES (?, ?, ?, ?, ?)",
        [(request_pk, file.file, file.sha256, file.bytes, file.reason) for file in files],
    )


def finish(
    connection: sqlite3.Connection, request_pk: int, error: RequestError | None, now: float
) -> tuple[Ending, RequestError | None]:
    """Record how a request ended, and return it with the error that ended it. What counts is what the job asks now."""
    row = connection.execute("SELECT n, received, moderated FROM request WHERE pk = ?", (request_pk,)).fetchone()
    ending: Ending = "partial" if row["received"] else "failed"
    if row["received"] >= row["n"]:
        ending, error = "succeeded", None
    elif error is None and (missing_images(connection, request_pk) > 0 or not row["moderated"]):
        ending = "pending"
    elif error is None:
        what = f"the service withheld {row['moderated']} of {row['n']} images as moderated"
        error = Moderated(what, http_status=200, code="moderation_blocked")
    connection.execute(
        "UPDATE request SET status = ?, error = ?, finished_at = ? WHERE pk = ? AND status IN ('pending', 'running')",
        (ending, error_json(error) if error else None, None if ending == "pending" else now, request_pk),
    )
    return ending, error


def has_succeeded(connection: sqlite3.Connection, provider: str) -> bool:
    """Return whether a provider has ever answered a call with success."""
    query = "SELECT EXISTS (SELECT 1 FROM attempt WHERE provider = ? AND outcome = 'answered')"
    return bool(connection.execute(query, (provider,)).fetchone()[0])


def mean_latency(connection: sqlite3.Connection, provider: str) -> float | None:
    """Return the mean seconds of the last thousand calls that a provider has answered; None if there is none."""
    row = connection.execute(
        "SELECT avg(ended_at - sent_at) FROM (SELECT ended_at, sent_at FROM attempt WHERE provider = ?"
        " AND outcome = 'answered' AND batch IS NULL ORDER BY sent_at DESC LIMIT 1000)",
        (provider,),
    ).fetchone()
    return None if row[0] is None else max(0.0, float(row[0]))


def sent_since(connection: sqlite3.Connection, provider: str, start: float) -> list[tuple[float, int]]:
    """Return (moment, images) of the provider's calls since `start`, oldest first; batches are outside its limit."""
    rows = connection.execute(
        "SELECT sent_at, n FROM attempt WHERE provider = ? AND sent_at > ? AND outcome IS NOT 'not_sent'"
        " AND batch IS NULL"
        " ORDER BY sent_at",
        (provider, start),
    )
    return [(row[0], row[1]) for row in rows]


def committed_usd(connection: sqlite3.Connection, job_pk: int) -> float:
    """Return what a job has spent or may have spent: known costs, and the estimates of calls of unknown cost."""
    row = connection.execute(
        "SELECT total(CASE WHEN a.outcome IN ('not_sent', 'refused') THEN 0"
        " ELSE coalesce(a.cost_usd, a.estimate_usd, 0) END)"
        " FROM attempt a JOIN request r ON r.pk = a.request WHERE r.job = ?",
        (job_pk,),
    ).fetchone()
    return float(row[0])


def record_pause(connection: sqlite3.Connection, provider: str, until: float) -> None:
    """Record until when a provider is not to be called; the longest pause holds."""
    connection.execute(
        "INSERT INTO provider (name, paused_until) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET paused_until = max(paused_until, excluded.paused_until)",
        (provider, until),
    )


def paused_until(connection: sqlite3.Connection, provider: str) -> float:
    """Return until when a provider is not to be called; 0 if it never asked for a pause."""
    row = connection.execute("SELECT paused_until FROM provider WHERE name = ?", (provider,)).fetchone()
    return float(row[0]) if row else 0.0

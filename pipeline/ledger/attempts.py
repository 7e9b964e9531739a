"""What a worker writes down on a request's way: sent, answered, stored, lost, ended.

Every function states one fact, whole or not at all, and is for `Writer.do`: it takes the ledger's connection first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import Moderated, ServerFault
from pipeline.ledger.queue import PaidUrl, free_stem, lacking

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from pipeline.errors import Outcome, RequestError
    from pipeline.ledger.queue import QueuedRequest
    from pipeline.storage import StoredImage

Ending = Literal["succeeded", "partial", "failed", "pending"]
"""How a worker leaves a request; pending where the job asks for more than when the worker began."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an answer says beside its pictures."""

    http_status: int
    request_id: str | None
    usage: Mapping[str, Any] | None
    cost_usd: float | None
    sent_at: float
    ended_at: float
    moderated: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewUrl:
    """A picture's URL, to be written down before its download starts."""

    number: int
    url: str
    expires_at: float
    revised_prompt: str | None


def begin(
    connection: sqlite3.Connection,
    request: int,
    provider: str,
    endpoint: str,
    n: int,
    estimate_usd: float | None,
    now: float,
) -> tuple[int, str] | None:
    """Write a call down before it is sent; give the attempt, and how the request's files are named.

    None where the job does not ask for this call any more: `pipeline cancel` and `submit` work beside us.
    """
    stem = free_stem(connection, request, n)
    if stem is None:
        return None
    connection.execute(
        "UPDATE request SET status = 'running', stem = ?, attempts = attempts + 1, endpoint = ?, finished_at = NULL"
        " WHERE pk = ?",
        (stem, endpoint, request),
    )
    row = connection.execute(
        "INSERT INTO attempt (request, provider, n, estimate_usd, sent_at) VALUES (?, ?, ?, ?, ?) RETURNING pk",
        (request, provider, n, estimate_usd, now),
    ).fetchone()
    return int(row[0]), stem


def unsent(connection: sqlite3.Connection, attempt: int, now: float) -> None:
    """Write down that a call was called off before it was sent: it is none."""
    connection.execute("UPDATE attempt SET outcome = 'not_sent', ended_at = ? WHERE pk = ?", (now, attempt))
    connection.execute(
        "UPDATE request SET attempts = attempts - 1 WHERE pk = (SELECT request FROM attempt WHERE pk = ?)", (attempt,)
    )


def failed(
    connection: sqlite3.Connection,
    attempt: int,
    error: RequestError,
    outcome: Outcome,
    sent_at: float | None,
    now: float,
) -> None:
    """Write down how a fruitless attempt ended: one that was not sent is none, an unknown one may have been paid."""
    connection.execute(
        "UPDATE attempt SET outcome = ?, ended_at = ?, sent_at = coalesce(?, sent_at), http_status = ?, error = ?,"
        " request_id = ? WHERE pk = ?",
        (outcome, now, sent_at, error.http_status, error_json(error), error.request_id, attempt),
    )
    connection.execute(
        "UPDATE request SET attempts = attempts - ?, maybe_paid = maybe_paid + ?, error = ?, wait_until = ?"
        " WHERE pk = (SELECT request FROM attempt WHERE pk = ?)",
        (
            *(outcome == "not_sent", outcome == "unknown", error_json(error)),
            *(now + error.retry_after if isinstance(error, ServerFault) and error.retry_after else None, attempt),
        ),
    )


def answered(
    connection: sqlite3.Connection,
    work: QueuedRequest,
    attempt: int,
    reply: Reply,
    urls: Sequence[NewUrl],
    files: Sequence[StoredImage],
) -> tuple[list[PaidUrl], bool]:
    """Write down an answer: its cost, the URLs that are still to be downloaded, the files that are already here.

    Gives the paid URLs, and whether the request has succeeded with this.
    """
    usage = None if reply.usage is None else json.dumps(reply.usage)
    connection.execute(
        "UPDATE attempt SET outcome = 'answered', http_status = ?, request_id = ?, usage = ?, cost_usd = ?,"
        " sent_at = ?, ended_at = ?, settings = ? WHERE pk = ?",
        (
            *(reply.http_status, reply.request_id, usage, reply.cost_usd, reply.sent_at, reply.ended_at),
            *(json.dumps(dict(reply.settings)) if reply.settings else None, attempt),
        ),
    )
    if reply.cost_usd is not None or reply.moderated:
        connection.execute(
            "UPDATE request SET moderated = moderated + ?, cost_usd = CASE WHEN ?2 IS NULL THEN cost_usd"
            " ELSE coalesce(cost_usd, 0) + ?2 END WHERE pk = ?3",
            (reply.moderated, reply.cost_usd, work.request),
        )
    paid = [PaidUrl(_insert_url(connection, work, attempt, url), url.number, url.url, url.expires_at) for url in urls]
    for file in files:
        connection.execute(
            "INSERT INTO image (request, attempt, job, state, number, file, sha256, bytes, width, height, format,"
            " revised_prompt) VALUES (?, ?, ?, 'stored', ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                work.request,
                attempt,
                work.job,
                file.number,
                file.file,
                file.sha256,
                file.bytes,
                file.width,
                file.height,
                file.format,
                file.revised_prompt,
            ),
        )
    return paid, _count(connection, work.request, len(files), reply.ended_at)


def _insert_url(connection: sqlite3.Connection, work: QueuedRequest, attempt: int, url: NewUrl) -> int:
    row = connection.execute(
        "INSERT INTO image (request, attempt, job, state, number, url, expires_at, revised_prompt)"
        " VALUES (?, ?, ?, 'paid', ?, ?, ?, ?) RETURNING pk",
        (work.request, attempt, work.job, url.number, url.url, url.expires_at, url.revised_prompt),
    ).fetchone()
    return int(row[0])


def stored(connection: sqlite3.Connection, request: int, image: int, file: StoredImage, now: float) -> bool:
    """Write down that a paid picture is on disk, and forget its URL. Gives whether the request has succeeded."""
    connection.execute(
        "UPDATE image SET state = 'stored', url = NULL, file = ?, sha256 = ?, bytes = ?, width = ?, height = ?,"
        " format = ? WHERE pk = ?",
        (file.file, file.sha256, file.bytes, file.width, file.height, file.format, image),
    )
    return _count(connection, request, 1, now)


def _count(connection: sqlite3.Connection, request: int, files: int, now: float) -> bool:
    """Count files that have come; the picture that completes a request ends it in the same transaction."""
    if not files:
        return False
    row = connection.execute(
        "UPDATE request SET received = received + ?1,"
        " status = CASE WHEN received + ?1 >= n THEN 'succeeded' ELSE status END,"
        " error = CASE WHEN received + ?1 >= n THEN NULL ELSE error END,"
        " finished_at = CASE WHEN received + ?1 >= n THEN ?2 ELSE finished_at END"
        " WHERE pk = ?3 RETURNING status",
        (files, now, request),
    ).fetchone()
    return bool(row[0] == "succeeded")


def lost(connection: sqlite3.Connection, image: int) -> None:
    """Write down that a paid URL has died before its picture was here."""
    connection.execute("UPDATE image SET state = 'lost', url = NULL WHERE pk = ?", (image,))


def end(
    connection: sqlite3.Connection, request: int, error: RequestError | None, now: float
) -> tuple[Ending, RequestError | None]:
    """Write down how a request ended, with the error that ended it; what counts is what the job asks for now."""
    row = connection.execute("SELECT n, received, moderated FROM request WHERE pk = ?", (request,)).fetchone()
    ending: Ending = "partial" if row["received"] else "failed"
    if row["received"] >= row["n"]:
        ending, error = "succeeded", None
    elif error is None and (lacking(connection, request) > 0 or not row["moderated"]):
        ending = "pending"
    elif error is None:
        what = f"the service withheld {row['moderated']} of {row['n']} pictures as moderated"
        error = Moderated(what, http_status=200, code="moderation_blocked")
    connection.execute(
        "UPDATE request SET status = ?, error = ?, finished_at = ? WHERE pk = ? AND status IN ('pending', 'running')",
        (ending, error_json(error) if error else None, None if ending == "pending" else now, request),
    )
    return ending, error


def put_back(connection: sqlite3.Connection, request: int) -> None:
    """Put one running request back into the queue."""
    connection.execute("UPDATE request SET status = 'pending' WHERE pk = ? AND status = 'running'", (request,))


def sent_since(connection: sqlite3.Connection, provider: str, start: float) -> list[tuple[float, int]]:
    """Give (moment, images) of the provider's calls since `start`, oldest first."""
    rows = connection.execute(
        "SELECT sent_at, n FROM attempt WHERE provider = ? AND sent_at > ? AND outcome IS NOT 'not_sent'"
        " ORDER BY sent_at",
        (provider, start),
    )
    return [(row[0], row[1]) for row in rows]


def pause(connection: sqlite3.Connection, provider: str, until: float) -> None:
    """Write down until when a provider wants to be left alone."""
    connection.execute(
        "INSERT INTO provider (name, paused_until) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET paused_until = max(paused_until, excluded.paused_until)",
        (provider, until),
    )


def paused_until(connection: sqlite3.Connection, provider: str) -> float:
    """Give until when a provider wants to be left alone; 0 where it has not said so."""
    row = connection.execute("SELECT paused_until FROM provider WHERE name = ?", (provider,)).fetchone()
    return float(row[0]) if row else 0.0


def error_json(error: RequestError) -> str:
    """Write an error as the manifest shows it. `kind` is its class, which is its fate."""
    said = {"http_status": error.http_status, "type": error.type, "code": error.code, "message": error.message}
    return json.dumps({**said, "kind": type(error).__name__}, ensure_ascii=False)

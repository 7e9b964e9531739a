"""What a worker writes down on a request's way: taken, sent, answered, stored, ended.

Every function is one statement of fact for `Writer.do`: it takes the ledger's connection first and is whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from pipeline.engine.store import StoredImage
    from pipeline.errors import Outcome, RequestError

Ending = Literal["succeeded", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class PaidUrl:
    """A picture that is paid and still at the server. `expires_at` is in seconds since 1970, on our clock."""

    image: int
    number: int
    url: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Work:
    """A request as a worker takes it from the ledger."""

    request: int
    job: int
    job_name: str
    rehearsal: bool
    budget_usd: float | None
    id: str
    key: str
    operation: str
    prompt: str | None
    params: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    n: int
    received: int
    moderated: int
    numbers: frozenset[int]
    urls: tuple[PaidUrl, ...]
    stem: str

    @property
    def missing(self) -> int:
        """Images still to be asked for: wanted, less those here, on their way, or refused for good."""
        return max(0, self.n - self.received - self.moderated - len(self.urls))

    @property
    def model(self) -> str | None:
        """The model that the request names."""
        value = self.params.get("model")
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Scope:
    """Which jobs a run works on: those named, and those submitted after `since`; all where `names` is None."""

    names: frozenset[str] | None
    since: float


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


@dataclass(frozen=True, slots=True)
class NewUrl:
    """A picture's URL, to be written down before its download starts."""

    number: int
    url: str
    expires_at: float
    revised_prompt: str | None


_STATED = "r.since <= j.revision AND j.revision <= r.stated"
_IN_SCOPE = "(?2 IS NULL OR j.submitted_at > ?3 OR j.name IN (SELECT value FROM json_each(?2)))"


def _scope(scope: Scope) -> tuple[str | None, float]:
    return None if scope.names is None else json.dumps(sorted(scope.names)), scope.since


Barred = Collection[tuple[int, str | None]]
"""(job, model) whose requests are held up by a stop; None for every model of the job."""


def pending(
    connection: sqlite3.Connection, provider: str, scope: Scope, taken: Collection[int], most: int, barred: Barred = ()
) -> list[Work]:
    """Take up to `most` pending requests that are not among `taken` nor barred: live URLs first, the nearest death first;
    then job by job, the oldest first, in the order of the job file.
    """
    names, since = _scope(scope)
    free = _not_barred(barred)
    dying = connection.execute(
        "SELECT DISTINCT r.pk FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = r.job"
        f" WHERE i.state = 'paid' AND r.status = 'pending' AND j.provider = ?1 AND {_IN_SCOPE} AND {_STATED}{free}"
        " ORDER BY i.expires_at LIMIT ?4",
        (provider, names, since, most + len(taken)),
    )
    found = {row[0]: None for row in dying if row[0] not in taken}
    jobs = connection.execute(
        f"SELECT j.pk FROM job j WHERE j.provider = ?1 AND {_IN_SCOPE} ORDER BY j.submitted_at, j.pk",
        (provider, names, since),
    ).fetchall()
    for (job,) in jobs:
        if len(found) >= most:
            break
        rows = connection.execute(
            f"SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE r.job = ?1 AND r.status = 'pending' AND {_STATED}{free}"
            " ORDER BY r.position LIMIT ?2",
            (job, most + len(taken)),
        )
        found.update((row[0], None) for row in rows if row[0] not in taken)
    return [_work(connection, request) for request in list(found)[:most]]


def _not_barred(barred: Barred) -> str:
    """Write the condition that leaves barred requests out; models are names of people's making, so they go in as JSON."""
    if not barred:
        return ""
    pairs = json.dumps([[job, model] for job, model in barred]).replace("'", "''")
    return (
        f" AND NOT EXISTS (SELECT 1 FROM json_each('{pairs}') b WHERE json_extract(b.value, '$[0]') = r.job AND"
        " coalesce(json_extract(b.value, '$[1]') = json_extract(r.params, '$.model'), json_extract(b.value, '$[1]') IS NULL))"
    )


def _work(connection: sqlite3.Connection, request: int) -> Work:
    row = connection.execute(
        "SELECT r.*, j.name AS job_name, j.rehearsal, j.budget_usd FROM request r JOIN job j ON j.pk = r.job WHERE r.pk = ?",
        (request,),
    ).fetchone()
    images = connection.execute("SELECT * FROM image WHERE request = ? AND state != 'lost'", (request,)).fetchall()
    return Work(
        request=request,
        job=row["job"],
        job_name=row["job_name"],
        rehearsal=bool(row["rehearsal"]),
        budget_usd=row["budget_usd"],
        id=row["id"],
        key=row["key"],
        operation=row["operation"],
        prompt=row["prompt"],
        params=json.loads(row["params"]),
        inputs=json.loads(row["inputs"]),
        n=row["n"],
        received=row["received"],
        moderated=row["moderated"],
        numbers=frozenset(image["number"] for image in images),
        urls=tuple(
            PaidUrl(image["pk"], image["number"], image["url"], image["expires_at"])
            for image in images
            if image["state"] == "paid"
        ),
        stem=_stem(connection, row),
    )


def _stem(connection: sqlite3.Connection, row: sqlite3.Row) -> str:
    """Name the request's files: its id, and its key beside it where another request owns, or may soon own, that name."""
    name, key = row["id"], row["key"]
    if name.endswith((f"-{key[:8]}", f"-{key[:16]}")):
        return str(name)
    others = connection.execute(
        "SELECT file FROM image WHERE job = ?1 AND file COLLATE NOCASE BETWEEN ?2 AND ?3 AND request != ?4",
        (row["job"], f"images/{name}-", f"images/{name}-:", row["pk"]),  # ':' follows '9'
    )
    owned = any(other[0].lower().rpartition("-")[0] == f"images/{name}".lower() for other in others)
    running = connection.execute(
        "SELECT 1 FROM request WHERE job = ? AND status = 'running' AND id = ? COLLATE NOCASE AND pk != ?",
        (row["job"], name, row["pk"]),
    ).fetchone()
    return f"{name}-{key[:8]}" if owned or running else str(name)


def begin(
    connection: sqlite3.Connection,
    request: int,
    provider: str,
    endpoint: str,
    n: int,
    estimate_usd: float | None,
    now: float,
) -> int | None:
    """Write a call down before it is sent; give the attempt, or None where the request has been cancelled meanwhile."""
    begun = connection.execute(
        "UPDATE request SET status = 'running', attempts = attempts + 1, endpoint = ?, finished_at = NULL"
        " WHERE pk = ? AND status IN ('pending', 'running')",
        (endpoint, request),
    ).rowcount
    if not begun:
        return None
    return connection.execute(
        "INSERT INTO attempt (request, provider, n, estimate_usd, sent_at) VALUES (?, ?, ?, ?, ?)",
        (request, provider, n, estimate_usd, now),
    ).lastrowid


def resume_downloads(connection: sqlite3.Connection, request: int) -> bool:
    """Mark a request as running whose pictures are paid and only need their downloads; False where it was cancelled."""
    return bool(
        connection.execute(
            "UPDATE request SET status = 'running' WHERE pk = ? AND status IN ('pending', 'running')", (request,)
        ).rowcount
    )


def failed(
    connection: sqlite3.Connection,
    attempt: int,
    error: RequestError,
    outcome: Outcome,
    sent_at: float | None,
    now: float,
) -> None:
    """Write down how an attempt ended that brought no picture: one not sent is no attempt, an unknown one may be paid."""
    connection.execute(
        "UPDATE attempt SET outcome = ?, ended_at = ?, sent_at = coalesce(?, sent_at), http_status = ?, error = ?,"
        " request_id = ? WHERE pk = ?",
        (outcome, now, sent_at, error.http_status, error_json(error), error.request_id, attempt),
    )
    connection.execute(
        "UPDATE request SET attempts = attempts - ?, maybe_paid = maybe_paid + ?, error = ?"
        " WHERE pk = (SELECT request FROM attempt WHERE pk = ?)",
        (outcome == "not_sent", outcome == "unknown", error_json(error), attempt),
    )


def answered(
    connection: sqlite3.Connection,
    work: Work,
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
        "UPDATE attempt SET outcome = 'answered', http_status = ?, request_id = ?, usage = ?, cost_usd = ?, sent_at = ?,"
        " ended_at = ? WHERE pk = ?",
        (reply.http_status, reply.request_id, usage, reply.cost_usd, reply.sent_at, reply.ended_at, attempt),
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


def _insert_url(connection: sqlite3.Connection, work: Work, attempt: int, url: NewUrl) -> int:
    row = connection.execute(
        "INSERT INTO image (request, attempt, job, state, number, url, expires_at, revised_prompt)"
        " VALUES (?, ?, ?, 'paid', ?, ?, ?, ?) RETURNING pk",
        (work.request, attempt, work.job, url.number, url.url, url.expires_at, url.revised_prompt),
    ).fetchone()
    return int(row[0])


def stored(connection: sqlite3.Connection, request: int, image: int, file: StoredImage, now: float) -> bool:
    """Write down that a paid URL's picture is on disk; the URL is forgotten. Gives whether the request has succeeded."""
    connection.execute(
        "UPDATE image SET state = 'stored', url = NULL, file = ?, sha256 = ?, bytes = ?, width = ?, height = ?, format = ?"
        " WHERE pk = ?",
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


def end(connection: sqlite3.Connection, request: int, status: Ending, error: RequestError | None, now: float) -> None:
    """Write down how a request ended, with the error that ended it."""
    connection.execute(
        "UPDATE request SET status = ?, error = ?, finished_at = ? WHERE pk = ? AND status IN ('pending', 'running')",
        (status, error_json(error) if error else None, now, request),
    )


def waiting_providers(connection: sqlite3.Connection, scope: Scope, barred: Barred = ()) -> list[str]:
    """Name the providers that pending requests wait for."""
    names, since = _scope(scope)
    rows = connection.execute(
        f"SELECT DISTINCT j.provider FROM job j WHERE {_IN_SCOPE} AND EXISTS (SELECT 1 FROM request r WHERE r.job = j.pk"
        f" AND r.status = 'pending' AND {_STATED}{_not_barred(barred)})",
        (None, names, since),
    )
    return [row[0] for row in rows]


def put_back(connection: sqlite3.Connection, request: int) -> None:
    """Put one running request back into the queue."""
    connection.execute("UPDATE request SET status = 'pending' WHERE pk = ? AND status = 'running'", (request,))


def sent_since(connection: sqlite3.Connection, provider: str, start: float, most: int) -> list[tuple[float, int]]:
    """Give (moment, images) of the provider's last calls since `start`, oldest first, of the newest `most` calls."""
    rows = connection.execute(
        "SELECT sent_at, n FROM (SELECT * FROM attempt WHERE provider = ? AND outcome IS NOT 'not_sent' ORDER BY pk DESC"
        " LIMIT ?) WHERE sent_at > ? ORDER BY sent_at",
        (provider, most, start),
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
    """Write an error as the manifest shows it."""
    return json.dumps(
        {"http_status": error.http_status, "type": error.type, "code": error.code, "message": error.message},
        ensure_ascii=False,
    )

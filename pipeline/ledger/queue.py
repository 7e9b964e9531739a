"""The queue → work: which pending requests come next, and what a worker needs of each.

Functions are for `Writer.do`: they take the ledger's connection first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class PaidUrl:
    """A picture that is paid and still at the server. `expires_at` is in seconds since 1970, on our clock."""

    image: int
    number: int
    url: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request as a worker takes it from the ledger."""

    request: int
    job: int
    job_name: str
    provider: str
    rehearsal: bool
    budget_usd: float | None
    id: str
    key: str
    operation: str
    served_by: str
    prompt: str | None
    params: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    n: int
    received: int
    moderated: int
    numbers: frozenset[int]
    urls: tuple[PaidUrl, ...]
    wait_until: float | None = None  # the server's wish, in seconds since 1970

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


_IN_SCOPE = "(?2 IS NULL OR j.submitted_at > ?3 OR j.name IN (SELECT value FROM json_each(?2)))"


def _scope(scope: Scope) -> tuple[str | None, float]:
    return None if scope.names is None else json.dumps(sorted(scope.names)), scope.since


@dataclass(frozen=True, slots=True)
class Block:
    """The requests that a stop holds up: all to which everything that is named here applies."""

    provider: str | None = None
    job: int | None = None
    model: str | None = None
    served_by: str | None = None

    def holds(self, work: QueuedRequest) -> bool:
        """Say whether a request is held up."""
        named = ((self.provider, work.provider), (self.job, work.job), (self.model, work.model))
        return all(mine in {None, its} for mine, its in (*named, (self.served_by, work.served_by)))


def pending(
    connection: sqlite3.Connection,
    provider: str,
    scope: Scope,
    taken: Collection[int],
    most: int,
    blocked: Collection[Block] = (),
) -> list[QueuedRequest]:
    """Take up to `most` pending requests that are neither `taken` nor barred.

    Live URLs come first, the nearest death before all; then job by job, the oldest first, in the order of the job file.
    """
    names, since = _scope(scope)
    free = _not_blocked(blocked)
    dying = connection.execute(
        "SELECT r.pk FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = r.job"
        " WHERE i.state = 'paid' AND r.status = 'pending' AND r.stated = j.revision AND j.provider = ?1"
        f" AND {_IN_SCOPE}{free} GROUP BY r.pk ORDER BY min(i.expires_at) LIMIT ?4",
        (provider, names, since, most + len(taken)),
    )
    found = {row[0]: None for row in dying if row[0] not in taken}
    jobs = connection.execute(
        f"SELECT j.pk, j.revision FROM job j WHERE j.provider = ?1 AND {_IN_SCOPE} ORDER BY j.submitted_at, j.pk",
        (provider, names, since),
    ).fetchall()
    for job, revision in jobs:
        if len(found) >= most:
            break
        rows = connection.execute(
            "SELECT r.pk FROM request r WHERE r.job = ?1 AND r.stated = ?2 AND r.status = 'pending'"
            f"{free} ORDER BY r.position LIMIT ?3",
            (job, revision, most + len(taken)),
        )
        found.update((row[0], None) for row in rows if row[0] not in taken)
    return _works(connection, list(found)[:most])


def _not_blocked(blocked: Collection[Block]) -> str:
    """Write the condition that leaves barred requests out. People make up models' names, so they go in as JSON."""
    if not blocked:
        return ""
    bars = json.dumps([[bar.provider, bar.job, bar.model, bar.served_by] for bar in blocked]).replace("'", "''")
    provider, model = "(SELECT provider FROM job WHERE pk = r.job)", "json_extract(r.params, '$.model')"
    applies = " AND ".join(
        f"(json_extract(b.value, '$[{place}]') IS NULL OR json_extract(b.value, '$[{place}]') IS {column})"
        for place, column in enumerate((provider, "r.job", model, "r.served_by"))
    )
    return f" AND NOT EXISTS (SELECT 1 FROM json_each('{bars}') b WHERE {applies})"


def _works(connection: sqlite3.Connection, requests: Sequence[int]) -> list[QueuedRequest]:
    """Read what a worker needs of each request, in the order that is given."""
    rows = connection.execute(
        "SELECT r.*, j.name AS job_name, j.provider, j.rehearsal, j.budget_usd,"
        " EXISTS (SELECT 1 FROM image WHERE request = r.pk AND state != 'lost') AS has_images"
        " FROM request r JOIN job j ON j.pk = r.job WHERE r.pk IN (SELECT value FROM json_each(?))",
        (json.dumps(requests),),
    )
    works = {row["pk"]: _work(connection, row) for row in rows}
    return [works[request] for request in requests]


def _work(connection: sqlite3.Connection, row: sqlite3.Row) -> QueuedRequest:
    images: list[sqlite3.Row] = []
    if row["has_images"]:
        images = connection.execute(
            "SELECT * FROM image WHERE request = ? AND state != 'lost'", (row["pk"],)
        ).fetchall()
    return QueuedRequest(
        request=row["pk"],
        job=row["job"],
        job_name=row["job_name"],
        provider=row["provider"],
        rehearsal=bool(row["rehearsal"]),
        budget_usd=row["budget_usd"],
        id=row["id"],
        key=row["key"],
        operation=row["operation"],
        served_by=row["served_by"],
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
        wait_until=row["wait_until"],
    )


_LACKING = "r.n - r.received - r.moderated - (SELECT count(*) FROM image WHERE request = r.pk AND state = 'paid')"


def lacking(connection: sqlite3.Connection, request: int) -> int:
    """Count the images of a request that are neither here, nor paid, nor refused for good."""
    return int(connection.execute(f"SELECT {_LACKING} FROM request r WHERE r.pk = ?", (request,)).fetchone()[0])


def claim(connection: sqlite3.Connection, request: int) -> str | None:
    """Mark a request as running, and give how its files are named; None where it is not to be worked."""
    stem = free_stem(connection, request)
    if stem is not None:
        connection.execute("UPDATE request SET status = 'running', stem = ? WHERE pk = ?", (stem, request))
    return stem


def free_stem(connection: sqlite3.Connection, request: int, images: int | None = None) -> str | None:
    """Give how a request's files are named: its id, and its key beside it where another owns that name or is about to.

    None where it is not to be worked: ended, cancelled or superseded meanwhile, or lacking fewer than so many images.
    """
    row = connection.execute(
        "SELECT r.pk, r.job, r.id, r.key FROM request r JOIN job j ON j.pk = r.job"
        " WHERE r.pk = ?1 AND r.status IN ('pending', 'running') AND r.stated = j.revision"
        f" AND (?2 IS NULL OR {_LACKING} >= ?2)",
        (request, images),
    ).fetchone()
    if row is None:
        return None
    name = row["id"]
    others = connection.execute(
        "SELECT file FROM image WHERE job = ?1 AND file IS NOT NULL AND file COLLATE NOCASE BETWEEN ?2 AND ?3"
        " AND request != ?4"
        " UNION ALL SELECT NULL FROM request WHERE job = ?1 AND status = 'running' AND stem = ?5 COLLATE NOCASE"
        " AND pk != ?4",
        (row["job"], f"images/{name}-", f"images/{name}-:", row["pk"], name),  # ':' follows '9'
    )
    own = f"images/{name}".lower()
    owned = any(file is None or file.lower().rpartition("-")[0] == own for (file,) in others)
    return f"{name}-{row['key'][:8]}" if owned else str(name)


def waiting_providers(connection: sqlite3.Connection, scope: Scope, blocked: Collection[Block] = ()) -> list[str]:
    """Name the providers that pending requests wait for."""
    names, since = _scope(scope)
    rows = connection.execute(
        f"SELECT DISTINCT j.provider FROM job j WHERE {_IN_SCOPE}"
        " AND EXISTS (SELECT 1 FROM request r WHERE r.job = j.pk AND r.status = 'pending' AND r.stated = j.revision"
        f"{_not_blocked(blocked)})",
        (None, names, since),
    )
    return [row[0] for row in rows]

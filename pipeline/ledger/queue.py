"""The queue: which pending requests come next, with everything that a worker needs of each.

Functions that take a connection run inside a transaction of the caller, such as `Writer.do`.
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
    """A paid image that is still to be downloaded. `expires_at` is in seconds since 1970, by the local clock.

    `provider` is the one that it was bought from.
    """

    image_pk: int
    number: int
    url: str
    expires_at: float
    provider: str = ""


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request as the ledger hands it to a worker. `route` is what its job names, if that is a route."""

    pk: int
    job_pk: int
    job_name: str
    provider: str  # that serves it
    rehearsal: bool
    budget_usd: float | None
    id: str
    served_by: str  # the operation whose endpoint is called
    prompt: str | None
    params: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    n: int
    received: int
    moderated: int
    numbers: frozenset[int]  # of images that are stored or paid
    urls: tuple[PaidUrl, ...]
    wait_until: float | None = None  # as the server asked, in seconds since 1970
    route: str | None = None
    cut_off: int = 0  # calls that the death of the last run cut off: each may be paid

    @property
    def missing(self) -> int:
        """Images still to be requested: wanted, less those stored, paid, or refused by the service."""
        return max(0, self.n - self.received - self.moderated - len(self.urls))

    @property
    def model(self) -> str | None:
        """The model that the request names."""
        return self._text("model")

    @property
    def output_format(self) -> str | None:
        """The image format that the request asks for."""
        return self._text("output_format")

    def _text(self, name: str) -> str | None:
        value = self.params.get(name)
        return value if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Scope:
    """The jobs of a run: those named, and those submitted after `since`; every job if `names` is None.

    With `limit`, only the first so many requests of each job named, as it was submitted until `limited_until`. With
    `only`, no other requests than these (primary keys), each in realtime, whatever the mode of its job. With
    `only_redo`, only those of which images are made again.
    """

    names: frozenset[str] | None
    since: float
    limit: int | None = None
    limited_until: float = 0.0
    only: frozenset[int] | None = None
    only_redo: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Requests that a stop reaches: those that match every attribute that is set."""

    provider: str | None = None
    job_pk: int | None = None
    model: str | None = None
    served_by: str | None = None

    def covers(self, request: QueuedRequest) -> bool:
        """Return whether the stop reaches a request."""
        return self.includes(Block(request.provider, request.job_pk, request.model, request.served_by))

    def includes(self, other: Block) -> bool:
        """Return whether the stop reaches all requests of another block."""
        pairs = (
            (self.provider, other.provider),
            (self.job_pk, other.job_pk),
            (self.model, other.model),
            (self.served_by, other.served_by),
        )
        return all(mine in {None, its} for mine, its in pairs)


IN_SCOPE = "(?2 IS NULL OR j.submitted_at > ?3 OR j.name IN (SELECT value FROM json_each(?2)))"
_MISSING = "r.n - r.received - r.moderated - (SELECT count(*) FROM image WHERE request = r.pk AND state = 'paid')"


def next_requests(
    connection: sqlite3.Connection,
    provider: str,
    scope: Scope,
    taken: Collection[int],
    limit: int,
    blocked: Collection[Block] = (),
    realtime: Collection[Block] = (),
    priority: int | None = None,
) -> list[QueuedRequest]:
    """Return up to `limit` pending requests that are neither `taken` (primary keys) nor blocked.

    Requests with paid URLs come first, ordered by expiry; then jobs by priority and age, each in the order of its
    file: only those of one `priority` if it is stated. Of jobs that go by batch, only those in `realtime` count.
    """
    names, since = scope_values(scope)
    allowed = f"{not_beyond(scope)}{not_blocked(blocked)}"
    expiring = connection.execute(
        "SELECT r.pk FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = r.job"
        " WHERE i.state = 'paid' AND r.status = 'pending' AND r.stated = j.revision AND j.provider = ?1"
        f" AND {IN_SCOPE}{allowed} GROUP BY r.pk ORDER BY min(i.expires_at) LIMIT ?4",
        (provider, names, since, limit + len(taken)),
    )
    found = {row[0]: None for row in expiring if row[0] not in taken}
    jobs = connection.execute(
        "SELECT j.pk, j.revision, j.mode FROM job j"
        f" WHERE j.provider = ?1 AND {IN_SCOPE} AND {may_be_realtime(realtime)} AND (?4 IS NULL OR j.priority = ?4)"
        " ORDER BY j.priority DESC, j.submitted_at, j.pk",
        (provider, names, since, priority),
    ).fetchall()
    for job_pk, revision, mode in jobs:
        if len(found) >= limit:
            break
        only = "" if mode == "realtime" else f" AND {matches(realtime)}"
        rows = connection.execute(
            "SELECT r.pk FROM job j JOIN request r ON r.job = j.pk WHERE j.pk = ?1 AND r.stated = ?2"
            " AND r.status = 'pending'"
            f"{allowed}{only} ORDER BY r.position LIMIT ?3",
            (job_pk, revision, limit + len(taken)),
        )
        found.update((row[0], None) for row in rows if row[0] not in taken)
    return read_queued(connection, list(found)[:limit])


def claim(connection: sqlite3.Connection, request_pk: int) -> str | None:
    """Mark a request as running and return the stem of its file names; None if it is no longer to be processed."""
    stem = free_stem(connection, request_pk)
    if stem is not None:
        connection.execute(
            "UPDATE request SET cancel_asked = cancel_asked AND status = 'running', status = 'running', stem = ?"
            " WHERE pk = ?",
            (stem, request_pk),
        )
    return stem


def missing_images(connection: sqlite3.Connection, request_pk: int) -> int:
    """Count the images of a request that are neither stored, nor paid, nor refused by the service."""
    row = connection.execute(f"SELECT {_MISSING} FROM request r WHERE r.pk = ?", (request_pk,)).fetchone()
    return int(row[0])


def free_stem(connection: sqlite3.Connection, request_pk: int, images: int | None = None) -> str | None:
    """Return the stem of a request's file names: its id, followed by part of its key if another request owns that name.

    None if the request is not to be processed: ended, cancelled or superseded in the meantime, or fewer than `images`
    are missing, or it has gone by batch.
    """
    row = connection.execute(
        "SELECT r.pk, r.job, r.id, r.key FROM request r JOIN job j ON j.pk = r.job"
        " WHERE r.pk = ?1 AND r.status IN ('pending', 'running') AND r.stated = j.revision"
        " AND (?2 IS NULL OR (NOT (r.status = 'running' AND r.cancel_asked)"
        f" AND {_MISSING} >= ?2 AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.request = r.pk"
        " AND a.outcome IS NULL AND a.batch IS NOT NULL)))",
        (request_pk, images),
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


def scope_values(scope: Scope) -> tuple[str | None, float]:
    """Return the values of the parameters 2 and 3 of `IN_SCOPE`."""
    return None if scope.names is None else json.dumps(sorted(scope.names)), scope.since


def not_beyond(scope: Scope) -> str:
    """Return the condition that excludes requests that a scope leaves out of its jobs."""
    if scope.only is not None:
        return f" AND r.pk IN ({', '.join(map(str, sorted(scope.only)))})"
    if scope.names is None or (scope.limit is None and not scope.only_redo):
        return ""
    names = json.dumps(sorted(scope.names)).replace("'", "''")
    limited = f"j.submitted_at <= {scope.limited_until!r} AND j.name IN (SELECT value FROM json_each('{names}'))"
    beyond = "NOT EXISTS (SELECT 1 FROM image o WHERE o.request = r.pk AND o.redo = 'asked')"
    if not scope.only_redo:
        beyond = f"r.position >= {scope.limit:d}"
    return f" AND NOT ({beyond} AND {limited})"


def not_blocked(blocked: Collection[Block]) -> str:
    """Return the condition that excludes blocked requests."""
    return f" AND NOT {matches(blocked)}" if blocked else ""


def text_literal(text: str) -> str:
    """Return text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def may_be_realtime(realtime: Collection[Block]) -> str:
    """Return the condition that a job has requests that are not for a batch."""
    jobs = ", ".join(str(block.job_pk) for block in realtime if block.job_pk is not None)
    return f"(j.mode = 'realtime' OR j.pk IN ({jobs}))"


def matches(blocks: Collection[Block], at: str | None = None) -> str:
    """Return the condition that a request is in one of these blocks; `at` is the provider if its job names a route.

    Model names come from users, so they are passed as JSON.
    """
    values = [[block.provider, block.job_pk, block.model, block.served_by] for block in blocks]
    provider = "(SELECT provider FROM job WHERE pk = r.job)" if at is None else text_literal(at)
    model = "json_extract(r.params, '$.model')"
    equal = " AND ".join(
        f"(json_extract(b.value, '$[{place}]') IS NULL OR json_extract(b.value, '$[{place}]') IS {column})"
        for place, column in enumerate((provider, "r.job", model, "r.served_by"))
    )
    return f"EXISTS (SELECT 1 FROM json_each({text_literal(json.dumps(values))}) b WHERE {equal})"


def read_queued(
    connection: sqlite3.Connection, request_pks: Sequence[int], provider: str | None = None
) -> list[QueuedRequest]:
    """Read requests by primary key, in the given order. `provider` serves those whose jobs name a route."""
    rows = connection.execute(
        "SELECT r.*, j.name AS job_name, j.provider, j.members, j.rehearsal, j.budget_usd,"
        " EXISTS (SELECT 1 FROM image WHERE request = r.pk AND state != 'lost') AS has_images"
        " FROM request r JOIN job j ON j.pk = r.job WHERE r.pk IN (SELECT value FROM json_each(?))",
        (json.dumps(request_pks),),
    )
    requests = {row["pk"]: _request(connection, row, provider) for row in rows}
    return [requests[pk] for pk in request_pks]


def _request(connection: sqlite3.Connection, row: sqlite3.Row, provider: str | None) -> QueuedRequest:
    images: list[sqlite3.Row] = []
    if row["has_images"]:
        query = (
            "SELECT i.*, a.provider FROM image i JOIN attempt a ON a.pk = i.attempt"
            " WHERE i.request = ? AND i.state != 'lost'"
        )
        images = connection.execute(query, (row["pk"],)).fetchall()
    route = None if row["members"] is None else row["provider"]
    return QueuedRequest(
        pk=row["pk"],
        job_pk=row["job"],
        job_name=row["job_name"],
        provider=row["provider"] if route is None or provider is None else provider,
        rehearsal=bool(row["rehearsal"]),
        budget_usd=row["budget_usd"],
        id=row["id"],
        served_by=row["served_by"],
        prompt=row["prompt"],
        params=json.loads(row["params"]),
        inputs=json.loads(row["inputs"]),
        n=row["n"],
        received=row["received"],
        moderated=row["moderated"],
        numbers=frozenset(image["number"] for image in images),
        urls=tuple(
            PaidUrl(image["pk"], image["number"], image["url"], image["expires_at"], image["provider"])
            for image in images
            if image["state"] == "paid"
        ),
        wait_until=row["wait_until"],
        route=route,
        cut_off=row["cut_off"],
    )

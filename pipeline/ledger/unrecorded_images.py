"""Images that are on disk and in no row of the ledger: finds them, and records those that prove to be a request's.

There are such images after an older copy of the ledger was restored, and after a kill between a file and its row.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.ledger.attempts import count_received, insert_image
from pipeline.ledger.queue import read_queued

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from pipeline.ledger.queue import QueuedRequest
    from pipeline.storage import StoredImage


def unknown_names(connection: sqlite3.Connection, on_disk: Iterable[str]) -> list[str]:
    """Return those of the names in an ImageStore that no row has, sorted."""
    rows = connection.execute(
        "SELECT j.name || '/' || i.file FROM image i JOIN job j ON j.pk = i.job WHERE i.file IS NOT NULL"
    )
    return sorted(set(on_disk).difference(row[0] for row in rows))


def known_files(connection: sqlite3.Connection, job: str) -> set[str]:
    """Return the files of all images of a job, relative to its folder."""
    rows = connection.execute(
        "SELECT i.file FROM image i JOIN job j ON j.pk = i.job WHERE j.name = ? AND i.file IS NOT NULL", (job,)
    )
    return {row[0] for row in rows}


def incomplete_requests(connection: sqlite3.Connection, job: str, keys: Iterable[str]) -> dict[str, QueuedRequest]:
    """Return by their keys the requests of a job that have one of these keys, and miss images; none that is running."""
    rows = connection.execute(
        "SELECT r.key, r.pk FROM request r JOIN job j ON j.pk = r.job"
        " WHERE j.name = ? AND r.received < r.n AND r.status != 'running'"
        " AND r.key IN (SELECT value FROM json_each(?))",
        (job, json.dumps(list(keys))),
    ).fetchall()
    found = read_queued(connection, [row["pk"] for row in rows])
    return {row["key"]: request for row, request in zip(rows, found, strict=True) if request.missing}


def record_found_images(
    connection: sqlite3.Connection,
    request: QueuedRequest,
    images: Sequence[StoredImage],
    request_id: str | None,
    total_usd: float | None,
    provider: str | None = None,
) -> None:
    """Record images on disk as those of a call that the ledger has forgotten, and when it was is not known.

    `total_usd` is what the request cost with this call; None if that is not known. `provider` made them: the job's own
    if it is None.
    """
    row = connection.execute(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome, request_id, cost_usd)"
        " SELECT pk, ?2, ?3, created_at, created_at, 'answered', ?4, max(0.0, ?5 - coalesce(cost_usd, 0.0))"
        " FROM request WHERE pk = ?1 RETURNING pk, sent_at, cost_usd",
        (request.pk, provider or request.provider, len(images), request_id, total_usd),
    ).fetchone()
    connection.execute(
        "UPDATE request SET attempts = attempts + 1,"
        " cost_usd = CASE WHEN ?2 IS NULL THEN cost_usd ELSE coalesce(cost_usd, 0.0) + ?2 END WHERE pk = ?1",
        (request.pk, row["cost_usd"]),
    )
    for image in images:
        insert_image(connection, request, row["pk"], image)
    count_received(connection, request.pk, len(images), row["sent_at"])

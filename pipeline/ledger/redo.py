"""Images that a person asks for again: which there are, what they cost, and what is recorded when they are asked for.

Such an image counts no longer as received, so its request is pending; it stays in its place until another one is
stored. Both files stay on disk.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.ledger.attempts import committed_usd
from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image of a job that is on disk. `redo` is `asked` or `replaced` if it is made again, or was."""

    image_pk: int
    request_pk: int
    request_id: str
    number: int
    file: str
    sha256: str
    redo: str | None
    superseded: int


def read_made_images(connection: sqlite3.Connection, job: str) -> list[MadeImage]:
    """Return every image of a job that is on disk, in the order of the job file."""
    rows = connection.execute(
        "SELECT i.pk, r.pk, r.id, i.number, i.file, i.sha256, i.redo, r.stated < j.revision"
        " FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = r.job"
        " WHERE i.state = 'stored' AND j.name = ? AND r.stated <= j.revision ORDER BY r.position, i.number",
        (job,),
    )
    return [MadeImage(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class RedoCost:
    """What is bought if images are made again: the images, and of these those that their requests miss already.

    `cost_usd` is None if it is not known.
    """

    requests: int
    images: int
    missing: int
    cost_usd: float | None

    def less(self, discount: float) -> RedoCost:
        """Return the same at a lower price, as by batch."""
        return replace(self, cost_usd=None if self.cost_usd is None else self.cost_usd * (1 - discount))


_TO_BUY = """
WITH chosen AS (
  SELECT r.n, r.estimate_usd, r.received, r.moderated,
    (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.state = 'paid') AS paid,
    (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.redo IS NULL
      AND i.pk IN (SELECT value FROM json_each(:images))) AS again,
    (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.redo = 'asked') AS asked
  FROM request r JOIN job j ON j.pk = r.job AND r.stated = j.revision WHERE j.name = :job AND (
    r.pk IN (SELECT request FROM image WHERE pk IN (SELECT value FROM json_each(:images)))
    OR r.status IN ('pending', 'running') AND EXISTS (SELECT 1 FROM image WHERE request = r.pk AND redo = 'asked'))),
counted AS (SELECT *, max(0, n - received - moderated - paid + again) AS images FROM chosen)
SELECT count(*), total(images), total(max(0, images - again - asked)),
  CASE WHEN sum(estimate_usd IS NULL) THEN NULL ELSE total(estimate_usd * images / n) END FROM counted
"""


def find_redo_cost(connection: sqlite3.Connection, job: str, image_pks: Collection[int]) -> RedoCost:
    """Return what is bought if these images of a job are made again, with what was asked for before and is queued."""
    row = connection.execute(_TO_BUY, {"job": job, "images": json.dumps(list(image_pks))}).fetchone()
    return RedoCost(row[0], int(row[1]), int(row[2]), row[3])


def ask_again(
    connection: sqlite3.Connection, image_pks: Collection[int], *, for_run_at_work: bool = False
) -> frozenset[int]:
    """Queue the requests of these images, so that each is made again; return the primary keys of the requests.

    With `for_run_at_work`, their jobs count as submitted now, so that a run that was given other jobs takes them up.
    """
    images = json.dumps(list(image_pks))
    with transaction(connection):
        asked = connection.execute(
            "UPDATE image SET redo = 'asked' WHERE pk IN (SELECT value FROM json_each(?)) AND state = 'stored'"
            " AND redo IS NULL RETURNING request",
            (images,),
        ).fetchall()
        connection.executemany("UPDATE request SET received = received - 1 WHERE pk = ?", asked)
        requests = connection.execute(
            "SELECT DISTINCT request FROM image WHERE pk IN (SELECT value FROM json_each(?)) AND redo = 'asked'",
            (images,),
        ).fetchall()
        connection.executemany(
            "UPDATE request SET status = 'pending', finished_at = NULL WHERE pk = ? AND status != 'running'", requests
        )
        if for_run_at_work:
            connection.execute(
                "UPDATE job SET submitted_at = ? WHERE pk IN (SELECT job FROM image WHERE pk IN"
                " (SELECT value FROM json_each(?)))",
                (time.time(), images),
            )
    return frozenset(row[0] for row in requests)


def find_requests(connection: sqlite3.Connection, job: str, keys: Collection[str]) -> frozenset[int]:
    """Return the primary keys of the requests of a job that have one of these content keys."""
    rows = connection.execute(
        "SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?"
        " AND r.key IN (SELECT value FROM json_each(?))",
        (job, json.dumps(list(keys))),
    )
    return frozenset(row[0] for row in rows)


def read_wanted_images(connection: sqlite3.Connection, job: str) -> dict[str, tuple[int, str]]:
    """Return how many images each request of a job wants, and its status, by its content key."""
    rows = connection.execute(
        "SELECT r.key, r.n, r.status FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?", (job,)
    )
    return {key: (n, status) for key, n, status in rows}


def budget_left(connection: sqlite3.Connection, job: str) -> float | None:
    """Return what a job's own budget leaves after what it has spent, or may have; None without a budget."""
    job_pk, budget = connection.execute("SELECT pk, budget_usd FROM job WHERE name = ?", (job,)).fetchone()
    return None if budget is None else max(0.0, float(budget) - committed_usd(connection, job_pk))

"""Plans → the ledger: what a job states is queued, what it no longer states is superseded, what failed is put back."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.engine.ledger import transaction
from pipeline.errors import BadInput, JobError, Problem

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from pipeline.spec.plan import ImageRequest, Plan

CHUNK = 1000
"""Requests in one transaction, so that a large submit never keeps a run waiting for long."""


def check_claim(connection: sqlite3.Connection, plan: Plan) -> None:
    """Refuse a job whose name belongs to another file that is still there. Raises JobError."""
    row = connection.execute("SELECT name, file, provider FROM job WHERE name = ?", (plan.name,)).fetchone()
    if row is None or plan.file is None or row["file"] in {None, str(plan.file)}:
        return
    if Path(row["file"]).exists():
        what = f"the name `{plan.name}` belongs to {row['file']}; give this job another with `name:`"
        raise JobError([Problem(str(plan.file), what)])


def submit(connection: sqlite3.Connection, plan: Plan, now: float | None = None) -> None:
    """Queue what a plan states. In short transactions; the last makes all of it count at once.

    A request that is known already keeps what it has: its images, its status, its attempts. Where more images are
    wanted than before, it is pending again.
    """
    now = time.time() if now is None else now
    with transaction(connection):
        job, revision = _open_revision(connection, plan, now)
    for first in range(0, len(plan.requests), CHUNK):
        with transaction(connection):
            _state(connection, plan, job, revision, plan.requests[first : first + CHUNK], first, now)
    with transaction(connection):
        connection.execute("UPDATE job SET revision = ?, submitted_at = ? WHERE pk = ?", (revision, now, job))


def _open_revision(connection: sqlite3.Connection, plan: Plan, now: float) -> tuple[int, int]:
    """Find or make the job; give it and the number of the statement to come. What a dead submit left is deleted."""
    connection.execute(
        "INSERT INTO job (name, file, provider, rehearsal, budget_usd, submitted_at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET file = excluded.file, provider = excluded.provider,"
        " rehearsal = excluded.rehearsal, budget_usd = excluded.budget_usd",
        (
            plan.name,
            plan.file and str(plan.file),
            plan.provider.name,
            plan.provider.sandbox is not None,
            plan.budget_usd,
            now,
        ),
    )
    job, revision = connection.execute("SELECT pk, revision FROM job WHERE name = ?", (plan.name,)).fetchone()
    connection.execute("DELETE FROM request WHERE job = ? AND since > ?", (job, revision))
    return job, revision + 1


def _state(
    connection: sqlite3.Connection,
    plan: Plan,
    job: int,
    revision: int,
    requests: Iterable[ImageRequest],
    first: int,
    now: float,
) -> None:
    connection.executemany(
        "INSERT INTO request (job, key, since, stated, position, id, operation, prompt, params, variables, inputs, n,"
        " endpoint, created_at) VALUES (?, ?, ?3, ?3, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (job, key) DO UPDATE SET stated = excluded.stated, position = excluded.position,"
        " id = excluded.id, variables = excluded.variables, inputs = excluded.inputs, n = excluded.n,"
        " status = CASE"
        "  WHEN received + moderated < excluded.n AND excluded.n > n AND status != 'running' THEN 'pending'"
        "  WHEN received >= excluded.n AND status IN ('pending', 'partial', 'failed', 'cancelled') THEN 'succeeded'"
        "  ELSE status END",
        (
            (
                job,
                request.key,
                revision,
                position,
                request.id,
                request.operation,
                request.prompt,
                json.dumps(request.params, ensure_ascii=False),
                json.dumps(request.variables, ensure_ascii=False),
                json.dumps([asdict(one) for one in request.inputs], ensure_ascii=False),
                request.n,
                plan.provider.base_url,
                now,
            )
            for position, request in enumerate(requests, first)
        ),
    )


def put_back(connection: sqlite3.Connection, names: Iterable[str] | None) -> int:
    """Put what failed, came back partial or was cancelled back into the queue, of these jobs or of all; how many.

    What the service moderated is asked for again, since a person has decided so.
    """
    with transaction(connection):
        return connection.execute(
            "UPDATE request SET status = 'pending', moderated = 0, finished_at = NULL"
            " WHERE status IN ('failed', 'partial', 'cancelled') AND pk IN (SELECT r.pk FROM request r"
            " JOIN job j ON j.pk = r.job WHERE r.since <= j.revision AND j.revision <= r.stated"
            " AND (?1 IS NULL OR j.name IN (SELECT value FROM json_each(?1))))",
            (None if names is None else json.dumps(list(names)),),
        ).rowcount


def cancel(connection: sqlite3.Connection, name: str, now: float | None = None) -> int:
    """Take what is pending of a job out of the queue; how many. Calls in flight end as they would."""
    with transaction(connection):
        return connection.execute(
            "UPDATE request SET status = 'cancelled', finished_at = ? WHERE status = 'pending'"
            " AND job = (SELECT pk FROM job WHERE name = ?)",
            (time.time() if now is None else now, name),
        ).rowcount


def known_names(connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    """Give the jobs' names as the ledger spells them. Raises BadInput for one that it does not know."""
    found = []
    for name in names:
        row = connection.execute("SELECT name FROM job WHERE name = ? AND revision > 0", (name,)).fetchone()
        if row is None:
            known = [
                other[0]
                for other in connection.execute("SELECT name FROM job WHERE revision > 0 ORDER BY name LIMIT 20")
            ]
            hint = f"known are {', '.join(known)}" if known else "nothing has been submitted here yet"
            raise BadInput(f"there is no job `{name}`; {hint}")
        found.append(row[0])
    return found

"""Writes plans to the ledger: queues what a job states, supersedes what it no longer states, cancels jobs."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.errors import BadInput
from pipeline.ledger.database import transaction
from pipeline.ledger.job_modes import write_mode
from pipeline.ledger.job_names import known_hint
from pipeline.ledger.other_keys import record_own_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.planning.plan import ImageRequest, Plan

CHUNK = 100
"""Requests that are written between two looks at the clock."""

_JSON = json.JSONEncoder(ensure_ascii=False)

HOLD_SECONDS, RELEASE_SECONDS = 0.02, 0.01
"""For how long a large submit locks the ledger, and then releases it for a run, which asks for it every millisecond."""


def submit(connection: sqlite3.Connection, plan: Plan, now: float | None = None) -> None:
    """Queue what a plan states: new requests in short transactions, of which the last makes all of them count at once.

    A request that is known already keeps its images, its status and its attempts; if more images are wanted than
    before, it is pending again. What the plan leaves out is superseded, unless the plan is a part of the job. One
    submit at a time; what an interrupted one left behind is deleted.
    """
    now = time.time() if now is None else now
    with transaction(connection):
        job_pk, revision = _open_revision(connection, plan, now)
    try:
        _in_short_transactions(connection, _delete_leftovers(connection, job_pk, revision))
        _in_short_transactions(connection, _state_all(connection, plan, job_pk, revision, now))
        with transaction(connection):
            _make_count(connection, plan, job_pk, revision, now)
    finally:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("DROP TABLE temp.known")


def _open_revision(connection: sqlite3.Connection, plan: Plan, now: float) -> tuple[int, int]:
    """Return the job's primary key, created if it is new, and its next revision. Changes nothing that counts yet."""
    connection.execute(
        "CREATE TEMP TABLE known (key TEXT PRIMARY KEY, position, id, custom_id, variables, inputs, n, estimate_usd)"
        " WITHOUT ROWID"
    )
    connection.execute(
        "INSERT INTO job (name, provider, rehearsal, submitted_at) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
        (plan.name, plan.provider.name, plan.provider.sandbox is not None, now),
    )
    job_pk, revision = connection.execute("SELECT pk, revision FROM job WHERE name = ?", (plan.name,)).fetchone()
    return job_pk, revision + 1


def _in_short_transactions(connection: sqlite3.Connection, steps: Iterator[None]) -> None:
    """Take all steps of a large operation, in transactions between which the ledger is free for a moment."""
    over = False
    while not over:
        until = time.monotonic() + HOLD_SECONDS
        with transaction(connection):
            for _ in steps:
                if time.monotonic() >= until:
                    break
            else:
                over = True
        if not over:
            time.sleep(RELEASE_SECONDS)


def _delete_leftovers(connection: sqlite3.Connection, job_pk: int, revision: int) -> Iterator[None]:
    """Delete what an interrupted submit left behind: it never counted, so all of it is pending."""
    while connection.execute(
        "DELETE FROM request WHERE pk IN"
        " (SELECT pk FROM request WHERE job = ? AND stated >= ? AND status = 'pending' LIMIT ?)",
        (job_pk, revision, CHUNK),
    ).rowcount:
        yield


def _state_all(connection: sqlite3.Connection, plan: Plan, job_pk: int, revision: int, now: float) -> Iterator[None]:
    for first in range(0, len(plan.requests), CHUNK):
        _state(connection, plan, job_pk, revision, plan.requests[first : first + CHUNK], first, now)
        yield


def _state(
    connection: sqlite3.Connection,
    plan: Plan,
    job_pk: int,
    revision: int,
    requests: Iterable[ImageRequest],
    first: int,
    now: float,
) -> None:
    """Insert new requests, which do not count yet; keep what the plan says of known requests in a temporary table."""
    written: dict[int, str] = {}  # parameters as JSON, by identity: requests share them
    for position, request in enumerate(requests, first):
        own = (
            request.id,
            request.custom_id,
            _JSON.encode(request.variables),
            _JSON.encode([asdict(input_file) for input_file in request.inputs]) if request.inputs else "[]",
            request.n,
            request.estimate_usd,
        )
        params = written.get(id(request.params)) or _JSON.encode(request.params)
        written[id(request.params)] = params
        is_new = connection.execute(
            "INSERT INTO request (job, key, stated, position, operation, served_by, prompt, params, endpoint,"
            " created_at, id, custom_id, variables, inputs, n, estimate_usd)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (job, key) DO NOTHING",
            (
                *(job_pk, request.key, revision, position),
                *(request.operation, request.served_by, request.prompt, params),
                *(plan.provider.base_url, now, *own),
            ),
        ).rowcount
        if not is_new:
            connection.execute("INSERT INTO temp.known VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (request.key, position, *own))
            record_own_key(connection, job_pk, request)


def _make_count(connection: sqlite3.Connection, plan: Plan, job_pk: int, revision: int, now: float) -> None:
    """Make the new revision count: at once what it adds, what it changes and what it leaves out."""
    connection.execute(
        "UPDATE request SET stated = ?1, position = known.position, id = known.id, custom_id = known.custom_id,"
        " variables = known.variables, inputs = known.inputs, n = known.n, estimate_usd = known.estimate_usd,"
        " status = CASE"
        "  WHEN received + moderated < known.n AND known.n > request.n AND status != 'running' THEN 'pending'"
        "  WHEN received >= known.n AND status IN ('pending', 'partial', 'failed', 'cancelled') THEN 'succeeded'"
        "  ELSE status END,"
        " finished_at = CASE WHEN status = 'running' THEN NULL"
        "  WHEN received >= known.n THEN coalesce(finished_at, ?2)"
        "  WHEN received + moderated < known.n AND known.n > request.n THEN NULL ELSE finished_at END"
        " FROM temp.known WHERE request.job = ?3 AND request.key = known.key",
        (revision, now, job_pk),
    )
    if plan.is_part:
        connection.execute(
            "UPDATE request SET stated = ?1 WHERE job = ?2 AND stated = ?1 - 1",
            (revision, job_pk),
        )
    connection.execute(
        "UPDATE job SET file = ?, provider = ?, members = ?, rehearsal = ?, budget_usd = ?, revision = ?,"
        " submitted_at = ? WHERE pk = ?",
        (
            None if plan.file is None or plan.reads_stdin else str(plan.file),  # else the file states the job
            plan.provider.name,
            json.dumps([member.name for member in plan.members]) if plan.members else None,
            plan.provider.sandbox is not None,
            *(plan.budget_usd, revision, now, job_pk),
        ),
    )
    write_mode(connection, job_pk, plan.mode, plan.deadline)


_CANCEL = """
UPDATE request SET status = 'cancelled', finished_at = ? WHERE (job, stated) =
 (SELECT pk, revision FROM job WHERE name = ?) AND (status = 'pending' OR status = 'running'
 AND EXISTS (SELECT 1 FROM attempt WHERE request = request.pk)
 AND NOT EXISTS (SELECT 1 FROM attempt WHERE request = request.pk AND outcome IS NULL)
 AND NOT EXISTS (SELECT 1 FROM image WHERE request = request.pk AND state = 'paid'))
"""

_CANCEL_LATER = """
UPDATE request SET cancel_asked = 1 WHERE status = 'running' AND (job, stated) =
 (SELECT pk, revision FROM job WHERE name = ?)
"""


def cancel(connection: sqlite3.Connection, name: str, now: float | None = None) -> int:
    """Take the requests of a job out of the queue that are pending, or wait in a run until they are called again.

    Return how many. Calls and downloads in flight still finish, and no other call follows them.
    """
    with transaction(connection):
        cancelled = connection.execute(_CANCEL, (time.time() if now is None else now, name)).rowcount
        connection.execute(_CANCEL_LATER, (name,))
        return cancelled


def known_names(connection: sqlite3.Connection, names: Iterable[str]) -> list[str]:
    """Return the jobs' names as the ledger spells them. Raises BadInput for one that it does not know."""
    found = []
    for name in names:
        row = connection.execute("SELECT name FROM job WHERE name = ? AND revision > 0", (name,)).fetchone()
        if row is None:
            raise BadInput(f"there is no job `{name}`; {known_hint(connection, name)}")
        found.append(row[0])
    return found

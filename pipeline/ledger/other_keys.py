"""Other keys of requests: what was bought under a provider's name is known under its route's name, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from pipeline.planning.plan import ImageRequest, Plan


def with_known_keys(connection: sqlite3.Connection, plan: Plan) -> Plan:
    """Return the plan with the keys under which the ledger knows its requests.

    A request is looked up under the job's own words first, then under the other names; what is found keeps its key, and
    its own becomes another one of it.
    """
    job = connection.execute("SELECT pk FROM job WHERE name = ? AND revision > 0", (plan.name,)).fetchone()
    if job is None:
        return plan
    known = dict(
        connection.execute(
            "SELECT o.key, r.key FROM other_key o JOIN request r ON r.pk = o.request WHERE o.job = ?", (job["pk"],)
        ).fetchall()
    )
    if not known and not any(request.other_keys for request in plan.requests):
        return plan
    known.update((key, key) for (key,) in connection.execute("SELECT key FROM request WHERE job = ?", (job["pk"],)))
    return replace(plan, requests=[_known(request, known) for request in plan.requests])


def _known(request: ImageRequest, known: dict[str, str]) -> ImageRequest:
    key = next((known[one] for one in (request.key, *request.other_keys) if one in known), request.key)
    if key == request.key:
        return request
    stem, _, end = request.id.rpartition("-")
    is_generated = stem and len(end) >= 8 and request.key.startswith(end)
    return replace(
        request,
        key=key,
        id=f"{stem}-{key[: len(end)]}" if is_generated else request.id,
        own_key=request.key,
    )


def record_own_key(connection: sqlite3.Connection, job_pk: int, request: ImageRequest) -> None:
    """Record under which key a request is stated that the ledger knows under another one."""
    if request.own_key is not None:
        connection.execute(
            "INSERT INTO other_key (job, key, request) SELECT ?1, ?2, pk FROM request WHERE job = ?1 AND key = ?3"
            " ON CONFLICT DO NOTHING",
            (job_pk, request.own_key, request.key),
        )

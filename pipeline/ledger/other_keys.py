"""What the ledger knows of a plan's requests: their keys under the names of routes, and expansions of their prompts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.planning.identity import is_generated_id

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from pipeline.planning.plan import ImageRequest, Plan


def with_known_keys(connection: sqlite3.Connection, plan: Plan) -> Plan:
    """Return the plan with the keys under which the ledger knows its requests.

    A request is looked up under the job's own words first, then under the other names; what is found keeps its key, and
    its own becomes another one of it. A dynamic prompt that is found keeps its expansion.
    """
    job = connection.execute("SELECT pk FROM job WHERE name = ? AND revision > 0", (plan.name,)).fetchone()
    if job is None:
        return plan
    known = dict(
        connection.execute(
            "SELECT o.key, r.key FROM other_key o JOIN request r ON r.pk = o.request WHERE o.job = ?", (job["pk"],)
        ).fetchall()
    )
    is_dynamic = any(request.expansion_key for request in plan.requests)
    if not known and not is_dynamic and not any(request.other_keys for request in plan.requests):
        return plan
    known.update((key, key) for (key,) in connection.execute("SELECT key FROM request WHERE job = ?", (job["pk"],)))
    requests = [_known(request, known) for request in plan.requests]
    if is_dynamic:
        rows = connection.execute("SELECT key, prompt, id FROM request WHERE job = ?", (job["pk"],))
        kept = {row["key"]: (row["prompt"], row["id"]) for row in rows}
        requests = [_with_expansion(request, kept, known) for request in requests]
    return replace(plan, requests=requests)


def _with_expansion(
    request: ImageRequest, kept: Mapping[str, tuple[str | None, str]], known: Mapping[str, str]
) -> ImageRequest:
    """Return a dynamic request with the expansion that the ledger has of it or of its first part, and its known id."""
    if request.expansion_key is None:
        return request
    first_prompt, _ = kept.get(known.get(request.expansion_key, ""), (None, ""))
    prompt, known_id = kept.get(request.key, (first_prompt, ""))
    end = request.id.rpartition("-")[2]
    has_known_id = is_generated_id(request.id, request.key) and known_id.endswith(f"-{end}")
    return replace(
        request,
        prompt=request.prompt if prompt is None else prompt,
        id=known_id if has_known_id else request.id,
    )


def _known(request: ImageRequest, known: dict[str, str]) -> ImageRequest:
    key = next(
        (known[candidate] for candidate in (request.key, *request.other_keys) if candidate in known), request.key
    )
    if key == request.key:
        return request
    stem, _, end = request.id.rpartition("-")
    is_generated = is_generated_id(request.id, request.key)
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

"""Finds another job that has a plan's requests already, as after its file was copied or renamed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from pipeline.planning.plan import Plan

SAMPLE = 64
"""Requests of a plan, evenly spread, that are looked up in every other job: a few lookups, however long the plan is."""


@dataclass(frozen=True, slots=True)
class EqualRequests:
    """Another job that has most of a plan's requests: how many of them it has made, or has in its queue."""

    job: str
    file: str | None
    made: int
    queued: int


def equal_requests_warning(connection: sqlite3.Connection, plan: Plan) -> str | None:
    """Return a sentence about another job that has most of the plan's requests, with what keeps them; None if none."""
    found = find_equal_requests(connection, plan)
    if found is None:
        return None
    state = "made or queued" if found.made and found.queued else "made" if found.made else "queued"
    total, number = len(plan.requests), found.made + found.queued
    counted = f"{number:,} of {total:,} requests are" if total != 1 else "the only request is"
    return f"{counted} already {state} in job `{found.job}`, and would be paid again; {_remedy(plan, found)}"


def _remedy(plan: Plan, found: EqualRequests) -> str:
    if plan.name == f"{found.job}.{plan.provider.name}":
        return f"leave out `--provider {plan.provider.name}` to keep them"
    if found.job == f"{plan.name}.{plan.provider.name}":
        return f"add `--provider {plan.provider.name}` to keep them"
    if plan.file is None:
        return f"name the job `{found.job}` to keep them"
    is_batch_file = Path(plan.file).suffix.lower() == ".jsonl"  # its job has the file's name, and no other
    line = f"put `name: {found.job}` into the file to keep them"
    if is_batch_file:
        line = f"rename the file to {found.job}.jsonl to keep them"
    if found.file is not None and Path(found.file).exists():
        if is_batch_file:
            return f"use {found.file} in its place to keep them"
        return f"{line}, and remove {found.file}, to which that name belongs"
    return f"{line}, or type `pipeline rename {found.job} {plan.name}`"


def find_equal_requests(connection: sqlite3.Connection, plan: Plan) -> EqualRequests | None:
    """Return the other job that has most of the plan's requests; None if none has half, or the plan's own job has."""
    keys = [request.key for request in plan.requests]
    sample = keys[:: max(1, len(keys) // SAMPLE)]
    rows = connection.execute(
        "SELECT j.pk, j.name, j.file, count(*) AS found FROM job j CROSS JOIN request r ON r.job = j.pk"
        " AND r.key IN (SELECT value FROM json_each(?1)) WHERE j.revision > 0"
        " AND (r.received > 0 OR r.status IN ('pending', 'running') AND r.stated = j.revision AND j.name != ?2)"
        " GROUP BY j.pk ORDER BY found DESC, j.pk",
        (json.dumps(sample), plan.name),
    ).fetchall()
    most = [row for row in rows if row["found"] * 2 >= len(sample)]
    if not most or any(row["name"].lower() == plan.name.lower() for row in most):
        return None
    made, queued = connection.execute(
        "SELECT total(r.received > 0), total(r.received = 0 AND r.status IN ('pending', 'running')"
        " AND r.stated = (SELECT revision FROM job WHERE pk = ?2))"
        " FROM json_each(?1) k CROSS JOIN request r ON r.job = ?2 AND r.key = k.value",
        (json.dumps(keys), most[0]["pk"]),
    ).fetchone()
    return EqualRequests(most[0]["name"], most[0]["file"], int(made), int(queued))

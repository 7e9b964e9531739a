"""Compares a plan with what its job states in the ledger: which requests are new, changed, kept and left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from pipeline.planning.plan import ImageRequest, Plan


@dataclass(slots=True)
class _Recorded:
    """A request of the job, as the ledger has it. Without `is_stated` the job has left it out before."""

    id: str
    n: int
    status: str
    spent_usd: float | None
    is_stated: bool


@dataclass(slots=True)
class Changes:
    """What submitting a plan would change. Every id is in one of the four lists.

    Changed is what has the id of another request, or wants more images than before; the request whose id it has is
    not among those left out. Kept is what the ledger knows, also what was left out once and is `put back`.
    """

    new: list[ImageRequest] = field(default_factory=list)
    changed: list[ImageRequest] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    kept_usd: list[float | None] = field(default_factory=list)  # spent for each; None if that is unknown
    superseded_usd: list[float | None] = field(default_factory=list)
    kept_unmade: Counter[str] = field(default_factory=Counter)
    """Of those kept: how many have failed, are cancelled, came back partial, or are put back."""


def find_changes(connection: sqlite3.Connection, plan: Plan) -> Changes:
    """Return what submitting a plan would change; its keys are those under which the ledger knows its requests."""
    recorded = _read(connection, plan.name)
    stated = {
        recorded_request.id.lower(): key for key, recorded_request in recorded.items() if recorded_request.is_stated
    }
    changes, planned, ids = Changes(), set(), set()
    for request in plan.requests:
        planned.add(request.key)
        ids.add(name := request.id.lower())
        known = recorded.get(request.key)
        if stated.get(name, request.key) != request.key or (known is not None and request.n > known.n):
            changes.changed.append(request)
        elif known is None:
            changes.new.append(request)
        else:
            changes.kept.append(request.id)
            changes.kept_usd.append(known.spent_usd)
            if state := _unmade(known):
                changes.kept_unmade[state] += 1
    for key, recorded_request in recorded.items() if not plan.is_part else ():
        if recorded_request.is_stated and key not in planned and recorded_request.id.lower() not in ids:
            changes.superseded.append(recorded_request.id)
            changes.superseded_usd.append(recorded_request.spent_usd)
    return changes


def _unmade(known: _Recorded) -> str | None:
    if not known.is_stated:
        return "put back"
    return known.status if known.status in {"failed", "partial", "cancelled"} else None


def _read(connection: sqlite3.Connection, name: str) -> dict[str, _Recorded]:
    """Return the requests that a job states or has stated, by their keys, in their order."""
    rows = connection.execute(
        "SELECT r.key, r.id, r.n, r.status, CASE WHEN r.received THEN r.cost_usd ELSE coalesce(r.cost_usd, 0.0) END,"
        " r.stated = j.revision"
        " FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ? AND r.stated <= j.revision ORDER BY r.position",
        (name,),
    )
    return {key: _Recorded(*values) for key, *values in rows}

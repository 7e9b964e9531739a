"""Writes what submitting a plan would change, for people and as JSON: the option `--diff` of `pipeline plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import ledger
from pipeline.ledger.changes import find_changes
from pipeline.ledger.other_keys import with_known_keys
from pipeline.reports.facts import counted, dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.ledger.changes import Changes
    from pipeline.planning.plan import ImageRequest, Plan
    from pipeline.reports.forms import ChangeForm, DiffForm

_MAX_IDS = 10
_SIGNS = {"new": "+", "changed": "~", "kept": "=", "superseded": "-"}


def read_changes(folder: Path, plan: Plan) -> Changes:
    """Return what submitting a plan to an output folder would change."""
    with ledger.reading(folder) as connection:
        return find_changes(connection, with_known_keys(connection, plan))


def diff_json(changes: Changes, costs: Mapping[str, float | None]) -> DiffForm:
    """Return the changes as `plan --diff --json` shows them; `costs` are those of what is missing, by key.

    What is new or changed has what it will cost, null if that is unknown; the rest has what was spent, likewise.
    """
    return {
        "new": _to_come(changes.new, costs),
        "changed": _to_come(changes.changed, costs),
        "kept": _form(changes.kept, changes.kept_usd),
        "superseded": _form(changes.superseded, changes.superseded_usd),
    }


def _to_come(requests: Sequence[ImageRequest], costs: Mapping[str, float | None]) -> ChangeForm:
    return _form([request.id for request in requests], [costs.get(request.key, 0.0) for request in requests])


def _form(ids: list[str], usd: Sequence[float | None]) -> ChangeForm:
    known = [cost for cost in usd if cost is not None]
    return {"count": len(ids), "cost_usd": round(sum(known, 0.0), 6) if len(known) == len(usd) else None, "ids": ids}


def diff_lines(diff: Mapping[str, Any], kept_unmade: Mapping[str, int]) -> Iterator[str]:
    """Yield the changes for people; `kept_unmade` counts those kept that are not made."""
    for kind, sign in _SIGNS.items():
        found = diff[kind]
        unmade = [f"{number:,} {state}" for state, number in sorted(kept_unmade.items())] if kind == "kept" else []
        beside = f" ({', '.join(unmade)})" if unmade else ""
        money = _money(found["cost_usd"], is_spent=kind in {"kept", "superseded"})
        more = f" and {found['count'] - _MAX_IDS:,} more" if found["count"] > _MAX_IDS else ""
        ids = f": {', '.join(found['ids'][:_MAX_IDS])}{more}" if found["ids"] else ""
        yield f"{sign} {kind}: {counted(found['count'], 'request')}{beside}, {money}{ids}"


def _money(usd: float | None, *, is_spent: bool) -> str:
    if usd is None:
        return "unknown cost" if is_spent else "unknown cost to come"
    return f"{dollars(usd)} {'spent' if is_spent else 'to come'}"

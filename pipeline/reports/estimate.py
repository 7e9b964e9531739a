"""Compares a plan with the ledger and estimates what a run would do, take and cost: `pipeline plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import ledger
from pipeline.ledger.claim import compare, superseded_warning
from pipeline.ledger.job_summary import received_images
from pipeline.reports.facts import dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.models.table import Models
    from pipeline.planning.plan import ImageRequest, Plan


def estimate_plan(folder: Path, plan: Plan, models: Models) -> dict[str, Any]:
    """Return what a plan would do, as `plan --json` shows it; minutes and cost are those of what is missing."""
    with ledger.reading(folder) as connection:
        have, claim = received_images(connection, plan.name), compare(connection, plan)
    missing = [(request, count) for request in plan.requests if (count := request.n - have.get(request.key, 0)) > 0]
    images = sum(count for _, count in missing)
    cost, assumed = _estimate(missing, models)
    limit = plan.provider.rate_limit
    return {
        "job": plan.name,
        "provider": plan.provider.name,
        "requests": len(plan.requests),
        "images": plan.images,
        "missing": {"requests": len(missing), "images": images},
        "superseded": claim.leaving,
        "minutes": None if limit is None else round(images / limit.per_minute, 2),
        "cost_usd": None if cost is None else round(cost, 6),
        "assumed": assumed,
        "rehearsal": plan.provider.sandbox is not None,
        "warnings": [*plan.warnings, *filter(None, [superseded_warning(claim)])],
    }


def _estimate(missing: list[tuple[ImageRequest, int]], models: Models) -> tuple[float | None, list[str]]:
    """Return the cost of what is missing, None if one request's model has no price, and what was assumed for it."""
    total: float | None = 0.0
    assumed: dict[str, None] = {}
    for request, count in missing:
        model = models.find(request.params.get("model"))
        if model is None:
            total = None
            continue
        sizes = [(one.width, one.height) for one in request.inputs if one.role == "image"]
        estimate = model.estimate(request.served_by, request.prompt, request.params, count, sizes)
        total = None if total is None or estimate.usd is None else total + estimate.usd
        assumed.update(dict.fromkeys(estimate.assumed))
    return total, list(assumed)


def estimate_lines(view: Mapping[str, Any]) -> Iterator[str]:
    """Yield the estimate for people."""
    missing = view["missing"]
    yield f"{view['job']} at provider `{view['provider']}`: {view['requests']} requests for {view['images']} images"
    yield f"  missing: {missing['requests']} requests, {missing['images']} images"
    if view["minutes"] is not None:
        yield f"  time: {view['minutes']:.1f} minutes at the limit"
    rehearsal = " (a rehearsal: nothing is billed)" if view["rehearsal"] else ""
    yield f"  cost: {'unknown' if view['cost_usd'] is None else dollars(view['cost_usd'])}{rehearsal}"
    for line in view["assumed"]:
        yield f"  assumed: {line}"
    for line in view["warnings"]:
        yield f"  warning: {line}"

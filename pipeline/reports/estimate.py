"""Compares a plan with the ledger and estimates what a run would do, take and cost: `pipeline plan`."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.ledger.equal_requests import equal_requests_warning
from pipeline.ledger.job_name_claim import compare
from pipeline.ledger.job_summary import received_images, unsuccessful_requests
from pipeline.ledger.other_keys import with_known_keys
from pipeline.ledger.purchases import committed_of_job
from pipeline.models.prices import price_key
from pipeline.reports.claim_words import claim_words
from pipeline.reports.controls import ControlsInForce
from pipeline.reports.facts import counted, dollars, duration
from pipeline.reports.first_requests import first_request_lines, first_requests_json
from pipeline.reports.mode_estimates import estimate_modes, mode_lines
from pipeline.reports.plan_diff import diff_json
from pipeline.reports.status import read_owner

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.provider import Provider
    from pipeline.ledger.changes import Changes
    from pipeline.models.prices import Estimate, PriceKey
    from pipeline.models.table import Models
    from pipeline.planning.plan import ImageRequest, Plan
    from pipeline.reports.forms import PlanForm


def estimate_plan(
    folder: Path,
    plan: Plan,
    models: Models,
    budget_usd: float | None = None,
    tables: Mapping[str, Models] | None = None,
    changes: Changes | None = None,
) -> PlanForm:
    """Return what a plan would do, as `plan --json` shows it; minutes and cost are those of what is missing.

    `tables` are those of providers with models of their own. On a route the cost is that at the members that cost most,
    and `least_usd` that at those that cost least.
    They are of the mode that will be in force; `modes` has both. `budget_usd` is the budget in force, and
    `budget_requests` how many of the missing requests it allows, about; None without a budget or a price. `changes` are
    those of the plan, to be shown as `diff`.
    """
    with ledger.reading(folder) as connection:
        plan = with_known_keys(connection, plan)
        have, claim = received_images(connection, plan.name), compare(connection, plan)
        serving, owner = {provider.name: provider for provider in plan.serving}, read_owner(folder, connection)
        controls = ControlsInForce.read(connection, serving, owner)
        others = (equal_requests_warning(connection, plan), _ended_warning(connection, plan, have))
        spent = 0.0 if budget_usd is None else committed_of_job(connection, plan.name)
    service, members = controls.service_at_work(plan.provider, plan.serving), controls.members_at_work(plan.members)
    plan = replace(plan, provider=service, members=members)
    missing = [(request, count) for request in plan.requests if (count := request.n - have.get(request.key, 0)) > 0]
    images = sum(count for _, count in missing)
    full, least, assumed = _estimate(missing, plan.serving, models, tables or {})
    priced = [(request, count, usd) for (request, count), usd in zip(missing, full, strict=True)]
    modes = estimate_modes(plan, priced, models, time.time())
    costs = {request.key: usd for (request, _), usd in zip(missing, modes.costs, strict=True)}
    warnings, notes = claim_words(claim, costs)
    known, cost = [usd for usd in modes.costs if usd is not None], modes.chosen["cost_usd"]
    view: PlanForm = {
        "job": plan.name,
        "provider": plan.provider.name,
        "providers": controls.json(),
        "open_minutes": None if plan.provider.window is None else _open_minutes(plan.provider, images),
        "requests": len(plan.requests),
        "images": plan.images,
        "first": first_requests_json(plan.requests),
        "last_id": plan.requests[-1].id if plan.requests else None,
        "missing": {"requests": len(missing), "images": images},
        "superseded": claim.leaving,
        "mode": plan.mode,
        "in_force": modes.mode,
        "deadline": None if plan.deadline is None else datetime.fromtimestamp(plan.deadline, UTC).isoformat(),
        "minutes": modes.chosen["minutes"],
        "cost_usd": cost,
        "least_usd": least if modes.mode == "realtime" else cost,
        "modes": modes.json(),
        "assumed": assumed,
        "budget_usd": budget_usd,
        "spent_usd": round(spent, 6),
        "budget_requests": None if budget_usd is None or cost is None else _allowed(known, budget_usd - spent),
        "rehearsal": plan.provider.sandbox is not None,
        "warnings": [*plan.warnings, *modes.warnings, *warnings, *filter(None, others)],
        "notes": list(notes),
    }
    if changes is not None:
        view["diff"] = diff_json(changes, costs)
    return view


def _ended_warning(connection: sqlite3.Connection, plan: Plan, have: Mapping[str, int]) -> str | None:
    """Return a sentence on missing requests that a run leaves alone, since they have ended; None if there is none."""
    ended = unsuccessful_requests(connection, plan.name)
    left = sum(have.get(request.key, 0) < request.n <= ended.get(request.key, 0) for request in plan.requests)
    if not left:
        return None
    were, them = ("request has", "it") if left == 1 else ("requests have", "them")
    what = f"{left:,} missing {were} failed, come back partial or been cancelled, and a run leaves {them} alone"
    return f"{what}; to make {them}, run: pipeline resume {plan.name}"


def _allowed(costs: list[float], usd: float) -> int:
    """Return how many requests come, one after the other, before the next would exceed this amount."""
    return sum(total <= usd + 1e-9 for total in itertools.accumulate(costs))


def _estimate(
    missing: list[tuple[ImageRequest, int]],
    serving: Sequence[Provider],
    models: Models,
    tables: Mapping[str, Models],
) -> tuple[list[float | None], float | None, list[str]]:
    """Return the highest cost of each request that is missing, None without a price; the least of all; and what was
    assumed.
    """
    costs: list[float | None] = []
    least: list[float | None] = []
    assumed: dict[str, None] = {}
    priced: dict[PriceKey, tuple[float | None, float | None]] = {}
    for request, count in missing:
        images = sum(input_file.role == "image" for input_file in request.inputs)
        key = price_key(request.served_by, request.prompt, request.params, count, images)
        if key not in priced:
            estimates = list(_at_members(request, count, serving, models, tables))
            known = [estimate.usd for estimate in estimates if estimate.usd is not None]
            is_known = bool(known) and len(known) == len(estimates)
            priced[key] = (max(known), min(known)) if is_known else (None, None)
            assumed.update(dict.fromkeys(line for estimate in estimates for line in estimate.assumed))
        highest, lowest = priced[key]
        costs.append(highest)
        least.append(lowest)
    sums = [usd for usd in least if usd is not None]
    return costs, round(sum(sums), 6) if len(sums) == len(least) else None, list(assumed)


def _at_members(
    request: ImageRequest, count: int, serving: Sequence[Provider], models: Models, tables: Mapping[str, Models]
) -> Iterator[Estimate]:
    """Yield what a request costs at each provider that serves it and knows its model; equal tables count once."""
    name = request.params.get("model")
    able = [provider for provider in serving if provider.serves(name, request.served_by)]
    for table in {id(table): table for table in (tables.get(provider.name, models) for provider in able)}.values():
        model = table.find(name)
        if model is not None:
            sizes = [
                (input_file.width, input_file.height) for input_file in request.inputs if input_file.role == "image"
            ]
            yield model.estimate(request.served_by, request.prompt, request.params, count, sizes)


def estimate_lines(view: PlanForm) -> Iterator[str]:
    """Yield the estimate for people."""
    missing = view["missing"]
    asked = f"{counted(view['requests'], 'request')} for {counted(view['images'], 'image')}"
    yield f"{view['job']} at provider `{view['provider']}`: {asked}"
    yield from first_request_lines(view["first"], view["last_id"], view["requests"])
    yield f"  missing: {counted(missing['requests'], 'request')}, {counted(missing['images'], 'image')}"
    is_batch = view["in_force"] == "batch"
    if view["minutes"]:
        yield f"  time: {'within ' * is_batch}{duration(view['minutes'] * 60)}{'' if is_batch else _pace_words(view)}"
    rehearsal = " (a rehearsal: nothing is billed)" if view["rehearsal"] else ""
    yield f"  cost: {_cost_words(view)}{rehearsal}"
    yield from mode_lines(view)
    if (budget := view["budget_usd"]) is not None:
        yield f"  budget: {_budget_words(view, budget)}"
    for line in view["assumed"]:
        yield f"  assumed: {line}"
    for line in view["warnings"]:
        yield f"  warning: {line}"
    for line in view["notes"]:
        yield f"  note: {line}"


def _pace_words(view: PlanForm) -> str:
    open_minutes = view["open_minutes"]
    return " at the limit" + ("" if open_minutes is None else f", of which {duration(open_minutes * 60)} in its window")


def _open_minutes(provider: Provider, images: int) -> float | None:
    return None if provider.rate_limit is None else round(images / provider.rate_limit.per_minute, 2)


def _cost_words(view: PlanForm) -> str:
    cost, least = view["cost_usd"], view["least_usd"]
    if cost is None:
        return "unknown"
    return dollars(cost) if least is None or least >= cost else f"{dollars(least)} to {dollars(cost)}, by who serves it"


def _budget_words(view: PlanForm, budget: float) -> str:
    of = f", of which {dollars(view['spent_usd'])} is spent," if view["spent_usd"] else ""
    allowed, missing = view["budget_requests"], view["missing"]["requests"]
    if allowed is None:
        return f"{dollars(budget)}{of} cannot be compared with an unknown cost"
    if allowed >= missing:
        return f"{dollars(budget)}{of} is enough"
    return f"{dollars(budget)}{of} stops this after about {allowed:,} of {missing:,}"

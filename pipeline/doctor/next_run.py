"""What the next run is to make: of job files, or of what is queued, added up over requests that are alike."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import ledger
from pipeline.config.load import budget_in_force
from pipeline.errors import BadInput, ConfigError, LedgerError
from pipeline.ledger.demand import read_budgets, read_queued_demand
from pipeline.ledger.job_name_claim import check_claim
from pipeline.ledger.job_summary import read_job_summaries, received_images
from pipeline.ledger.other_keys import with_known_keys
from pipeline.ledger.purchases import committed_of_job
from pipeline.planning.build import load_models, make_plans
from pipeline.reports.controls import ControlsInForce, images_seconds
from pipeline.reports.estimate import estimate_plan

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.config.provider import Provider
    from pipeline.errors import Problem
    from pipeline.ledger.demand import QueuedDemand
    from pipeline.models.table import Models
    from pipeline.planning.build import JobOptions
    from pipeline.planning.plan import ImageRequest, Plan

_UNKNOWN_MINUTES = 12 * 60.0  # that a night without a limit may take
_BATCH_MINUTES = 24 * 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What is missing of a job's requests that share operation, model, size, quality and format.

    `service` is the provider or the route that the job names; `usd` is None if a price is missing.
    """

    job: str
    service: str
    served_by: str
    model: str | None
    params: Mapping[str, Any]
    requests: int
    images: int
    usd: float | None


@dataclass(frozen=True, slots=True)
class JobToMake:
    """One job of the next run: how much is missing, how long that takes, what it costs, and what it may cost."""

    name: str
    service: str
    rehearsal: bool
    requests: int
    images: int
    minutes: float | None
    usd: float | None
    spent_usd: float
    budget_usd: float | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NextRun:
    """All that the examination is about. `mistakes` are those of job files, whose jobs are missing in the rest."""

    config: Config
    environment: Mapping[str, str] = field(repr=False)
    now: float
    jobs: Sequence[JobToMake] = ()
    demands: Sequence[Demand] = ()
    plans: Sequence[Plan] = ()
    mistakes: Sequence[Problem] = ()
    names_files: bool = False  # it is about job files, and not about the queue
    tables: dict[str, Models] = field(default_factory=dict)  # the models of each provider

    def models(self, provider: Provider) -> Models:
        """Return the table of models that holds at a provider."""
        if provider.name not in self.tables:
            self.tables[provider.name] = load_models(self.config, provider)
        return self.tables[provider.name]

    def providers(self) -> list[Provider]:
        """Return the providers that are called; without a job, the config's own, else all that bill."""
        services = dict.fromkeys(job.service for job in self.jobs)
        if not services and self.config.provider is not None:
            services = dict.fromkeys([self.config.provider])
        if not services:
            services = dict.fromkeys(
                name for name, provider in self.config.providers.items() if provider.sandbox is None
            )
        members = {provider.name: provider for name in services for provider in self.members(name)}
        return list(members.values())

    def members(self, service: str) -> list[Provider]:
        """Return the providers of a service; none if the config does not have it any more."""
        try:
            return self.config.members(service)
        except ConfigError:
            return []

    def demands_at(self, provider: Provider) -> list[Demand]:
        """Return what a provider may be asked for."""
        return [
            demand
            for demand in self.demands
            if provider in self.members(demand.service) and provider.serves(demand.model, demand.served_by)
        ]

    def ends_at(self, provider: Provider) -> float:
        """Return when a provider will have made everything, in seconds since 1970, if it begins now."""
        minutes = [job.minutes for job in self.jobs if provider in self.members(job.service) and job.images]
        return self.now + 60 * sum(_UNKNOWN_MINUTES if estimate is None else estimate for estimate in minutes)


def read_next_run(
    config: Config, environment: Mapping[str, str], files: Sequence[Path], options: JobOptions
) -> NextRun:
    """Read what is to be made: of these job files, or of the queue if there is none. Raises BadInput of the config."""
    now = time.time()
    if not files:
        try:
            return _queued_run(config, environment, now)
        except LedgerError as error:
            return NextRun(config, environment, now, mistakes=error.problems)
    plans, mistakes = _plan_each(config, files, options)
    jobs, demands = [], []
    for plan in plans:
        try:
            jobs.append(_job_of_plan(config, plan, options))
        except BadInput as error:  # of the ledger
            mistakes += error.problems
        else:
            demands += _demands_of_plan(config, plan)
    return NextRun(config, environment, now, jobs, demands, plans, tuple(mistakes), names_files=True)


def _plan_each(config: Config, files: Sequence[Path], options: JobOptions) -> tuple[list[Plan], list[Problem]]:
    """Return the plans of all files that have no mistake, and the mistakes of the others."""
    try:
        return make_plans(config, files, options), []
    except BadInput as error:
        mistakes = list(error.problems)
    plans = []
    for file in files if len(files) > 1 else ():
        try:
            plans += make_plans(config, [file], options)
        except BadInput:
            continue
    return plans, mistakes


def _job_of_plan(config: Config, plan: Plan, options: JobOptions) -> JobToMake:
    tables = {provider.name: load_models(config, provider) for provider in plan.serving if provider.own_models}
    budget = budget_in_force(options.budget_usd, plan.budget_usd, config.budget_usd)
    with ledger.reading(config.output) as connection:
        check_claim(connection, with_known_keys(connection, plan), allow_shrink=options.allow_shrink)
        spent = committed_of_job(connection, plan.name)
    view = estimate_plan(config.output, plan, load_models(config), budget, tables)
    minutes = view["minutes"]
    if view["in_force"] == "batch":
        minutes = max(minutes or 0.0, _BATCH_MINUTES)
    return JobToMake(
        name=plan.name,
        service=plan.provider.name,
        rehearsal=plan.provider.sandbox is not None,
        requests=view["missing"]["requests"],
        images=view["missing"]["images"],
        minutes=minutes,
        usd=view["cost_usd"],
        spent_usd=spent,
        budget_usd=budget,
        warnings=tuple(view["warnings"]),
    )


def missing_requests(connection: sqlite3.Connection, plan: Plan) -> Iterator[tuple[ImageRequest, int]]:
    """Yield the requests of a plan that have not all their images, each with how many are missing."""
    plan = with_known_keys(connection, plan)
    have = received_images(connection, plan.name)
    for request in plan.requests:
        if (missing := request.n - have.get(request.key, 0)) > 0:
            yield request, missing


def _demands_of_plan(config: Config, plan: Plan) -> list[Demand]:
    found: dict[tuple[Any, ...], list[tuple[ImageRequest, int]]] = defaultdict(list)
    with ledger.reading(config.output) as connection:
        for request, missing in missing_requests(connection, plan):
            params = request.params
            names = tuple(str(params.get(name)) for name in ("model", "size", "quality", "output_format"))
            found[request.served_by, *names].append((request, missing))
    demands = []
    for same in found.values():
        first, costs = same[0][0], [_share(request, missing) for request, missing in same]
        known = [usd for usd in costs if usd is not None]
        demands.append(
            Demand(
                job=plan.name,
                service=plan.provider.name,
                served_by=first.served_by,
                model=_text(first.params.get("model")),
                params=first.params,
                requests=len(same),
                images=sum(missing for _, missing in same),
                usd=sum(known) if len(known) == len(costs) else None,
            )
        )
    return demands


def _share(request: ImageRequest, missing: int) -> float | None:
    return None if request.estimate_usd is None else request.estimate_usd * missing / request.n


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _queued_run(config: Config, environment: Mapping[str, str], now: float) -> NextRun:
    services = config.services
    with ledger.reading(config.output) as connection:
        summaries = [
            summary for summary in read_job_summaries(connection, None, config.discounts) if summary.unfinished
        ]
        controls = ControlsInForce.read(connection, config.providers)
        budgets, rows = read_budgets(connection), read_queued_demand(connection)
        spent = {summary.name: committed_of_job(connection, summary.name) for summary in summaries}
    jobs = []
    for summary in summaries:
        members = controls.members_at_work(config.members(summary.provider)) if summary.provider in services else ()
        seconds = images_seconds(members, summary.missing, now) if members else None
        minutes = _BATCH_MINUTES if summary.goes_by_batch else None if seconds is None else seconds / 60
        budget = budget_in_force(None, budgets[summary.name], config.budget_usd)
        jobs.append(
            JobToMake(
                name=summary.name,
                service=summary.provider,
                rehearsal=summary.rehearsal,
                requests=summary.unfinished,
                images=summary.missing,
                minutes=minutes,
                usd=summary.expected_usd,
                spent_usd=spent[summary.name],
                budget_usd=budget,
            )
        )
    return NextRun(config, environment, now, jobs, [_queued_demand(row) for row in rows])


def _queued_demand(row: QueuedDemand) -> Demand:
    return Demand(
        job=row.job,
        service=row.provider,
        served_by=row.served_by,
        model=row.model,
        params={"model": row.model, "size": row.size, "quality": row.quality, "output_format": row.output_format},
        requests=row.requests,
        images=row.images,
        usd=row.usd,
    )

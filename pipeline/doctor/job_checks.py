"""Checks of the jobs: mistakes, input images, masks, prices and budgets; nobody is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.hosts import place_of
from pipeline.config.organization import is_openai
from pipeline.config.routes import shared_limit_warnings
from pipeline.doctor.check import not_checked, problem, warning, well
from pipeline.models.table import Models
from pipeline.reports.facts import counted, dollars, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.provider import Provider
    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import Demand, JobToMake, NextRun
    from pipeline.errors import Problem

COST_TOLERANCE = 0.2
"""By what share a cost or a price may differ from what is expected."""


def check_jobs(next_run: NextRun) -> Iterator[Check]:
    """Yield how much each job lacks, its warnings, and every mistake in a job file."""
    for mistake in next_run.mistakes:
        what = "the job file" if next_run.names_files else "the ledger"
        yield problem(_field(mistake), str(mistake), f"correct that in {what}, then run `pipeline doctor` again")
    for job in next_run.jobs:
        if not next_run.members(job.service):
            what = f"{job.name}: the config has no provider `{job.service}`"
            yield problem("jobs", what, "add it under `providers:`, or submit the job with another one")
            continue
        yield well("jobs", _job_words(job))
        shared = shared_limit_warnings(next_run.members(job.service))  # a check of its own says more
        for sentence in job.warnings:
            if sentence not in shared:
                yield warning("jobs", f"{job.name}: {sentence}", "change the job if that is not meant")
    if not next_run.jobs and not next_run.mistakes:
        yield not_checked("jobs", "nothing is queued, and no job file was given")


def check_inputs(next_run: NextRun) -> Iterator[Check]:
    """Yield whether every input image and mask could be prepared; the mistakes themselves are those of the job."""
    if any(_field(mistake) in {"inputs", "masks"} for mistake in next_run.mistakes):
        return
    inputs = [file for plan in next_run.plans for request in plan.requests for file in request.inputs]
    if inputs:
        files = {file.sha256 for file in inputs}
        masks = {file.sha256 for file in inputs if file.role == "mask"}
        yield well("inputs", f"{counted(len(files), 'file')} prepared, {counted(len(masks), 'mask')} among them")
    elif not next_run.names_files:
        yield not_checked("inputs", "those of queued requests were checked when they were submitted")
    elif next_run.mistakes:
        yield not_checked("inputs", "a job file has mistakes")
    else:
        yield well("inputs", "no request has any")


def _field(mistake: Problem) -> str:
    """Return the name of the check that a mistake belongs to."""
    field = mistake.location.partition(" (")[0].rpartition(".")[2]
    if field in {"mask", "box", "edit"} or ".mask." in mistake.location:
        return "masks"
    return "inputs" if field.partition("[")[0] in {"image", "fit", "resize"} else "jobs"


def _job_words(job: JobToMake) -> str:
    if not job.images:
        return f"{job.name} at `{job.service}`: nothing is missing"
    time = "" if job.minutes is None else f", {duration(job.minutes * 60)}"
    cost = "cost unknown" if job.usd is None else dollars(job.usd) + " (a rehearsal: nothing is billed)" * job.rehearsal
    return f"{job.name} at `{job.service}`: {counted(job.images, 'image')} missing{time}, {cost}"


def check_budgets(next_run: NextRun) -> Iterator[Check]:
    """Yield whether each job's budget is enough for its estimate."""
    for job in next_run.jobs:
        if job.budget_usd is None:
            continue
        if job.usd is None:
            yield not_checked("budget", f"{job.name}: its cost is unknown")
            continue
        needed, budget = job.spent_usd + job.usd, dollars(job.budget_usd)
        if needed <= job.budget_usd + 1e-9:
            yield well("budget", f"{job.name}: {budget} is enough for {dollars(needed)}")
            continue
        what = f"{job.name}: {budget} stops it before the end, which needs {dollars(needed)}"
        yield warning("budget", what, f"raise `budget_usd` in the job file, or add --budget {needed + 0.005:.2f}")
    if all(job.budget_usd is None for job in next_run.jobs):
        yield not_checked("budget", "there is none" if next_run.jobs else "there is no job")


def check_prices(next_run: NextRun) -> Iterator[Check]:
    """Yield models without a price, and prices of the config that differ from the table of this program."""
    found = list(_price_faults(next_run))
    yield from dict.fromkeys(found)
    if not found:
        priced = {demand.model for demand in next_run.demands}
        yield (
            well("prices", f"known for {counted(len(priced), 'model')}")
            if priced
            else not_checked("prices", "nothing is missing")
        )


def _price_faults(next_run: NextRun) -> Iterator[Check]:
    built_in = Models.load()
    for provider in next_run.providers():
        for demand in next_run.demands_at(provider):
            known = _image_price(next_run.models(provider), demand)
            table = _image_price(built_in, demand)
            if known is None:
                what = f"`{provider.name}`: the cost of {_what(demand)} is unknown"
                yield warning("prices", what, f"write its `prices` under `models: {{{demand.model}: …}}` in the config")
            elif table is not None and abs(known - table) > COST_TOLERANCE * table:
                yield _deviation(provider, demand, known, table)


def _deviation(provider: Provider, demand: Demand, known: float, table: float) -> Check:
    """Return the check of a price that the config states; another vendor may have prices of its own."""
    what = (
        f"`{provider.name}`: the config's price makes an image of {_what(demand)} cost {dollars(known)}, and the table"
        f" of this program {dollars(table)}"
    )
    do = f"correct or remove `prices` of `{demand.model}` in the config"
    if provider.base_url is None or is_openai(provider) or place_of(provider.host) == "loopback":
        return problem("prices", what, do)
    return warning("prices", what, f"{do}, unless they are what `{provider.name}` bills")


def _image_price(models: Models, demand: Demand) -> float | None:
    """Return what one image costs by a table, without its prompt and its input images."""
    model = models.find(demand.model)
    return None if model is None else model.estimate(demand.served_by, None, demand.params, 1, ()).usd


def _what(demand: Demand) -> str:
    named = [str(demand.params.get(name)) for name in ("size", "quality") if demand.params.get(name)]
    return f"`{demand.model}`{' at ' if named else ''}{' '.join(named)}"

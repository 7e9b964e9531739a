"""The canary: buys the cheapest missing requests that differ in model, size and quality, and examines what comes.

They are ordinary requests of their jobs, bought by the ordinary engine one after another, always in realtime. What is
bought is in the ledger, so a later run does not buy it again. A kind of which there is an image is not bought again,
either: its newest image is examined.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.doctor.check import not_checked, problem, well
from pipeline.doctor.held_checks import why_not_now
from pipeline.doctor.sample_faults import find_fault, sample_words
from pipeline.errors import FolderBusy, Moderated, PipelineError
from pipeline.job_queue import JobQueue
from pipeline.ledger.job_changes import finish_folder_changes
from pipeline.ledger.job_modes import unfinished_jobs
from pipeline.ledger.lock import run_lock
from pipeline.ledger.queue import Scope
from pipeline.ledger.samples import newest_made, read_sample, read_stated
from pipeline.planning.build import load_models, make_plans, staging_folder
from pipeline.preparation import prepare_ledger, record_found_images
from pipeline.run import Run
from pipeline.stores import Stores

if TYPE_CHECKING:
    import signal
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.config.provider import Provider
    from pipeline.doctor.check import Check
    from pipeline.engine.events import Listener
    from pipeline.ledger.folder_identity import HeldFolder
    from pipeline.ledger.samples import Sample
    from pipeline.planning.build import JobOptions
    from pipeline.planning.plan import ImageRequest, Plan
    from pipeline.result import Result

_MOST_MODERATED = 5  # of one kind, before the kind is left alone

_Kind = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A request that may be bought. `pk` is its primary key, None if it is not queued yet, and then it has a plan."""

    job: str
    kind: _Kind
    usd: float
    is_missing: bool
    pk: int | None
    plan: Plan | None = None
    request: ImageRequest | None = None


@dataclass(slots=True)
class Canary:
    """One purchase after another, of at most `kinds` kinds, for these job files or for the queue without any.

    `signal` is the one that ended it, if one did.
    """

    config: Config
    environment: Mapping[str, str] = field(repr=False)
    files: Sequence[Path]
    options: JobOptions
    kinds: int
    emit: Listener
    signal: signal.Signals | None = None
    _checks: list[Check] = field(default_factory=list)

    async def run(self) -> list[Check]:
        """Buy and examine. Returns no check after the first problem: nothing more is bought then."""
        quiet = replace(self.config, notify=None)  # a canary is no run that people wait for
        folder = quiet.output
        try:
            with contextlib.ExitStack() as stack:
                staging = stack.enter_context(staging_folder())
                plans = make_plans(quiet, self.files, replace(self.options, limit=None), staging) if self.files else []
                connection = stack.enter_context(ledger.writing(folder, shared=quiet.shared))
                finish_folder_changes(connection, Stores.of(quiet))
                held = stack.enter_context(run_lock(folder, Stores.of(quiet).new, connection, lambda: None))
                await prepare_ledger(connection, folder, self.emit)
                record_found_images(connection, quiet, self.emit)
                shop = _Shop(quiet, self.environment, connection, held, staging, self.options, self.emit)
                await self._buy_all(shop, plans)
        except FolderBusy as error:
            return [not_checked("canary", str(error))]
        except PipelineError as error:
            self._checks.append(problem("canary", str(error), "fix that; nothing more was bought"))
        return self._checks or [not_checked("canary", "nothing is missing")]

    async def _buy_all(self, shop: _Shop, plans: Sequence[Plan]) -> None:
        by_kind: dict[_Kind, list[_Candidate]] = {}
        for candidate in sorted(shop.candidates(plans, self.options.limit), key=lambda candidate: candidate.usd):
            by_kind.setdefault(candidate.kind, []).append(candidate)
        left = self.kinds
        for same in by_kind.values():
            if left == 0:
                return
            check = await self._try_kind(shop, same)
            if check is not None:
                self._checks.append(check)
                left -= 1
                if check.status == "problem" or self.signal is not None:
                    return

    async def _try_kind(self, shop: _Shop, same: Sequence[_Candidate]) -> Check | None:
        """Examine the newest image of a kind, else buy its cheapest request; None if none could be bought."""
        made = newest_made(shop.connection, [candidate.pk for candidate in same if candidate.pk is not None])
        if made is not None:
            return self._examined(read_sample(shop.connection, made), is_old=True)
        reasons = [why_not_now(shop.connection, member) for member in self.config.members(same[0].kind[0])]
        if None not in reasons:
            return not_checked("canary", " and ".join(filter(None, reasons)))
        for candidate in [candidate for candidate in same if candidate.is_missing][:_MOST_MODERATED]:
            request_pk, result = await shop.buy(candidate)
            self.signal = result.signal
            sample = read_sample(shop.connection, request_pk)
            if sample.images:
                return self._examined(sample, is_old=False)
            if sample.error_kind == Moderated.__name__ and sample.error_message is not None:
                continue
            reason = next((stop.message for stop in result.stops), sample.error_message)
            if reason is None:
                reason = f"it was not made (status {sample.status})"
            do = "fix what it says; nothing more was bought, and `pipeline status` shows what is left"
            return problem("canary", f"{sample.job}/{sample.id}: {reason}", do)
        return None

    def _examined(self, sample: Sample, *, is_old: bool) -> Check:
        members = self.config.members(sample.provider)
        exact = all(member.dialect.size_as != "aspect_ratio" for member in members)
        fault = find_fault(sample, _least_usd(self.config, members, sample), exact_size=exact)
        who = f"{sample.job}/{sample.id}{', which is here already' if is_old else ''}"
        if fault is None:
            return well("canary", f"{who}: {sample_words(sample)}")
        again = f"once that is fixed, `pipeline redo {sample.job} --id {sample.id}` makes it again"
        do = f"{fault.do}; nothing more was bought; {again}"
        return problem("canary", f"{who}{',' if is_old else ''} {fault.what}", do)


@dataclass(frozen=True, slots=True)
class _Shop:
    """An output folder that is held, and all that a purchase needs."""

    config: Config
    environment: Mapping[str, str] = field(repr=False)
    connection: sqlite3.Connection
    held: HeldFolder
    staging: Path
    options: JobOptions
    emit: Listener

    def candidates(self, plans: Sequence[Plan], limit: int | None) -> Iterator[_Candidate]:
        """Yield the requests of these plans, or of all queued jobs if there is none."""
        names = [plan.name for plan in plans] or unfinished_jobs(self.connection)
        known = read_stated(self.connection, names)
        if not plans:
            for stated in known:
                kind = _kind(stated.provider, stated.params)
                yield _Candidate(stated.job, kind, _price(stated.usd), stated.status == "pending", stated.pk)
        for plan in plans:
            by_key = {stated.key: stated for stated in known if stated.job.lower() == plan.name.lower()}
            for request in plan.requests[:limit]:
                found = next((by_key[key] for key in (request.key, *request.other_keys) if key in by_key), None)
                kind = _kind(plan.provider.name, request.params)
                is_missing = found is None or found.status == "pending"
                request_pk = None if found is None else found.pk
                yield _Candidate(plan.name, kind, _price(request.estimate_usd), is_missing, request_pk, plan, request)

    async def buy(self, candidate: _Candidate) -> tuple[int, Result]:
        """Queue a request, if it is not queued yet, and process it alone; return its primary key and how that ended."""
        request_pk, job = candidate.pk, candidate.job
        if request_pk is None:
            assert candidate.plan is not None
            assert candidate.request is not None
            part = replace(candidate.plan, requests=[candidate.request], is_part=True)
            (queued,) = JobQueue(self.config, self.connection).add([part], self.staging, self.options)
            (request,), job = queued.plan.requests, queued.plan.name
            stated = read_stated(self.connection, [job])
            request_pk = next(found.pk for found in stated if found.key == request.key)
        scope = Scope(frozenset([job]), math.inf, only=frozenset([request_pk]))
        budget = self.options.budget_usd
        run = Run(self.config, self.environment, self.connection, self.held, scope, budget, wait=False)
        return request_pk, await run.execute(self.emit)


def _least_usd(config: Config, members: Sequence[Provider], sample: Sample) -> float | None:
    """Return the least that the images of a sample cost by the tables: without their input images, for whose tokens no
    formula is published, and whatever `auto` stands for.
    """
    name, n, params = sample.params.get("model"), len(sample.images), sample.params
    costs: list[float | None] = []
    for member in members:
        model = load_models(config, member).find(name if isinstance(name, str) else None)
        if model is None or model.prices is None:
            continue
        costs.append(model.estimate(sample.served_by, sample.prompt, params, n, ()).usd)
        if {params.get("size"), params.get("quality")} & {None, "auto"}:
            least = model.prices.least_image_cost(model.with_defaults(sample.served_by, params))
            costs.append(None if least is None else least * n)
    return min((usd for usd in costs if usd is not None), default=None)


def _kind(service: str, params: Mapping[str, object]) -> _Kind:
    return (service, *(str(params.get(name)) for name in ("model", "size", "quality")))


def _price(usd: float | None) -> float:
    return math.inf if usd is None else usd

"""Modes: which pending requests go by batch and which are made in realtime, decided anew about once a second."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.config.batch_rules import BatchRules
from pipeline.engine.events import Stopped
from pipeline.errors import BatchRefused
from pipeline.ledger import batches
from pipeline.ledger.attempts import mean_latency
from pipeline.ledger.batch_queue import pending_groups
from pipeline.ledger.controls import read_controls
from pipeline.ledger.queue import Block
from pipeline.models.batch_deadline import CALL_SECONDS, is_late
from pipeline.models.batch_eligibility import batch_fault, realtime_reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config.load import Config, Provider
    from pipeline.engine.events import Listener
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.errors import RequestError
    from pipeline.ledger.batches import BatchJob, BatchRow
    from pipeline.ledger.queue import QueuedRequest, Scope
    from pipeline.ledger.writer import Writer
    from pipeline.models.table import Models


class Modes:
    """Decides by which way each group of requests goes. A group shares job, provider, operation and model.

    `realtime` are the groups of jobs of mode batch or auto that are made in realtime all the same, and `living` are the
    batches that have not ended.
    """

    def __init__(
        self, config: Config, models: Models, scope: Scope, writer: Writer, stops: StopPolicy, emit: Listener
    ) -> None:
        self.realtime: frozenset[Block] = frozenset()
        self.living: list[BatchRow] = []
        self._config = config
        self._models = models
        self._scope = scope
        self._writer = writer
        self._stops = stops
        self._emit = emit
        self._by_batch: list[Block] = []
        self._jobs: dict[int, BatchJob] = {}
        self._refused: set[Block] = set()  # for the rest of the run

    @property
    def is_in_use(self) -> bool:
        """Whether any job goes by batch, or any batch is living, as far as is known."""
        return bool(self._jobs or self.living)

    async def refresh(self) -> None:
        """Decide anew. A job of mode auto whose deadline has come near is in realtime from now on."""
        self.living = await self._writer.do(batches.living_batches, self._scope)
        jobs = await self._switch_late(await self._writer.do(batches.batch_jobs, self._scope))
        realtime, by_batch = set[Block](), list[Block]()
        for job in jobs:
            if job.cancel_since is not None:
                await self._writer.do(batches.end_cancelling, job.pk)
            if job.mode == "realtime" or job.cancel_since is not None:
                continue
            for found_group, _ in await self._writer.do(pending_groups, job.pk, self._scope):
                group = self._at_member(found_group)
                fault = self._fault(job, group)
                if self._scope.only is not None:
                    realtime.add(found_group if group is found_group else replace(group, provider=None))
                elif fault is None:
                    by_batch += [group] if self._stops.allows_group(group) else []
                elif job.mode == "auto":
                    realtime.add(found_group if group is found_group else replace(group, provider=None))
                else:
                    self._stop(job, group, fault)
        self._jobs = {job.pk: job for job in jobs}
        self.realtime, self._by_batch = frozenset(realtime), by_batch

    def _at_member(self, group: Block) -> Block:
        """Return the group at the member of its route that serves it by batch: the first with a Batch API."""
        route = self._config.routes.get(group.provider or "")
        if route is None:
            return group
        members = [self._config.providers[name] for name in route.members]
        first = next((member.name for member in members if member.batch is not None), route.members[0])
        return replace(group, provider=first)

    def groups(self, provider: str) -> list[Block]:
        """Return the groups of a provider's pending requests that go by batch."""
        return [group for group in self._by_batch if group.provider == provider]

    def providers(self) -> set[str]:
        """Return the providers with groups that go by batch."""
        return {group.provider for group in self._by_batch if group.provider is not None}

    def is_realtime(self, request: QueuedRequest) -> bool:
        """Return whether a request may be called now."""
        job = self._jobs.get(request.job_pk)
        return job is None or job.mode == "realtime" or any(group.covers(request) for group in self.realtime)

    def is_cancelled(self, job_pk: int) -> bool:
        """Return whether the living batches of a job are to be cancelled."""
        job = self._jobs.get(job_pk)
        return job is not None and (job.cancel_since is not None or job.realtime_since is not None)

    def is_given_up(self, job_pk: int) -> bool:
        """Return whether a user has cancelled a job."""
        job = self._jobs.get(job_pk)
        return job is not None and job.cancel_since is not None

    def refuse(self, group: Block, error: RequestError) -> bool:
        """The service takes no batch of a group: return whether it is made in realtime instead, as with mode auto."""
        job = self._jobs.get(group.job_pk or 0)
        if job is None or job.mode != "auto":
            return False
        if group not in self._refused:
            self._refused.add(group)
            self._emit(Stopped(f"batches of job `{job.name}`, which is made in realtime instead", error))
        self._by_batch = [other for other in self._by_batch if other != group]
        return True

    def _fault(self, job: BatchJob, group: Block) -> str | None:
        """Return why a group is not to be sent as a batch."""
        provider, model = self._config.providers.get(group.provider or ""), self._models.find(group.model)
        if job.realtime_since is not None:
            return "its deadline is near"
        if group in self._refused:
            return "the service refuses it"
        if provider is not None and not provider.serves(group.model, group.served_by or ""):
            return f"`{provider.name}` does not serve it"
        if provider is not None and job.mode == "auto":
            return realtime_reason(group.model, model, group.served_by or "", provider, time.time())
        return batch_fault(group.model, model, group.served_by or "", provider.batch if provider else None)

    def _stop(self, job: BatchJob, group: Block, fault: str) -> None:
        block = Block(job_pk=group.job_pk, model=group.model)
        if block not in self._stops.blocks:
            what = f"{fault}; to make its requests in realtime, type `pipeline run --mode realtime`"
            self._stops.stop_block(block, f"job `{job.name}` and its model `{group.model}`", BatchRefused(what))

    async def _switch_late(self, jobs: Sequence[BatchJob]) -> list[BatchJob]:
        """Return the jobs as they are now: one whose deadline can only be met in realtime goes that way from now on."""
        undecided = [job for job in jobs if job.mode == "auto" and job.deadline and job.realtime_since is None]
        if not undecided:
            return list(jobs)
        providers = {name: self._config.services.get(name) for name in {job.provider for job in undecided}}
        images = await self._writer.do(batches.unfinished_images, [job.pk for job in jobs])
        controls = await self._writer.do(read_controls)
        speeds = {
            name: (provider.throttled(controls.of(name).throttle), await self._call_seconds(provider))
            for name, provider in providers.items()
            if provider is not None
        }
        late = {
            job.pk
            for job in undecided
            if job.pk in images and job.provider in speeds and _is_late(job, jobs, images, *speeds[job.provider])
        }
        return [
            await self._writer.do(batches.record_realtime, job.pk, time.time()) if job.pk in late else job
            for job in jobs
        ]

    async def _call_seconds(self, provider: Provider) -> float:
        """Return how long a call to a provider takes, if no limit says how many there may be."""
        latency = None if provider.rate_limit else await self._writer.do(mean_latency, provider.name)
        return CALL_SECONDS if latency is None else latency


def _is_late(
    job: BatchJob, jobs: Sequence[BatchJob], images: Mapping[int, int], provider: Provider, call_seconds: float
) -> bool:
    """Return whether a job's deadline can only be met in realtime.

    The provider's limit is shared with the jobs whose deadlines come before; `images` are unfinished, by job.
    """
    deadline = job.deadline or math.inf
    sharing = [
        other.pk for other in jobs if other.provider == job.provider and (other.deadline or math.inf) <= deadline
    ]
    due = sum(images.get(pk, 0) for pk in sharing)
    return is_late(time.time(), deadline, due, provider, provider.batch or BatchRules(), call_seconds)

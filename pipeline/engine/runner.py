"""Runner: dispatchers of all providers that have pending requests, side by side in one task group."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pipeline.client.batch_client import BatchClient
from pipeline.config.batch_rules import BatchRules
from pipeline.engine.admission_by_provider import Admissions
from pipeline.engine.batches.context import BatchContext
from pipeline.engine.batches.executor import BatchExecutor
from pipeline.engine.batches.modes import Modes
from pipeline.engine.budget import Budget
from pipeline.engine.caller import Target
from pipeline.engine.controls import Controls
from pipeline.engine.dispatcher import POLL_SECONDS, Dispatcher
from pipeline.engine.provider_context import ProviderContext
from pipeline.engine.records import Records
from pipeline.engine.routing import Routing
from pipeline.engine.stop_policy import StopPolicy
from pipeline.engine.uploads import Places, Spool, Uploader
from pipeline.errors import ConfigError, KeyRefused, PipelineError, ProviderHeld, Stop, WrongAddress
from pipeline.file_descriptors import descriptors_for_calls, raise_descriptor_limit
from pipeline.ledger.batches import has_batch_work
from pipeline.ledger.controls import record_calls_in_flight
from pipeline.ledger.recovery import requeue_running
from pipeline.ledger.route_queue import has_prospects, record_members
from pipeline.ledger.stops import delete_overcome_stops, record_stop
from pipeline.ledger.waiting import waiting_providers
from pipeline.ledger.writer import Writer
from pipeline.models.table import Models
from pipeline.stores import Stores

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from pipeline.config.load import Config, Provider, RateLimit
    from pipeline.engine.caller import LocalCaller
    from pipeline.engine.events import Listener, ProviderPace
    from pipeline.engine.provider_context import Callers
    from pipeline.ledger.folder_identity import HeldFolder
    from pipeline.ledger.queries import RecordedImage
    from pipeline.ledger.queue import Block, Scope

Way = Literal["realtime", "batch"]


class Runner:
    """Works until nothing in `scope` is pending, or all that is pending waits for something that has stopped.

    `budget_usd` overrides the jobs' own. Without `waits`, batches are looked at once, and others stay out.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        held: HeldFolder,
        config: Config,
        models: Models,
        scope: Scope,
        callers: Callers,
        emit: Listener,
        budget_usd: float | None = None,
        *,
        waits: bool = True,
        keep_thumbnail: Callable[[RecordedImage], object] = lambda _image: None,
    ) -> None:
        self._connection = connection
        self._held = held
        self._config = config
        self._models = models
        self._scope = scope
        self._callers = callers
        self._emit = emit
        self._budget = Budget(budget_usd, config.budget_usd)
        self._stops = StopPolicy(emit)
        self._waits = waits
        self._stores = Stores.of(config)
        self._spool = Spool(math.inf if self._stores.remote is None else config.spool_bytes)
        self._keep_thumbnail = keep_thumbnail
        self._opened = AsyncExitStack()
        self._opening: dict[str, asyncio.Lock] = {}
        self._contexts: dict[str, ProviderContext | None] = {}
        self._executors: dict[str, BatchExecutor] = {}
        self._left_out = set[int]()  # primary keys of batches that are not followed any more
        self._looked_at = set[str]()  # providers of whose batches nothing more is done in this run
        self._dispatchers: dict[str, Dispatcher] = {}
        self._admissions = Admissions(config, self._stops, self._spool)
        self._tables = {
            name: Models.load(config.models, provider.own_models) if provider.own_models else models
            for name, provider in config.providers.items()
        }
        self._routing = Routing(config, self._tables, self._admissions, self._stops)
        self._controls = Controls(config, self._admissions, self._stops, emit)
        self._paces: dict[str, ProviderPace] = {}  # the last one emitted of each provider

    @property
    def stops(self) -> Sequence[Stop]:
        """The stops that have occurred."""
        return self._stops.stops

    @property
    def passed_on(self) -> Sequence[tuple[str, Stop]]:
        """Those of the stops that leave requests to other members of a route, each with the name of its member."""
        members = {member for route in self._config.routes.values() for member in route.members}
        return self._stops.at(members)

    @property
    def lowered(self) -> dict[str, RateLimit]:
        """The limits that providers stated and that were adopted, by provider."""
        stated = {name: admission.limits.stated for name, admission in self._admissions.items()}
        return {name: limit for name, limit in stated.items() if limit is not None}

    def halt(self) -> None:
        """Make no further call; calls in flight are completed."""
        self._stops.halt()

    def stop(self, error: Stop) -> None:
        """Do what `halt` does, for a reason that ends the run."""
        self._stops.stop(error, None)

    async def run(self) -> None:
        """Work to the end. Raises errors that no request can be blamed for, in an ExceptionGroup."""
        async with Writer(self._connection) as writer:
            self._stops.record = functools.partial(_record_stop, writer)
            self._controls.record = lambda name, number: writer.post(record_calls_in_flight, name, number)
            if self._config.routes:
                await writer.do(record_members, self._config.routes, list(self._config.providers))
            try:
                async with self._uploads(writer), AsyncExitStack() as self._opened:
                    await self._run_providers(writer)
            finally:
                for admission in self._admissions.values():
                    admission.close()
            with contextlib.suppress(PipelineError):  # a full disk: the next start does the same
                await writer.do(requeue_running, time.time())
                await writer.do(delete_overcome_stops)

    def _uploads(self, writer: Writer) -> AbstractAsyncContextManager[None]:
        """Upload images to their object store: before the block what waits, and all that the block makes."""
        if self._stores.remote is None and not self._stores.spool.names():
            return contextlib.nullcontext()
        return Uploader(
            stores=self._stores,
            spool=self._spool,
            writer=writer,
            stops=self._stops,
            outage_hours=self._config.retry.outage_hours,
            emit=self._emit,
            keep_thumbnail=self._keep_thumbnail,
        ).working()

    async def _run_providers(self, writer: Writer) -> None:
        """Run a dispatcher, a batch executor or both for each provider that has work, until none has."""
        modes = Modes(self._config, self._models, self._scope, writer, self._stops, self._emit)
        async with asyncio.TaskGroup() as group:
            running: dict[tuple[str, Way], asyncio.Task[None]] = {}
            await self._controls.follow(writer, self._dispatchers)
            following = group.create_task(self._controls.keep_following(writer, self._dispatchers), name="controls")
            while True:
                running = {key: task for key, task in running.items() if not task.done()}
                for key in await self._waiting(writer, modes):
                    if key not in running:
                        name = f"provider {key[0]}: {key[1]}"
                        running[key] = group.create_task(self._run_provider(*key, writer, modes), name=name)
                if not running:
                    break
                await asyncio.wait(running.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._emit_paces()
            following.cancel()

    def _emit_paces(self) -> None:
        for name, dispatcher in self._dispatchers.items():
            pace = dispatcher.pace()
            if pace != self._paces.get(name):
                self._paces[name] = pace
                self._emit(pace)

    async def _waiting(self, writer: Writer, modes: Modes) -> list[tuple[str, Way]]:
        """Return the names of the providers that have work and may be called, each with the way in which it is done."""
        if self._stops.halted:
            return []
        try:
            blocks = frozenset(self._stops.blocks)
            if modes.is_in_use or await writer.do(has_batch_work):
                await modes.refresh()
            names = await writer.do(waiting_providers, self._scope, blocks, modes.realtime)
            names = await self._with_members(names, writer, modes)
        except Stop as error:  # no room even to read: calls in flight are completed nevertheless
            self._stops.stop(error, None)
            return []
        outstanding = {row.provider for row in modes.living if row.pk not in self._left_out}
        for name in {*names, *outstanding, *modes.providers()}:
            if name not in self._config.providers and not self._stops.is_stopped(name):  # submitted with another config
                what = f"the config has no provider `{name}`: add it under `providers:`; jobs that name it stay queued"
                self._stops.stop_provider(name, WrongAddress(what))
        if not self._waits:
            self._controls.stop_held({*names, *modes.providers()})
        known = self._config.providers.keys()
        realtime: list[tuple[str, Way]] = [(name, "realtime") for name in names if not self._stops.is_stopped(name)]
        sendable = {name for name in modes.providers() - self._looked_at if not self._stops.is_stopped(name)}
        by_batch: list[tuple[str, Way]] = [
            (name, "batch")
            for name in sorted((outstanding | sendable) & known)
            if not self._stops.end_signal(name).is_set
        ]
        return realtime + by_batch

    async def _with_members(self, names: list[str], writer: Writer, modes: Modes) -> list[str]:
        """Return these names, and in place of routes their members that may serve a request."""
        routes = await self._routing.use(names, writer)
        found = dict.fromkeys(name for name in names if name not in self._config.routes)
        for member in dict.fromkeys(member for route in routes for member in route.members):
            views = self._routing.views(member)
            if member not in found and await writer.do(has_prospects, views, self._scope, modes.realtime):
                found[member] = None
        return list(found)

    async def _run_provider(self, name: str, way: Way, writer: Writer, modes: Modes) -> None:
        """Process one provider's requests in one way."""
        context = await self._context(name, writer, modes)
        if context is None:
            return
        if way == "batch":
            if name not in self._executors:  # one for the run: it knows how often batches of a group have failed
                self._executors[name] = BatchExecutor(self._batch_context(context, writer, modes))
            await self._executors[name].run()
            self._left_out |= self._executors[name].left
            if not self._waits:
                self._looked_at.add(name)
            return
        dispatcher = self._dispatchers[name] = Dispatcher(context, self._scope, writer, self._stops, modes)
        self._emit_paces()
        try:
            await dispatcher.run()
        finally:
            self._emit_paces()  # idle
            del self._dispatchers[name]

    async def _context(self, name: str, writer: Writer, modes: Modes) -> ProviderContext | None:
        """Return what one provider's requests share, created once in a run; None if the provider cannot be called."""
        async with self._opening.setdefault(name, asyncio.Lock()):
            if name not in self._contexts:
                self._contexts[name] = await self._open(self._config.providers[name], writer, modes)
            return self._contexts[name]

    async def _open(self, provider: Provider, writer: Writer, modes: Modes) -> ProviderContext | None:
        """Create one provider's clients."""
        calls = descriptors_for_calls(raise_descriptor_limit())
        provider = replace(provider, concurrency=min(provider.concurrency, calls))
        try:
            base_url = await self._callers.address(provider)
        except ConfigError as reason:
            self._stops.stop_provider(provider.name, WrongAddress(str(reason)))
            return None
        target = Target(provider, base_url, self._config.download, self._config.images_folder)
        admission = await self._admissions.open(provider, base_url, writer)
        self._controls.apply_to(admission, provider.name)
        routing = self._routing if self._config.routes_with(provider.name) else None
        records = Records(
            target=target,
            places=Places(self._held, self._spool),
            models=self._tables[provider.name],
            writer=writer,
            budget=self._budget,
            stops=self._stops,
            emit=self._emit,
            routing=routing,
        )

        async def find_caller(name: str) -> LocalCaller | None:
            context = await self._context(name, writer, modes) if name in self._config.providers else None
            return None if context is None else context.caller

        try:
            caller = self._callers.make(target, self._held.images, self._callers.environment)
            await self._opened.enter_async_context(caller)
            return ProviderContext(
                target=target,
                output=self._config.output,
                retry=self._config.retry,
                admission=admission,
                records=records,
                caller=caller,
                is_realtime=modes.is_realtime,
                routing=routing,
                find_caller=find_caller,
            )
        except ConfigError as reason:  # submitted beside this run, which was not asked for this key when it started
            self._stops.stop_provider(provider.name, KeyRefused(str(reason)))
            return None

    def _batch_context(self, context: ProviderContext, writer: Writer, modes: Modes) -> BatchContext:
        provider = context.target.provider
        return BatchContext(
            shared=context,
            rules=provider.batch or BatchRules(),
            client=BatchClient(context.caller.session, provider.dialect),
            modes=modes,
            models=self._tables[provider.name],
            scope=self._scope,
            writer=writer,
            stops=self._stops,
            waits=self._waits,
        )


def _record_stop(writer: Writer, block: Block, error: Stop) -> None:
    """Record a stop, without waiting for the record; a pause is a fact in the ledger already."""
    if not isinstance(error, ProviderHeld):
        writer.post(record_stop, block, error)

"""Runner: dispatchers of all providers that have pending requests, side by side in one task group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.client.rate_limit_hints import LONGEST_PAUSE
from pipeline.descriptors import descriptors_for_calls, raise_descriptor_limit
from pipeline.engine.admission import Admission
from pipeline.engine.budget import Budget
from pipeline.engine.caller import Target
from pipeline.engine.dispatcher import POLL_SECONDS, Dispatcher
from pipeline.engine.provider_context import ProviderContext
from pipeline.engine.records import Records
from pipeline.engine.stop_policy import StopPolicy
from pipeline.errors import ConfigError, KeyRefused, PipelineError, Stop, WrongAddress
from pipeline.ledger import attempts
from pipeline.ledger.queue import waiting_providers
from pipeline.ledger.recovery import requeue_running
from pipeline.ledger.stops import delete_overcome_stops, record_stop
from pipeline.ledger.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from pipeline.config.load import Config, Provider, RateLimit
    from pipeline.engine.events import Listener, ProviderPace
    from pipeline.ledger.held_folder import HeldFolder
    from pipeline.ledger.queue import Scope
    from pipeline.models.table import Models


class Runner:
    """Works until nothing in `scope` is pending, or all that is pending waits for something that has stopped.

    `address` returns a provider's base_url, and starts its sandbox if it is one. `budget_usd` overrides the jobs' own.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        held: HeldFolder,
        config: Config,
        models: Models,
        scope: Scope,
        environment: Mapping[str, str],
        address: Callable[[Provider], Awaitable[str]],
        emit: Listener,
        budget_usd: float | None = None,
    ) -> None:
        self._connection = connection
        self._held = held
        self._config = config
        self._models = models
        self._scope = scope
        self._environment = environment
        self._address = address
        self._emit = emit
        self._budget = Budget(budget_usd, config.budget_usd)
        self._stops = StopPolicy(emit)
        self._dispatchers: dict[str, Dispatcher] = {}
        self._admissions: dict[str, Admission] = {}
        self._paces: dict[str, ProviderPace] = {}  # the last one emitted of each provider

    @property
    def stops(self) -> Sequence[Stop]:
        """The stops that have occurred."""
        return self._stops.stops

    @property
    def lowered(self) -> dict[str, RateLimit]:
        """The limits that providers stated and that were adopted, by provider."""
        return {name: admission.lowered for name, admission in self._admissions.items() if admission.lowered}

    def halt(self) -> None:
        """Make no further call; calls in flight are completed."""
        self._stops.halt()

    async def run(self) -> None:
        """Work to the end. Raises errors that no request can be blamed for, in an ExceptionGroup."""
        async with Writer(self._connection) as writer:
            self._stops.record = lambda block, error: writer.post(record_stop, block, error)
            try:
                await self._run_dispatchers(writer)
            finally:
                for admission in self._admissions.values():
                    admission.close()
            with contextlib.suppress(PipelineError):  # a full disk: the next start does the same
                await writer.do(requeue_running, time.time())
                await writer.do(delete_overcome_stops)

    async def _run_dispatchers(self, writer: Writer) -> None:
        """Run a dispatcher for each provider that has pending requests, until there is none."""
        async with asyncio.TaskGroup() as group:
            running: dict[str, asyncio.Task[None]] = {}
            while True:
                running = {name: task for name, task in running.items() if not task.done()}
                for name in await self._waiting(writer):
                    if name not in running:
                        running[name] = group.create_task(self._run_provider(name, writer), name=f"provider {name}")
                if not running:
                    break
                await asyncio.wait(running.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._emit_paces()

    def _emit_paces(self) -> None:
        for name, dispatcher in self._dispatchers.items():
            pace = dispatcher.pace()
            if pace != self._paces.get(name):
                self._paces[name] = pace
                self._emit(pace)

    async def _waiting(self, writer: Writer) -> list[str]:
        """Return the names of the providers that have pending requests and may be called."""
        if self._stops.halted:
            return []
        try:
            names = await writer.do(waiting_providers, self._scope, frozenset(self._stops.blocks))
        except Stop as error:  # no room even to read: calls in flight are completed nevertheless
            self._stops.stop(error, None)
            return []
        for name in names:
            if name not in self._config.providers and not self._stops.is_stopped(name):  # submitted with another config
                what = f"the config has no provider `{name}`: add it under `providers:`; jobs that name it stay queued"
                self._stops.stop_provider(name, WrongAddress(what))
        return [name for name in names if not self._stops.is_stopped(name)]

    async def _run_provider(self, name: str, writer: Writer) -> None:
        """Create one provider's clients and process its requests."""
        provider = self._config.providers[name]
        calls = descriptors_for_calls(raise_descriptor_limit())
        provider = replace(provider, concurrency=min(provider.concurrency, calls))
        try:
            provider.key(self._environment)
            provider.header_values(self._environment)
        except ConfigError as reason:  # submitted beside this run, which was not asked for this key when it started
            self._stops.stop_provider(name, KeyRefused(str(reason)))
            return
        try:
            base_url = await self._address(provider)
        except ConfigError as reason:
            self._stops.stop_provider(name, WrongAddress(str(reason)))
            return
        target = Target(provider, base_url, self._config.download, self._config.images_folder)
        admission = await self._admission(provider, base_url, writer)
        records = Records(target, self._held, self._models, writer, self._budget, self._stops, self._emit)
        async with ProviderContext.open(
            target, self._config.output, self._config.retry, admission, records, self._held.images, self._environment
        ) as context:
            dispatcher = self._dispatchers[name] = Dispatcher(context, self._scope, writer, self._stops)
            self._emit_paces()
            try:
                await dispatcher.run()
            finally:
                self._emit_paces()  # idle
                del self._dispatchers[name]

    async def _admission(self, provider: Provider, base_url: str, writer: Writer) -> Admission:
        """Return a provider's admission control, one for the whole run; it knows what earlier runs sent."""
        name = provider.name
        if name not in self._admissions:
            limit, now = provider.rate_limit, time.time()
            known_good = await writer.do(attempts.has_succeeded, name)
            admission = Admission(
                provider, base_url, self._config.retry, self._stops.signal(name), known_good=known_good
            )
            if limit is not None:
                sent = await writer.do(attempts.sent_since, name, now - limit.window)
                admission.throttle.remember((now - moment, images) for moment, images in sent)
            paused = await writer.do(attempts.paused_until, name) - now
            admission.throttle.pause(min(paused, LONGEST_PAUSE))  # more than was ever asked: the clock was set back
            self._admissions[name] = admission
        return self._admissions[name]

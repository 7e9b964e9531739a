"""A run: the lanes of all providers that requests wait for, side by side in one task group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.client.client import Api
from pipeline.client.download import Downloader
from pipeline.client.rate_limit_hints import LONGEST_PAUSE
from pipeline.engine import budget
from pipeline.engine.admission import Gate
from pipeline.engine.dispatcher import POLL_SECONDS, Lane
from pipeline.engine.events import Stopped
from pipeline.engine.provider_context import Desk, image_threads
from pipeline.errors import ConfigError, KeyRefused, PipelineError, Stop, WrongAddress
from pipeline.ledger import attempts
from pipeline.ledger.queue import Bar, waiting_providers
from pipeline.ledger.recovery import mend
from pipeline.ledger.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from pipeline.config.load import Config, Provider, RateLimit
    from pipeline.engine.events import Listener, Pace
    from pipeline.ledger.queue import Scope, Work
    from pipeline.models.table import Models

_ENVELOPE_BYTES = 2**20  # what an answer may hold beside its pictures


@dataclass(slots=True)
class Runner:
    """Works until nothing in `scope` is pending, or all that is waits for something that has stopped; see `stops`.

    `address` gives a provider's base_url, and starts its sandbox where it is one.
    """

    connection: sqlite3.Connection
    folder: Path
    config: Config
    models: Models
    scope: Scope
    environment: Mapping[str, str]
    address: Callable[[Provider], Awaitable[str]]
    emit: Listener
    budget_usd: float | None = None
    stops: list[Stop] = field(default_factory=list)
    _barred: set[Bar] = field(default_factory=set)
    _closed: set[str] = field(default_factory=set)  # providers that have stopped
    _lanes: dict[str, Lane] = field(default_factory=dict)
    _gates: dict[str, Gate] = field(default_factory=dict)
    _paces: dict[str, Pace] = field(default_factory=dict)  # what was last said of each provider
    _halted: bool = False

    async def run(self) -> None:
        """Work to the end. Raises what no request can be blamed for, in an ExceptionGroup."""
        async with Writer(self.connection) as writer:
            try:
                await self._work_all(writer, budget.Budget(self.budget_usd, self.config.budget_usd))
            finally:
                for gate in self._gates.values():
                    gate.close()
            with contextlib.suppress(PipelineError):  # a full disk: the next start does the same
                await writer.do(mend, time.time())

    async def _work_all(self, writer: Writer, money: budget.Budget) -> None:
        """Keep a lane at work for each provider that requests wait for, until there is none."""
        async with asyncio.TaskGroup() as group:
            working: dict[str, asyncio.Task[None]] = {}
            while True:
                working = {name: task for name, task in working.items() if not task.done()}
                for name in await self._waiting(writer):
                    if name not in working:
                        working[name] = group.create_task(self._work(name, writer, money), name=f"lane {name}")
                if not working:
                    break
                await asyncio.wait(working.values(), timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                self._say_paces()

    def _say_paces(self) -> None:
        for name, lane in self._lanes.items():
            pace = lane.pace()
            if pace != self._paces.get(name):
                self._paces[name] = pace
                self.emit(pace)

    def halt(self) -> None:
        """Make no further call; what is in flight is finished."""
        self._halted = True
        for lane in self._lanes.values():
            lane.halt()

    @property
    def lowered(self) -> dict[str, RateLimit]:
        """The limits that providers stated and that were adopted, by provider."""
        return {name: gate.lowered for name, gate in self._gates.items() if gate.lowered}

    async def _waiting(self, writer: Writer) -> list[str]:
        """Name the providers that have work and may be called."""
        if self._halted:
            return []
        try:
            names = await writer.do(waiting_providers, self.scope, frozenset(self._barred))
        except Stop as error:  # no room even to read: calls in flight are to be answered all the same
            self._stop(error, None)
            return []
        for name in names:
            if name not in self.config.providers and name not in self._closed:  # submitted with another config
                self._close(name, WrongAddress(f"the config has no provider `{name}`; jobs that name it stay queued"))
        return [name for name in names if name not in self._closed]

    async def _work(self, name: str, writer: Writer, money: budget.Budget) -> None:
        """Open a provider's doors and work until its requests have ended."""
        provider = self.config.providers[name]
        try:
            key, headers = provider.key(self.environment), provider.header_values(self.environment)
        except ConfigError as reason:  # submitted beside this run, which was not asked for this key when it began
            self._close(name, KeyRefused(str(reason)))
            return
        try:
            base_url = await self.address(provider)
        except ConfigError as reason:
            self._close(name, WrongAddress(str(reason)))
            return
        rules = self.config.download
        async with AsyncExitStack() as stack:
            threads = image_threads()
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            api = Api(
                base_url,
                key,
                headers,
                dialect=provider.dialect,
                threads=threads,
                timeout=provider.timeout_seconds,
                connections=provider.concurrency,
                most_bytes=_ENVELOPE_BYTES + rules.max_bytes * 4 // 3 * provider.images_per_call,
            )
            downloader = Downloader(
                base_url=base_url,
                allow_hosts=rules.allow_hosts | provider.dialect.picture_hosts,
                most_bytes=rules.max_bytes,
                connections=max(64, provider.concurrency),
            )
            desk = Desk(
                provider=provider,
                config=self.config,
                models=self.models,
                folder=self.folder,
                api=await stack.enter_async_context(api),
                downloader=await stack.enter_async_context(downloader),
                threads=threads,
                gate=await self._gate(provider, base_url, writer),
                writer=writer,
                money=money,
                emit=self.emit,
                is_barred=lambda work: any(bar.holds(work) for bar in self._barred),
            )
            lane = self._lanes[name] = Lane(desk, self.scope, self._barred, self._stop)
            self._say_paces()
            if self._halted:
                lane.halt()
            try:
                await lane.work()
            finally:
                self._say_paces()  # at work no more
                del self._lanes[name]

    async def _gate(self, provider: Provider, base_url: str, writer: Writer) -> Gate:
        """Give a provider's gate, one for the whole run; it knows what an earlier run sent, and was told."""
        if provider.name not in self._gates:
            retry, limit, now = self.config.retry, provider.rate_limit, time.time()
            gate = Gate(limit, base_url, retry.outage_hours * 3600, retry.max_wait_seconds)
            if limit is not None:
                sent = await writer.do(attempts.sent_since, provider.name, now - limit.window)
                gate.throttle.remember((now - moment, images) for moment, images in sent)
            paused = await writer.do(attempts.paused_until, provider.name) - now
            gate.throttle.pause(min(paused, LONGEST_PAUSE))  # more than was ever asked: the clock was set back
            self._gates[provider.name] = gate
        return self._gates[provider.name]

    def _stop(self, error: Stop, work: Work | None) -> None:
        """Carry a stop as far as its cause reaches, and say so once."""
        if work is None or error.reach == "everything":
            self.stops.append(error)
            if not self._halted:
                self.emit(Stopped("everything", error))
            self.halt()
        elif error.reach == "provider":
            self._close(work.provider, error)
        else:
            self._bar(error, work)

    def _bar(self, error: Stop, work: Work) -> None:
        """Hold up the requests that the cause of a stop reaches."""
        self.stops.append(error)
        match error.reach:
            case "operation":
                bar = Bar(provider=work.provider, served_by=work.served_by)
                what = f"provider `{work.provider}` and its {work.served_by}s"
            case "model":
                bar = Bar(job=work.job, model=work.model)
                what = f"job `{work.job_name}` and its model `{work.model}`"
            case _:
                bar = Bar(job=work.job)
                what = f"job `{work.job_name}`"
        if bar not in self._barred:
            self.emit(Stopped(what, error))
        self._barred.add(bar)

    def _close(self, provider: str, error: Stop) -> None:
        """Call this provider no more."""
        self.stops.append(error)
        if provider not in self._closed:
            self.emit(Stopped(f"provider `{provider}`", error))
        self._closed.add(provider)
        if provider in self._lanes:
            self._lanes[provider].halt()

"""A run: the lanes of all providers that requests wait for, side by side in one task group."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.client.client import ImagesClient
from pipeline.client.download import Downloader
from pipeline.client.rate_limit_hints import LONGEST_PAUSE
from pipeline.engine import budget
from pipeline.engine.admission import Admission
from pipeline.engine.dispatcher import POLL_SECONDS, Dispatcher
from pipeline.engine.events import Stopped
from pipeline.engine.provider_context import ProviderContext, image_threads
from pipeline.errors import ConfigError, KeyRefused, PipelineError, Stop, WrongAddress
from pipeline.ledger import attempts
from pipeline.ledger.queue import Block, waiting_providers
from pipeline.ledger.recovery import recover_running
from pipeline.ledger.writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from pipeline.config.load import Config, Provider, RateLimit
    from pipeline.engine.events import Listener, ProviderPace
    from pipeline.ledger.queue import QueuedRequest, Scope
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
    _blocked: set[Block] = field(default_factory=set)
    _closed: set[str] = field(default_factory=set)  # providers that have stopped
    _dispatchers: dict[str, Dispatcher] = field(default_factory=dict)
    _admissions: dict[str, Admission] = field(default_factory=dict)
    _paces: dict[str, ProviderPace] = field(default_factory=dict)  # what was last said of each provider
    _halted: bool = False

    async def run(self) -> None:
        """Work to the end. Raises what no request can be blamed for, in an ExceptionGroup."""
        async with Writer(self.connection) as writer:
            try:
                await self._work_all(writer, budget.Budget(self.budget_usd, self.config.budget_usd))
            finally:
                for admission in self._admissions.values():
                    admission.close()
            with contextlib.suppress(PipelineError):  # a full disk: the next start does the same
                await writer.do(recover_running, time.time())

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
        for name, dispatcher in self._dispatchers.items():
            pace = dispatcher.pace()
            if pace != self._paces.get(name):
                self._paces[name] = pace
                self.emit(pace)

    def halt(self) -> None:
        """Make no further call; what is in flight is finished."""
        self._halted = True
        for dispatcher in self._dispatchers.values():
            dispatcher.halt()

    @property
    def lowered(self) -> dict[str, RateLimit]:
        """The limits that providers stated and that were adopted, by provider."""
        return {name: admission.lowered for name, admission in self._admissions.items() if admission.lowered}

    async def _waiting(self, writer: Writer) -> list[str]:
        """Name the providers that have work and may be called."""
        if self._halted:
            return []
        try:
            names = await writer.do(waiting_providers, self.scope, frozenset(self._blocked))
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
            api = ImagesClient(
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
            context = ProviderContext(
                provider=provider,
                config=self.config,
                models=self.models,
                folder=self.folder,
                api=await stack.enter_async_context(api),
                downloader=await stack.enter_async_context(downloader),
                threads=threads,
                admission=await self._admission(provider, base_url, writer),
                writer=writer,
                money=money,
                emit=self.emit,
                is_blocked=lambda work: any(bar.holds(work) for bar in self._blocked),
            )
            dispatcher = self._dispatchers[name] = Dispatcher(context, self.scope, self._blocked, self._stop)
            self._say_paces()
            if self._halted:
                dispatcher.halt()
            try:
                await dispatcher.work()
            finally:
                self._say_paces()  # at work no more
                del self._dispatchers[name]

    async def _admission(self, provider: Provider, base_url: str, writer: Writer) -> Admission:
        """Give a provider's gate, one for the whole run; it knows what an earlier run sent, and was told."""
        if provider.name not in self._admissions:
            retry, limit, now = self.config.retry, provider.rate_limit, time.time()
            admission = Admission(limit, base_url, retry.outage_hours * 3600, retry.max_wait_seconds)
            if limit is not None:
                sent = await writer.do(attempts.sent_since, provider.name, now - limit.window)
                admission.throttle.remember((now - moment, images) for moment, images in sent)
            paused = await writer.do(attempts.paused_until, provider.name) - now
            admission.throttle.pause(min(paused, LONGEST_PAUSE))  # more than was ever asked: the clock was set back
            self._admissions[provider.name] = admission
        return self._admissions[provider.name]

    def _stop(self, error: Stop, work: QueuedRequest | None) -> None:
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

    def _bar(self, error: Stop, work: QueuedRequest) -> None:
        """Hold up the requests that the cause of a stop reaches."""
        self.stops.append(error)
        match error.reach:
            case "operation":
                bar = Block(provider=work.provider, served_by=work.served_by)
                what = f"provider `{work.provider}` and its {work.served_by}s"
            case "model":
                bar = Block(job=work.job, model=work.model)
                what = f"job `{work.job_name}` and its model `{work.model}`"
            case _:
                bar = Block(job=work.job)
                what = f"job `{work.job_name}`"
        if bar not in self._blocked:
            self.emit(Stopped(what, error))
        self._blocked.add(bar)

    def _close(self, provider: str, error: Stop) -> None:
        """Call this provider no more."""
        self.stops.append(error)
        if provider not in self._closed:
            self.emit(Stopped(f"provider `{provider}`", error))
        self._closed.add(provider)
        if provider in self._dispatchers:
            self._dispatchers[provider].halt()

"""Execute one run: the engine over the queue, then manifests, reports, backup and notifications.

The caller holds the lock of the output folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.config.workers import WorkerSettings
from pipeline.errors import PipelineError, first_error
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.queries import count_unsuccessful, jobs_in_scope
from pipeline.ledger.spooled_images import ledger_id
from pipeline.ledger.waiting import count_pending
from pipeline.planning.build import load_models
from pipeline.preparation import back_up_ledger
from pipeline.reports.manifest import write_manifest
from pipeline.reports.thumbnails import make_thumbnail
from pipeline.reports.write import ThumbnailWork, make_report_thumbnails, write_reports
from pipeline.result import Result
from pipeline.sandbox_process import sandbox_processes
from pipeline.stores import Addresses, Stores

if TYPE_CHECKING:
    import signal
    import sqlite3
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.engine_names import Engine
    from pipeline.config.load import Config, Provider
    from pipeline.engine.events import Event, Listener
    from pipeline.engine.runner import Runner
    from pipeline.ledger.folder_identity import HeldFolder
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.ledger.queries import RecordedImage
    from pipeline.ledger.queue import Scope
    from pipeline.ray.session import RaySession
    from pipeline.sandbox_process import SandboxProcesses

T = TypeVar("T")

STOPPED_SECONDS = 2.0
"""How long a run that a signal has stopped may still make thumbnails."""


def check_credentials(provider: Provider, environment: Mapping[str, str]) -> None:
    """Check that a provider's environment variables are set. Raises ConfigError if one is not."""
    provider.key(environment)
    provider.header_values(environment)


def workers_in_force(config: Config, on: Engine | None) -> WorkerSettings | None:
    """Return the workers that make a run's calls, None if it makes them itself. Raises ConfigError without Ray."""
    settings = config.workers or WorkerSettings(engine="local")
    if (on or settings.engine) != "ray":
        return None
    from pipeline.ray.start import check_installed

    check_installed()
    return settings


def check_settings(config: Config, environment: Mapping[str, str], on: Engine | None) -> None:
    """Check what a run needs beside its providers: the variables of notifications, and Ray. Raises ConfigError."""
    workers_in_force(config, on)
    if config.notify is not None:
        config.notify.webhook_url(environment)
        config.notify.header_values(environment)


@dataclass(frozen=True, slots=True)
class Run:
    """One run over the pending requests in `scope`. Without `wait` it leaves batches that have not ended.

    `chosen` are primary keys: the requests that decide how the run has ended, if not all of its jobs do.
    `on` is where calls are made, in place of what the config says.
    """

    config: Config
    environment: Mapping[str, str] = field(repr=False)
    connection: sqlite3.Connection
    held: HeldFolder
    scope: Scope
    budget_usd: float | None
    wait: bool = True
    chosen: frozenset[int] | None = None
    on: Engine | None = None

    async def execute(self, emit: Listener) -> Result:
        """Process the queue to the end, and send the notifications that are configured."""
        emit = _suppressing_errors(emit)
        if self.config.notify is None:
            return await self._execute(emit)
        from pipeline.notifications.notifier import Notifier

        async with Notifier(self.config, self.environment, emit) as notifier:
            result = await self._execute(notifier.listen)
            notifier.ended(
                result.exit_code,
                result.summaries,
                result.stops,
                None if result.signal is None else result.signal.name,
            )
        return result

    async def _execute(self, emit: Listener) -> Result:
        """Run the engine; at any end, write manifests and reports and back up the ledger."""
        from pipeline.engine.events import KeyExposed, RunStarted
        from pipeline.signals import Shutdown

        names = None if self.scope.names is None else sorted(self.scope.names)
        before = read_job_summaries(self.connection, names)
        for provider in self._at_work(before):
            check_credentials(provider, self.environment)
        stores = Stores.of(self.config)
        if any(summary.unfinished for summary in before) and stores.remote is not None:
            from pipeline.engine.uploads import check_store

            await check_store(stores.remote, ledger_id(self.connection))
        shutdown = Shutdown()
        async with AsyncExitStack() as stack:
            workers = await stack.enter_async_context(AsyncExitStack())
            session = await self._open_workers(workers, before, emit)
            sandboxes = await stack.enter_async_context(sandbox_processes(self.config.output))
            runner = self._make_runner(sandboxes, stores, session, emit)
            try:  # signals are handled from here on: `ray.init` replaces the handler of SIGTERM
                with shutdown.listening(functools.partial(_stop, runner, session, emit)):
                    emit(
                        RunStarted(tuple(summary.name for summary in before if names is not None or summary.unfinished))
                    )
                    for provider in self._at_work(before):
                        if host := provider.exposed_host:
                            emit(KeyExposed(provider.name, host))
                    await runner.run()
            except BaseExceptionGroup as group:
                raise first_error(group) from None
            finally:
                try:
                    await workers.aclose()  # what follows may take longer than a lease
                finally:
                    manifests, reports, unwritten = self._write_outputs(emit)
        names_at_end = jobs_in_scope(self.connection, self.scope)
        return Result(
            config=self.config,
            summaries=read_job_summaries(self.connection, names_at_end, self.config.discounts),
            stops=tuple(runner.stops),
            signal=shutdown.signal,
            manifests=manifests,
            lowered=runner.lowered,
            reports=reports,
            unwritten=unwritten,
            passed_on=tuple(runner.passed_on),
            unreached=count_pending(self.connection, self.scope),
            unsuccessful=None if self.chosen is None else count_unsuccessful(self.connection, self.chosen),
        )

    def _at_work(self, summaries: Sequence[JobSummary]) -> list[Provider]:
        """Return the providers of unfinished jobs, each once. Raises ConfigError if one is not configured."""
        names = dict.fromkeys(summary.provider for summary in summaries if summary.unfinished)
        members = {member.name: member for name in names for member in self.config.members(name)}
        return list(members.values())

    async def _open_workers(
        self, stack: AsyncExitStack, before: Sequence[JobSummary], emit: Listener
    ) -> RaySession | None:
        """Have workers if calls are to be made by them, and there is something to do. Raises ConfigError."""
        settings = workers_in_force(self.config, self.on)
        if settings is None or not any(summary.unfinished for summary in before):
            return None
        from pipeline.ray.session import ray_session

        providers = self._at_work(before)
        return await stack.enter_async_context(ray_session(settings, self.config, self.environment, providers, emit))

    def _make_runner(
        self, sandboxes: SandboxProcesses, stores: Stores, session: RaySession | None, emit: Listener
    ) -> Runner:
        from pipeline.engine.provider_context import Callers
        from pipeline.engine.runner import Runner

        callers = Callers(self.environment, sandboxes.base_url)
        if session is not None:
            callers = replace(callers, make=session.make)
        runner = Runner(
            self.connection,
            self.held,
            self.config,
            load_models(self.config),
            self.scope,
            callers,
            emit,
            self.budget_usd,
            waits=self.wait,
            keep_thumbnail=functools.partial(_keep_thumbnail, self.config.output, stores),
        )
        if session is not None:
            session.stop = runner.stop
        return runner

    def _write_outputs(self, emit: Listener) -> tuple[tuple[Path, ...], tuple[Path, ...], tuple[str, ...]]:
        """Write manifests and reports and back up the ledger: (manifests, reports, what could not be written).

        Nothing is written in place of a folder that is gone; the next run writes it all.
        """
        if not self.held.is_in_place:
            return (), (), ("no manifest and no report was written, since the output folder is not where it was",)
        names = jobs_in_scope(self.connection, self.scope)
        manifests = [
            write_manifest(self.connection, name, self.config.output, Addresses.of(self.config)) for name in names
        ]
        reports, unwritten = write_reports(self.connection, self.config, names)
        back_up_ledger(self.connection, self.config.output, emit)
        return tuple(manifests), tuple(reports), tuple(unwritten)


def _keep_thumbnail(folder: Path, stores: Stores, image: RecordedImage) -> None:
    """Make the thumbnail of an image that leaves the local disk; else the report would have to read it back."""
    if image.format != "svg":
        with contextlib.suppress(OSError):
            make_thumbnail(folder / image.job, stores, image)


def _stop(runner: Runner, session: RaySession | None, emit: Listener, number: signal.Signals) -> None:
    from pipeline.engine.events import Stopping

    emit(Stopping(number.name))
    runner.halt()
    if session is not None:
        session.pool.halt()


def _suppressing_errors(emit: Listener) -> Listener:
    """Return a listener whose own errors, such as a broken pipe, do not reach the code that makes paid calls."""

    def emit_safely(event: Event) -> None:
        with contextlib.suppress(OSError, PipelineError):
            emit(event)

    return emit_safely


async def make_missing_thumbnails(result: Result, emit: Listener) -> Result:
    """Make the thumbnails of a run's reports, without holding the folder's lock; a signal leaves the rest undone."""
    from pipeline.engine.events import ThumbnailsMade
    from pipeline.signals import Shutdown

    loop = asyncio.get_running_loop()

    def show(event: ThumbnailsMade) -> None:
        with contextlib.suppress(OSError):  # the terminal or the pipe is gone
            emit(event)

    def count(job: str, made: int, total: int) -> None:
        loop.call_soon_threadsafe(show, ThumbnailsMade(job, made, total))

    work = ThumbnailWork(result.config, count)
    with Shutdown().listening(lambda _number: work.stop.set()):
        await make_report_thumbnails(work, result.reports, STOPPED_SECONDS if result.signal else None)
    return replace(result, unwritten=(*result.unwritten, *work.unwritten))


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop: uvloop's if it is installed.

    Raises KeyboardInterrupt if a second signal cancelled it, and RuntimeError if this thread runs an event loop.
    """
    if _has_running_loop():
        coroutine.close()
        raise RuntimeError("an event loop is at work here, as in a notebook: write `await batch.run(...)`")
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as factory
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

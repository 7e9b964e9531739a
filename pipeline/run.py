"""The queue → its end: one run, with what stands around the engine; the folder is held by whoever calls."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import DiskFull, PipelineError
from pipeline.ledger.backup import back_up
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.queries import jobs_in_scope
from pipeline.notifications.notifier import Notifier
from pipeline.planning.build import load_models
from pipeline.reports.manifest import write_manifest
from pipeline.reports.write import write_reports
from pipeline.result import Result
from pipeline.sandbox_process import Sandboxes

if TYPE_CHECKING:
    import signal
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.config.load import Config, Provider
    from pipeline.engine.events import Event, Listener
    from pipeline.ledger.queue import Scope


def check_keys(provider: Provider, environment: Mapping[str, str]) -> None:
    """Read what a provider takes from the environment. Raises ConfigError where it is not there."""
    provider.key(environment)
    provider.header_values(environment)


def copy_ledger(connection: sqlite3.Connection, folder: Path, emit: Listener) -> None:
    """Copy the ledger, before a run and after it. Raises LedgerError where it is damaged."""
    from pipeline.engine.events import BackupFailed

    try:
        back_up(connection, folder)
    except DiskFull as error:  # the copy takes as much room as the ledger, and pictures may still have theirs
        emit(BackupFailed(error))


@dataclass(frozen=True, slots=True)
class Run:
    """One run over what is pending in `scope`."""

    config: Config
    environment: Mapping[str, str]
    connection: sqlite3.Connection
    scope: Scope
    budget_usd: float | None

    async def work(self, emit: Listener) -> Result:
        """Work to the end, and tell those who are to be told of it."""
        async with Notifier(self.config, self.environment, _unharmed(emit)) as notifier:
            result = await self._work_off(notifier.listen)
            notifier.ended(
                result.exit_code,
                result.summaries,
                [stop.message for stop in result.stops],
                None if result.signal is None else result.signal.name,
            )
        return result

    async def _work_off(self, tell: Listener) -> Result:
        """Run the engine, then write manifests and reports and copy the ledger, whatever the end."""
        from pipeline.engine.events import RunStarted, Stopping
        from pipeline.engine.runner import Runner
        from pipeline.signals import Shutdown

        folder, connection = self.config.output, self.connection
        names = None if self.scope.names is None else sorted(self.scope.names)
        before = read_job_summaries(connection, names)
        for summary in before:
            if summary.unfinished:
                check_keys(self.config.find_provider(summary.provider), self.environment)
        shutdown = Shutdown()
        async with AsyncExitStack() as stack:
            runner = Runner(
                connection,
                self.config,
                load_models(self.config),
                self.scope,
                self.environment,
                Sandboxes(folder, stack).address,
                tell,
                self.budget_usd,
            )
            try:

                def stop(number: signal.Signals) -> None:
                    tell(Stopping(number.name))
                    runner.halt()

                with shutdown.listening(stop):
                    tell(RunStarted(tuple(one.name for one in before if names is not None or one.unfinished)))
                    await runner.run()
            except BaseExceptionGroup as group:
                raise _first(group) from None
            finally:
                worked = jobs_in_scope(connection, self.scope)
                manifests = [write_manifest(connection, name, folder) for name in worked]
                reports, unwritten = write_reports(connection, self.config, worked)
                copy_ledger(connection, folder, tell)
        return Result(
            self.config,
            read_job_summaries(connection, names),
            tuple(runner.stops),
            shutdown.signal,
            tuple(manifests),
            runner.lowered,
            tuple(reports),
            tuple(unwritten),
        )


def _unharmed(emit: Listener) -> Listener:
    """Keep a listener's own trouble, such as a pipe that nobody reads any more, from those who make paid calls."""

    def tell(event: Event) -> None:
        with contextlib.suppress(OSError, PipelineError):
            emit(event)

    return tell


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group, an error of ours before any other."""
    error: BaseException = group.subgroup(PipelineError) or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

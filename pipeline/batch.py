"""One output folder at work: lock, submit, sandbox, run, manifest. The command line is a shell over this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pipeline.bell import Bell
from pipeline.config import load
from pipeline.engine import intake
from pipeline.engine.accounts import Account, read_accounts
from pipeline.engine.backup import back_up
from pipeline.engine.ledger import FILE_NAME, named_errors, open_for_reading, recover
from pipeline.engine.store import disk_error
from pipeline.engine.work import Scope
from pipeline.errors import DiskFull, PipelineError, Stop
from pipeline.files import make_folder, write_whole
from pipeline.holding import held, opened
from pipeline.planning import JobOptions, load_models, make_plans, spooling
from pipeline.rehearsal import Sandboxes
from pipeline.results.manifest import write_manifest
from pipeline.results.outcome import read_outcomes
from pipeline.showing import illustrate, show, write_pages

if TYPE_CHECKING:
    import signal
    import sqlite3
    from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

    from pipeline.config import Config, Provider, RateLimit
    from pipeline.engine.events import Event, Listener
    from pipeline.results.outcome import Outcome
    from pipeline.results.verification import Damage
    from pipeline.spec.job import Job
    from pipeline.spec.plan import Plan

SUBMIT_LOCK_FILE = "submit.lock"

ILLUSTRATION_SECONDS, ILLUSTRATION_SHARE = 0.2, 0.01
"""What a run may take longer for thumbnails: this, and this part of its time. A night at 50 pictures a minute needs a
third of that; a server without a limit is not to wait for them.
"""


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `accounts` are those of the jobs it was asked for; `lowered` are the limits that
    providers stated, by provider, and that held instead of the configured ones; `unwritten` says what of the reports
    could not be written.
    """

    folder: Path
    accounts: Sequence[Account]
    stops: Sequence[Stop]
    signal: signal.Signals | None
    manifests: Sequence[Path]
    lowered: Mapping[str, RateLimit]
    reports: Sequence[Path] = ()
    unwritten: Sequence[str] = ()

    @property
    def requests(self) -> list[Outcome]:
        """What became of each request of these jobs, in their order; read from the ledger each time."""
        return [outcome for account in self.accounts for outcome in read_outcomes(self.folder, account.name)]

    def raise_for_error(self) -> None:
        """Raise what stopped the run, else the error of the first request that failed, if one did: a RequestError."""
        failed = (one.error for one in self.requests if one.status in {"failed", "partial"})
        error = next(iter(self.stops), None) or next(failed, None)
        if error is not None:
            raise error

    @property
    def exit_code(self) -> int:
        """Say in a number what became of what was asked for, as the README lists it."""
        if self.signal is not None:
            return 128 + self.signal
        if self.stops:
            return 3
        return int(any(account.unsuccessful for account in self.accounts))


@dataclass(slots=True)
class Batch:
    """An output folder, its config and its environment."""

    config: Config
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @classmethod
    def open(
        cls, *, config: Path | None = None, output: Path | str | None = None, provider: str | None = None
    ) -> Batch:
        """Read the config as the command does; `provider` serves jobs that name none. Raises ConfigError."""
        read = load(config, output=None if output is None else Path(output))
        if provider is not None:
            read = replace(read, provider=read.find_provider(provider).name)
        return cls(read)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.config.output

    def submit(self, jobs: Sequence[Path | Job], options: JobOptions = JobOptions()) -> list[Plan]:
        """Check, expand and queue jobs; calls nobody. Raises BadInput, having changed nothing."""
        with spooling() as spool:
            plans = make_plans(self.config, jobs, options, spool)
            with opened(self.folder) as connection:
                self._queue(connection, plans, spool)
        return plans

    def run_sync(
        self,
        jobs: Sequence[Path | Job] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
    ) -> Result:
        """Do as `run`, from code that has no event loop."""
        return wait_for(self.run(jobs, options, emit=emit))

    async def run(
        self,
        jobs: Sequence[Path | Job] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
        started: Callable[[list[Plan]], None] = lambda _plans: None,
    ) -> Result:
        """Submit these jobs and work them to the end; without any, work the whole queue.

        Raises BadInput, having changed nothing and called nobody, and FolderBusy, having queued the jobs.
        """
        began = time.monotonic()
        with spooling() as spool:
            plans = make_plans(self.config, jobs, options, spool)
            for plan in plans:
                self._check_keys(plan.provider)
            self._check_notify()
            with (
                opened(self.folder) as connection,
                held(self.folder, connection, lambda: self._queue(connection, plans, spool)),
            ):
                self._back_up(connection, emit)
                recover(connection)
                since = time.time()
                names = self._queue(connection, plans, spool)
                started(plans)
                scope = Scope(frozenset(names), since) if jobs else Scope(None, since)
                result = await self._work(connection, scope, options, emit)
        return await self._illustrate(result, began)

    async def resume(
        self,
        names: Sequence[str] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
    ) -> Result:
        """Put failed, partial and cancelled requests of these jobs, or of all, back into the queue, then work them."""
        began = time.monotonic()
        self._check_notify()
        with opened(self.folder, names) as connection:
            names = intake.known_names(connection, names)
            with held(self.folder, connection, lambda: intake.put_back(connection, names or None)):
                self._back_up(connection, emit)
                recover(connection)
                for account in read_accounts(connection, names or None):
                    if account.unfinished or account.unsuccessful or account.counts["cancelled"]:
                        self._check_keys(self.config.find_provider(account.provider))
                intake.put_back(connection, names or None)
                scope = Scope(frozenset(names), time.time()) if names else Scope(None, time.time())
                result = await self._work(connection, scope, options, emit)
        return await self._illustrate(result, began)

    def accounts(self) -> list[Account]:
        """Read how far each job is, the oldest first; also beside a run that is at work."""
        connection = open_for_reading(self.folder)
        if connection is None:
            return []
        with contextlib.closing(connection), named_errors(self.folder / FILE_NAME):
            return read_accounts(connection)

    def cancel(self, name: str) -> int:
        """Take what is pending of a job out of the queue; how many requests. Raises BadInput."""
        with opened(self.folder, [name]) as connection:
            (name,) = intake.known_names(connection, [name])
            return intake.cancel(connection, name)

    def put_back(self, name: str) -> int:
        """Put what failed, came back partial or was cancelled of a job back into the queue, for a run to take up.

        Gives how many requests. Raises BadInput.
        """
        with opened(self.folder, [name]) as connection:
            return intake.put_back(connection, intake.known_names(connection, [name]))

    def manifest(self, name: str) -> Path:
        """Write a job's manifest again from the ledger; its path. Raises BadInput."""
        with opened(self.folder, [name]) as connection:
            (name,) = intake.known_names(connection, [name])
            return write_manifest(connection, name, self.folder)

    def report(self, name: str, sheet: Path | None = None) -> list[Path]:
        """Write a job's report, and its contact sheet where one is wanted; their paths. Raises BadInput."""
        return show(self.config, name, sheet)

    def verify(self, name: str | None = None, *, repair: bool = False) -> tuple[int, list[Damage]]:
        """Read every image of a job, or of all, again: how many there are, and which are not as the ledger says.

        With `repair` those are moved to quarantine/ and what is missing is queued. Raises BadInput and DiskFull.
        """
        from pipeline.results import verification

        with opened(self.folder, [] if name is None else [name]) as connection:
            if name is not None:
                (name,) = intake.known_names(connection, [name])
            damages = list(verification.find_damage(connection, self.folder, name))
            if repair and damages:
                verification.repair(connection, self.folder, damages)
            return verification.count_images(connection, name) + (len(damages) if repair else 0), damages

    def _queue(self, connection: sqlite3.Connection, plans: Sequence[Plan], spool: Path) -> list[str]:
        """Put plans and their input pictures where a run finds them; all are checked before the first is queued.

        One process at a time; gives the jobs' names as the ledger spells them.
        """
        try:
            with FileLock(self.folder / SUBMIT_LOCK_FILE) if plans else contextlib.nullcontext():
                names = [intake.check_claim(connection, plan) for plan in plans]
                for name, plan in zip(names, plans, strict=True):
                    self._bring_inputs(name, plan, spool)
                    intake.submit(connection, plan)
        except OSError as reason:
            raise disk_error(reason, self.folder) from None
        return names

    def _bring_inputs(self, name: str, plan: Plan, spool: Path) -> None:
        for file in dict.fromkeys(one.file for request in plan.requests for one in request.inputs):
            target = self.folder / name / file
            if not target.exists():
                make_folder(target.parent)
                write_whole(target, (spool / file).read_bytes())

    def _check_keys(self, provider: Provider) -> None:
        provider.key(self.environment)
        provider.header_values(self.environment)

    def _back_up(self, connection: sqlite3.Connection, emit: Listener) -> None:
        """Copy the ledger, before a run and after it. Raises LedgerError where it is damaged."""
        from pipeline.engine.events import NotBackedUp

        try:
            back_up(connection, self.folder)
        except DiskFull as error:  # the copy takes as much room as the ledger, and pictures may still have theirs
            emit(NotBackedUp(error))

    def _check_notify(self) -> None:
        if self.config.notify is not None:
            self.config.notify.address(self.environment)
            self.config.notify.header_values(self.environment)

    async def _work(self, connection: sqlite3.Connection, scope: Scope, options: JobOptions, emit: Listener) -> Result:
        """Work to the end, and tell those who are to be told of it."""
        async with Bell(self.config, self.environment, _unharmed(emit)) as bell:
            result = await self._work_off(connection, scope, options, bell.hear)
            bell.ended(
                result.exit_code,
                result.accounts,
                [stop.message for stop in result.stops],
                None if result.signal is None else result.signal.name,
            )
        return result

    async def _work_off(
        self, connection: sqlite3.Connection, scope: Scope, options: JobOptions, tell: Listener
    ) -> Result:
        """Run what is pending in scope, then write manifests and reports, whatever the end."""
        from pipeline.engine.events import Began, Stopping
        from pipeline.engine.runner import Runner
        from pipeline.engine.shutdown import Shutdown

        names = None if scope.names is None else sorted(scope.names)
        before = read_accounts(connection, names)
        for account in before:
            if account.unfinished:
                self._check_keys(self.config.find_provider(account.provider))
        shutdown = Shutdown()
        async with AsyncExitStack() as stack:
            sandboxes = Sandboxes(self.folder, stack)
            runner = Runner(
                connection,
                self.folder,
                self.config,
                load_models(self.config),
                scope,
                self.environment,
                sandboxes.address,
                tell,
                options.budget_usd,
            )
            try:

                def stop(number: signal.Signals) -> None:
                    tell(Stopping(number.name))
                    runner.halt()

                with shutdown.listening(stop):
                    tell(Began(tuple(one.name for one in before if names is not None or one.unfinished)))
                    await runner.run()
            except BaseExceptionGroup as group:
                raise _first(group) from None
            finally:
                worked = _worked(connection, scope)
                manifests = [write_manifest(connection, name, self.folder) for name in worked]
                reports, unwritten = write_pages(connection, self.config, worked)
                self._back_up(connection, tell)
        return Result(
            self.folder,
            read_accounts(connection, names),
            tuple(runner.stops),
            shutdown.signal,
            tuple(manifests),
            runner.lowered,
            tuple(reports),
            tuple(unwritten),
        )

    async def _illustrate(self, result: Result, began: float) -> Result:
        """Make the reports' thumbnails in a moment of the run's time: others may work on the folder by now."""
        seconds = ILLUSTRATION_SECONDS + ILLUSTRATION_SHARE * (time.monotonic() - began)
        unwritten = await illustrate(self.folder, result.reports, seconds)
        return replace(result, unwritten=(*result.unwritten, *unwritten))


def _unharmed(emit: Listener) -> Listener:
    """Keep a listener's own trouble, such as a pipe that nobody reads any more, from those who make paid calls."""

    def tell(event: Event) -> None:
        with contextlib.suppress(OSError, PipelineError):
            emit(event)

    return tell


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end in a loop of our own: uvloop's where the platform has it.

    Raises KeyboardInterrupt where a second signal ended it at once.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as factory
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(work)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _worked(connection: sqlite3.Connection, scope: Scope) -> list[str]:
    """Name the jobs that a run was about: those it was given, and those submitted while it worked."""
    rows = connection.execute("SELECT name, submitted_at FROM job WHERE revision > 0 ORDER BY pk").fetchall()
    return [
        name for name, submitted_at in rows if scope.names is None or name in scope.names or submitted_at > scope.since
    ]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the error that ended a group of tasks: ours with its sentence before any other."""
    errors = list(_leaves(group))
    return next((error for error in errors if isinstance(error, PipelineError)), errors[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error

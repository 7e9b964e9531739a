"""One output folder at work: lock, submit, sandbox, run, manifest. The command line is a shell over this."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.engine import intake
from pipeline.engine.accounts import Account, read_accounts
from pipeline.engine.ledger import open_for_reading, open_ledger, recover, transaction
from pipeline.engine.work import Scope
from pipeline.errors import BadInput, ConfigError, FolderBusy, JobError, PipelineError, Problem, Stop
from pipeline.files import write_whole
from pipeline.rehearsal import Sandboxes, check_settings
from pipeline.results.manifest import write_manifest

if TYPE_CHECKING:
    import signal
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pipeline.config import Config, Provider
    from pipeline.engine.events import Listener
    from pipeline.results.verification import Damage
    from pipeline.spec.models import Models
    from pipeline.spec.plan import Plan

LOCK_FILE = "run.lock"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What the command line adds to a job file: another provider to rehearse on, and a cut."""

    provider: str | None = None
    limit: int | None = None
    allow_large: bool = False
    allow_unpriced: bool = False
    budget_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `accounts` are those of the jobs it was asked for."""

    accounts: Sequence[Account]
    stops: Sequence[Stop]
    signal: signal.Signals | None
    manifests: Sequence[Path]

    @property
    def exit_code(self) -> int:
        """Say in a number what became of what was asked for, as the README lists it."""
        if self.signal is not None:
            return 128 + self.signal
        if self.stops:
            return 3
        return int(any(account.unsuccessful for account in self.accounts))


def load_models(config: Config) -> Models:
    """Read the table of models, the config's own laid over it. Raises ConfigError."""
    from pipeline.spec.models import Models

    return Models.load(config.models)


def make_plans(config: Config, paths: Iterable[Path], options: JobOptions, spool: Path | None = None) -> list[Plan]:
    """Read, expand and check job files: all of them, or none. Raises BadInput with the mistakes of all."""
    from pipeline.spec.job import read_job
    from pipeline.spec.plan import make_plan

    models = load_models(config)
    plans: list[Plan] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            job = read_job(path)
            provider = _choose_provider(config, job.provider, options.provider, job.document.where("provider"))
            name = f"{job.name}.{options.provider}" if options.provider else job.name
            plan = make_plan(
                job, provider, models, name=name, limit=options.limit, allow_large=options.allow_large, spool=spool
            )
            _check_budget(config, plan, options)
            plans.append(plan)
        except BadInput as error:
            problems += error.problems
    problems += _name_twins(plans)
    if problems:
        raise JobError(problems)
    return plans


def _choose_provider(config: Config, own: str | None, asked: str | None, where: str) -> Provider:
    name = asked or own or config.provider
    if name is None:
        known = ", ".join(sorted(config.providers))
        what = f"names no provider, and there is no default: add a line `provider: NAME` ({known})"
        raise JobError([Problem(where, what)])
    provider = config.find_provider(name)
    if provider.sandbox is not None:
        check_settings(config, provider)
    return provider


def _check_budget(config: Config, plan: Plan, options: JobOptions) -> None:
    """Refuse a budget that could not be kept, because a model has no price."""
    budgets = (options.budget_usd, plan.budget_usd, config.budget_usd)
    if (
        plan.unpriced
        and plan.provider.sandbox is None
        and not options.allow_unpriced
        and any(b is not None for b in budgets)
    ):
        models = ", ".join(f"`{model}`" for model in plan.unpriced)
        what = f"has a budget, and {models} has no price: add prices under `models:` in the config, or --allow-unpriced"
        raise JobError([Problem(str(plan.file), what)])


def _name_twins(plans: list[Plan]) -> list[Problem]:
    """Find job files of one command that claim one name."""
    seen: dict[str, Plan] = {}
    problems = []
    for plan in plans:
        first = seen.setdefault(plan.name.lower(), plan)
        if first is not plan and first.file != plan.file:
            problems.append(
                Problem(str(plan.file), f"has the name `{plan.name}`, as {first.file} has; give it another")
            )
    return problems


@dataclass(slots=True)
class Batch:
    """An output folder, its config and its environment."""

    config: Config
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.config.output

    def submit(self, paths: Sequence[Path], options: JobOptions = JobOptions()) -> list[Plan]:
        """Check, expand and queue job files; calls nobody. Raises BadInput, having changed nothing."""
        with tempfile.TemporaryDirectory(prefix="pipeline-") as spool:
            plans = make_plans(self.config, paths, options, Path(spool))
            with self._ledger() as connection:
                self._queue(connection, plans, Path(spool))
        return plans

    async def run(
        self,
        paths: Sequence[Path] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
        started: Callable[[list[Plan]], None] = lambda _plans: None,
    ) -> Result:
        """Submit these jobs and work them to the end; without any, work the whole queue.

        Raises BadInput, having changed nothing and called nobody, and FolderBusy, having queued the jobs.
        """
        with tempfile.TemporaryDirectory(prefix="pipeline-") as spool:
            plans = make_plans(self.config, paths, options, Path(spool))
            for plan in plans:
                self._check_keys(plan.provider)
            names = [plan.name for plan in plans]
            with (
                self._ledger() as connection,
                self._held(connection, lambda: self._queue(connection, plans, Path(spool))),
            ):
                recover(connection)
                since = time.time()
                if paths:
                    self._queue(connection, plans, Path(spool))
                started(plans)
                scope = Scope(frozenset(names), since) if paths else Scope(None, since)
                return await self._work(connection, scope, options, emit)

    async def resume(
        self,
        names: Sequence[str] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
    ) -> Result:
        """Put failed, partial and cancelled requests of these jobs, or of all, back into the queue, then work them."""
        with self._ledger() as connection:
            names = intake.known_names(connection, names)
            with self._held(connection, lambda: intake.put_back(connection, names or None)):
                recover(connection)
                for account in read_accounts(connection, names or None):
                    if account.unfinished or account.unsuccessful or account.counts["cancelled"]:
                        self._check_keys(self.config.find_provider(account.provider))
                intake.put_back(connection, names or None)
                scope = Scope(frozenset(names), time.time()) if names else Scope(None, time.time())
                return await self._work(connection, scope, options, emit)

    def images_left(self) -> int:
        """Count the images that pending and running requests are still to bring."""
        connection = open_for_reading(self.folder)
        if connection is None:
            return 0
        with contextlib.closing(connection):
            return sum(account.missing for account in read_accounts(connection))

    def cancel(self, name: str) -> int:
        """Take what is pending of a job out of the queue; how many requests. Raises BadInput."""
        with self._ledger() as connection:
            (name,) = intake.known_names(connection, [name])
            return intake.cancel(connection, name)

    def manifest(self, name: str) -> Path:
        """Write a job's manifest again from the ledger; its path. Raises BadInput."""
        with self._ledger() as connection:
            (name,) = intake.known_names(connection, [name])
            return write_manifest(connection, name, self.folder)

    def verify(self, name: str | None = None, *, repair: bool = False) -> tuple[int, list[Damage]]:
        """Read every image of a job, or of all, again: how many there are, and which are not as the ledger says.

        With `repair` those are moved to quarantine/ and what is missing is queued. Raises BadInput.
        """
        from pipeline.results import verification

        with self._ledger() as connection:
            if name is not None:
                (name,) = intake.known_names(connection, [name])
            damages = list(verification.find_damage(connection, self.folder, name))
            if repair and damages:
                verification.repair(connection, self.folder, damages)
            return verification.count_images(connection, name) + (len(damages) if repair else 0), damages

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(open_ledger(self.folder)) as connection:
            yield connection

    @contextlib.contextmanager
    def _held(self, connection: sqlite3.Connection, otherwise: Callable[[], object]) -> Iterator[None]:
        """Hold the folder for a working run. Where another does, do `otherwise` and raise FolderBusy that names it."""
        lock = FileLock(self.folder / LOCK_FILE)
        with ExitStack() as stack:
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except Timeout:
                otherwise()
                row = connection.execute("SELECT * FROM holder").fetchone()
                who = f"process {row['pid']} on {row['host']}" if row else "another process"
                what = f"{who} is working on {self.folder}: it takes up what is queued, or wait until it ends"
                raise FolderBusy(what) from None
            except OSError as reason:
                raise ConfigError(f"{self.folder} cannot be locked: {reason.strerror or reason}") from None
            with transaction(connection):
                connection.execute(
                    "INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?)",
                    (os.getpid(), socket.gethostname(), time.time()),
                )
            yield

    def _queue(self, connection: sqlite3.Connection, plans: Sequence[Plan], spool: Path) -> None:
        """Put plans and their input pictures where a run finds them; all are checked before the first is queued."""
        for plan in plans:
            intake.check_claim(connection, plan)
        for plan in plans:
            for file in dict.fromkeys(one.file for request in plan.requests for one in request.inputs):
                target = self.folder / plan.name / file
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(target, (spool / file).read_bytes())
            intake.submit(connection, plan)

    def _check_keys(self, provider: Provider) -> None:
        provider.key(self.environment)
        provider.header_values(self.environment)

    async def _work(self, connection: sqlite3.Connection, scope: Scope, options: JobOptions, emit: Listener) -> Result:
        """Run what is pending in scope, then write the manifests, whatever the end."""
        from pipeline.engine.events import Stopping
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
                emit,
                options.budget_usd,
            )
            try:

                def stop(number: signal.Signals) -> None:
                    emit(Stopping(number.name))
                    runner.halt()

                with shutdown.listening(stop):
                    await runner.run()
            except BaseExceptionGroup as group:
                raise _first(group) from None
            finally:
                worked = _worked(connection, scope)
                manifests = [write_manifest(connection, name, self.folder) for name in worked]
        accounts = read_accounts(connection, names)
        return Result(accounts, tuple(runner.stops), shutdown.signal, tuple(manifests))


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

"""One output folder at work: lock, submit, sandbox, run, manifest. The command line is a shell over this."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from pipeline import ledger
from pipeline.config.load import load
from pipeline.ledger import queries, submit
from pipeline.ledger.job_summary import JobSummary, read_job_summaries
from pipeline.ledger.lock import run_lock
from pipeline.ledger.queue import Scope
from pipeline.ledger.recovery import recover
from pipeline.planning.build import JobOptions, make_plans, staging_folder
from pipeline.reports.manifest import write_manifest
from pipeline.reports.status import read_status
from pipeline.reports.write import make_report_thumbnails, write_job_report
from pipeline.run import Run, check_keys, copy_ledger
from pipeline.storage import ImageStore, disk_error, make_folder, write_whole

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from pipeline.config.load import Config
    from pipeline.engine.events import Listener
    from pipeline.planning.job import Job
    from pipeline.planning.plan import Plan
    from pipeline.reports.verify import Damage
    from pipeline.result import Result

SUBMIT_LOCK_FILE = "submit.lock"

THUMBNAIL_SHARE = 0.02
"""What part of its time a run may take longer for thumbnails. A night at 50 pictures a minute needs half of that; a
server without a limit is not to wait for them.
"""

T = TypeVar("T")


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
        """The output folder: the ledger, and each job's inputs, manifest and report."""
        return self.config.output

    @property
    def images(self) -> ImageStore:
        """The result images of all jobs."""
        return ImageStore(self.config.images_folder)

    def submit(self, jobs: Sequence[Path | Job], options: JobOptions = JobOptions()) -> list[Plan]:
        """Check, expand and queue jobs; calls nobody. Raises BadInput, having changed nothing."""
        with staging_folder() as staging:
            plans = make_plans(self.config, jobs, options, staging)
            with ledger.writing(self.folder) as connection:
                self._queue(connection, plans, staging)
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
        with staging_folder() as staging:
            plans = make_plans(self.config, jobs, options, staging)
            for plan in plans:
                check_keys(plan.provider, self.environment)
            self._check_notify()
            with (
                ledger.writing(self.folder) as connection,
                run_lock(self.folder, self.images, connection, lambda: self._queue(connection, plans, staging)),
            ):
                copy_ledger(connection, self.folder, emit)
                recover(connection)
                since = time.time()
                names = self._queue(connection, plans, staging)
                started(plans)
                scope = Scope(frozenset(names), since) if jobs else Scope(None, since)
                result = await self._work(connection, scope, options, emit)
        return await self._make_report_thumbnails(result, began)

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
        with ledger.writing(self.folder, names[0] if names else None) as connection:
            names = submit.known_names(connection, names)
            with run_lock(self.folder, self.images, connection, lambda: submit.put_back(connection, names or None)):
                copy_ledger(connection, self.folder, emit)
                recover(connection)
                for summary in read_job_summaries(connection, names or None):
                    if summary.unfinished or summary.unsuccessful or summary.counts["cancelled"]:
                        check_keys(self.config.find_provider(summary.provider), self.environment)
                submit.put_back(connection, names or None)
                scope = Scope(frozenset(names), time.time()) if names else Scope(None, time.time())
                result = await self._work(connection, scope, options, emit)
        return await self._make_report_thumbnails(result, began)

    def summaries(self) -> list[JobSummary]:
        """Read how far each job is, the oldest first; also beside a run that is at work."""
        return read_status(self.folder, None)

    def cancel(self, name: str) -> int:
        """Take what is pending of a job out of the queue; how many requests. Raises BadInput."""
        with ledger.writing(self.folder, name) as connection:
            (name,) = submit.known_names(connection, [name])
            return submit.cancel(connection, name)

    def put_back(self, name: str) -> int:
        """Put what failed, came back partial or was cancelled of a job back into the queue, for a run to take up.

        Gives how many requests. Raises BadInput.
        """
        with ledger.writing(self.folder, name) as connection:
            return submit.put_back(connection, submit.known_names(connection, [name]))

    def manifest(self, name: str) -> Path:
        """Write a job's manifest again from the ledger; its path. Raises BadInput."""
        with ledger.writing(self.folder, name) as connection:
            (name,) = submit.known_names(connection, [name])
            return write_manifest(connection, name, self.folder)

    def report(self, name: str, sheet: Path | None = None) -> list[Path]:
        """Write a job's report, and its contact sheet where one is wanted; their paths. Raises BadInput."""
        return write_job_report(self.config, name, sheet)

    def verify(self, name: str | None = None, *, repair: bool = False) -> tuple[int, list[Damage]]:
        """Read every file of a job, or of all, again: how many images there are, and what is not as the ledger says.

        With `repair` those are moved to quarantine/ and what is missing is queued. Raises BadInput and DiskFull.
        """
        from pipeline.reports import verify

        with ledger.writing(self.folder, name) as connection:
            if name is not None:
                (name,) = submit.known_names(connection, [name])
            damages = list(verify.find_damage(connection, self.folder, self.images, name))
            if repair and damages:
                verify.repair(connection, self.folder, self.images, damages)
                for job in sorted({damage.job for damage in damages}):
                    write_manifest(connection, job, self.folder)
            images = [damage for damage in damages if damage.image_pk is not None]
            return queries.count_images(connection, name) + (len(images) if repair else 0), damages

    def _queue(self, connection: sqlite3.Connection, plans: Sequence[Plan], staging: Path) -> list[str]:
        """Put plans and their input pictures where a run finds them; all are checked before the first is queued.

        One process at a time; gives the jobs' names as the ledger spells them.
        """
        try:
            with FileLock(self.folder / SUBMIT_LOCK_FILE) if plans else contextlib.nullcontext():
                names = [submit.check_claim(connection, plan) for plan in plans]
                for name, plan in zip(names, plans, strict=True):
                    self._copy_inputs(name, plan, staging)
                    submit.submit(connection, plan)
        except OSError as reason:
            raise disk_error(reason, self.folder) from None
        return names

    def _copy_inputs(self, name: str, plan: Plan, staging: Path) -> None:
        for file in dict.fromkeys(one.file for request in plan.requests for one in request.inputs):
            target = self.folder / name / file
            if not target.exists() or target.stat().st_size != (staging / file).stat().st_size:
                make_folder(target.parent)
                write_whole(target, (staging / file).read_bytes())

    async def _work(self, connection: sqlite3.Connection, scope: Scope, options: JobOptions, emit: Listener) -> Result:
        return await Run(self.config, self.environment, connection, scope, options.budget_usd).work(emit)

    def _check_notify(self) -> None:
        if self.config.notify is not None:
            self.config.notify.webhook_url(self.environment)
            self.config.notify.header_values(self.environment)

    async def _make_report_thumbnails(self, result: Result, began: float) -> Result:
        """Make the reports' thumbnails in a moment of the run's time: others may work on the folder by now."""
        seconds = THUMBNAIL_SHARE * (time.monotonic() - began)
        unwritten = await make_report_thumbnails(self.folder, self.images, result.reports, seconds)
        return replace(result, unwritten=(*result.unwritten, *unwritten))


def wait_for(work: Coroutine[Any, Any, T]) -> T:
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

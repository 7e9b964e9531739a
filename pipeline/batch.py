"""The public Python API: submit, run, resume and inspect the jobs of one output folder. The CLI is a layer over it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline import ledger
from pipeline.config.load import load
from pipeline.files import disk_error, make_folder, write_whole
from pipeline.ledger import queries, submit
from pipeline.ledger.claim import check_claim, superseded_warning
from pipeline.ledger.found_images import unknown_names
from pipeline.ledger.job_summary import JobSummary, read_job_summaries
from pipeline.ledger.lock import exclusive, find_owner, run_lock
from pipeline.ledger.queue import Scope
from pipeline.ledger.recovery import recover
from pipeline.planning.build import JobOptions, make_plans, staging_folder
from pipeline.reports.manifest import write_manifest
from pipeline.reports.status import read_status
from pipeline.reports.write import make_report_thumbnails, write_job_report
from pipeline.run import Run, back_up_ledger, check_credentials
from pipeline.storage import SUBMIT_LOCK_FILE, ImageStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pipeline.config.load import Config
    from pipeline.engine.events import Listener
    from pipeline.ledger.claim import Claim
    from pipeline.ledger.held_folder import HeldFolder
    from pipeline.planning.job import Job
    from pipeline.planning.plan import Plan
    from pipeline.reports.verify import Damage
    from pipeline.result import Result

THUMBNAIL_SHARE = 0.02
"""The share of its time that a run may spend on thumbnails at its end. At 50 images a minute half of that is enough; a
run without a rate limit must not take much longer for them.
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
        """Read the config as the command line does; `provider` is for jobs that name none. Raises ConfigError."""
        loaded = load(config, output=None if output is None else Path(output))
        if provider is not None:
            loaded = replace(loaded, provider=loaded.find_provider(provider).name)
        return cls(loaded)

    @property
    def folder(self) -> Path:
        """The output folder: the ledger, and each job's inputs, manifest and report."""
        return self.config.output

    @property
    def images(self) -> ImageStore:
        """The result images of all jobs."""
        return ImageStore(self.config.images_folder)

    def submit(self, jobs: Sequence[Path | Job], options: JobOptions = JobOptions()) -> list[Plan]:
        """Check, expand and queue jobs, without calling a provider. Raises BadInput before anything is changed."""
        with staging_folder() as staging:
            plans = make_plans(self.config, jobs, options, staging)
            with self._writing() as connection:
                return self._queue(connection, plans, staging, options)

    def run_sync(
        self,
        jobs: Sequence[Path | Job] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
    ) -> Result:
        """Do what `run` does, in an event loop of its own."""
        return run_in_loop(self.run(jobs, options, emit=emit))

    async def run(
        self,
        jobs: Sequence[Path | Job] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
        started: Callable[[list[Plan]], None] = lambda _plans: None,
    ) -> Result:
        """Submit these jobs and process them to the end; without jobs, process the whole queue.

        Raises BadInput before anything is changed or a provider is called, and FolderBusy after queueing the jobs.
        """
        started_at = time.monotonic()
        with staging_folder() as staging:
            plans = make_plans(self.config, jobs, options, staging)
            for plan in plans:
                check_credentials(plan.provider, self.environment)
            self._check_notification_settings()

            def queue() -> list[Plan]:
                queued = self._queue(connection, plans, staging, options)
                started(queued)
                return queued

            with (
                self._writing() as connection,
                run_lock(self.folder, self.images, connection, queue) as held,
            ):
                back_up_ledger(connection, self.folder, emit)
                recover(connection)
                since = time.time()
                names = frozenset(plan.name for plan in queue())
                self._adopt_images(connection, emit)
                scope = Scope(names if jobs else None, since)
                result = await self._run(connection, held, scope, options, emit)
        return await self._make_report_thumbnails(result, started_at)

    async def resume(
        self,
        names: Sequence[str] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
    ) -> Result:
        """Put failed, partial and cancelled requests of these jobs, or of all, into the queue, then process them."""
        started_at = time.monotonic()
        self._check_notification_settings()
        with self._writing(names[0] if names else None) as connection:
            names = submit.known_names(connection, names)
            with run_lock(
                self.folder, self.images, connection, lambda: submit.put_back(connection, names or None)
            ) as held:
                back_up_ledger(connection, self.folder, emit)
                recover(connection)
                for summary in read_job_summaries(connection, names or None):
                    if summary.unfinished or summary.unsuccessful or summary.counts["cancelled"]:
                        check_credentials(self.config.find_provider(summary.provider), self.environment)
                submit.put_back(connection, names or None)
                self._adopt_images(connection, emit)
                scope = Scope(frozenset(names), time.time()) if names else Scope(None, time.time())
                result = await self._run(connection, held, scope, options, emit)
        return await self._make_report_thumbnails(result, started_at)

    def summaries(self) -> list[JobSummary]:
        """Return a summary of each job, the oldest first; this works while a run is active."""
        return read_status(self.folder, None)

    def cancel(self, name: str) -> int:
        """Take the pending requests of a job out of the queue; return their number. Raises BadInput."""
        with self._writing(name) as connection:
            (name,) = submit.known_names(connection, [name])
            return submit.cancel(connection, name)

    def put_back(self, name: str) -> int:
        """Put the failed, partial and cancelled requests of a job back into the queue, without running them.

        Returns their number. Raises BadInput.
        """
        with self._writing(name) as connection:
            return submit.put_back(connection, submit.known_names(connection, [name]))

    def manifest(self, name: str) -> Path:
        """Write a job's manifest again from the ledger; return its path. Raises BadInput."""
        with self._writing(name) as connection:
            (name,) = submit.known_names(connection, [name])
            return write_manifest(connection, name, self.folder)

    def report(self, name: str, sheet: Path | None = None) -> list[Path]:
        """Write a job's report, and a contact sheet if `sheet` is given; return their paths. Raises BadInput."""
        return write_job_report(self.config, name, sheet)

    def verify(self, name: str | None = None, *, repair: bool = False) -> tuple[int, list[Damage]]:
        """Compare every file of a job, or of all, with the ledger; return (number of images, damaged files).

        With `repair`, damaged files are moved to quarantine/ and missing images are queued. Raises BadInput and
        DiskFull.
        """
        from pipeline.reports import verify

        with self._writing(name) if repair else ledger.reading(self.folder, name) as connection:
            if name is not None:
                (name,) = submit.known_names(connection, [name])
            limit = self.config.download.max_pixels
            damages = list(verify.find_damage(connection, self.folder, self.images, name, limit))
            if repair and damages:
                verify.repair(connection, self.folder, self.images, damages)
                for job in sorted({damage.job for damage in damages}):
                    write_manifest(connection, job, self.folder)
            repaired = sum(damage.image_pk is not None for damage in damages) if repair else 0  # now in state `lost`
            return queries.count_images(connection, name) + repaired, damages

    def unknown_images(self, name: str | None = None) -> list[str]:
        """Return the images on disk, of a job or of all, that no row of the ledger has. They are never touched.

        Beside a working run there are none: it stores an image before it records it.
        """
        with ledger.reading(self.folder, name) as connection:
            if find_owner(self.folder, connection) is not None:
                return []
            found = unknown_names(connection, self.images.names())
        return [one for one in found if name is None or one.partition("/")[0].lower() == name.lower()]

    def _adopt_images(self, connection: sqlite3.Connection, emit: Listener) -> None:
        """Record images on disk that the ledger does not know, as far as manifests prove them, and report them."""
        from pipeline.engine.events import ImagesFound
        from pipeline.reports.adopt import adopt_images

        adopted, unknown = adopt_images(connection, self.folder, self.images)
        if adopted or unknown:
            emit(ImagesFound(adopted, len(unknown)))

    def _writing(self, job: str | None = None) -> AbstractContextManager[sqlite3.Connection]:
        return ledger.writing(self.folder, job, shared=self.config.shared)

    def _queue(
        self, connection: sqlite3.Connection, plans: Sequence[Plan], staging: Path, options: JobOptions
    ) -> list[Plan]:
        """Queue plans and copy their input images to the jobs' folders; all are checked before the first is queued.

        Only one process does this at a time. Returns the plans with the jobs' names as the ledger spells them, and with
        a warning of the requests that leave their job.
        """
        try:
            with exclusive(self.folder / SUBMIT_LOCK_FILE) if plans else contextlib.nullcontext():
                claims = [check_claim(connection, plan, allow_shrink=options.allow_shrink) for plan in plans]
                queued = [_claimed(plan, claim) for plan, claim in zip(plans, claims, strict=True)]
                for plan in queued:
                    self._copy_inputs(plan, staging)
                    submit.submit(connection, plan)
        except OSError as reason:
            raise disk_error(reason, self.folder) from None
        return queued

    def _copy_inputs(self, plan: Plan, staging: Path) -> None:
        for file in dict.fromkeys(one.file for request in plan.requests for one in request.inputs):
            target = self.folder / plan.name / file
            if not target.exists() or target.stat().st_size != (staging / file).stat().st_size:
                make_folder(target.parent)
                write_whole(target, (staging / file).read_bytes())

    async def _run(
        self, connection: sqlite3.Connection, held: HeldFolder, scope: Scope, options: JobOptions, emit: Listener
    ) -> Result:
        return await Run(self.config, self.environment, connection, held, scope, options.budget_usd).execute(emit)

    def _check_notification_settings(self) -> None:
        if self.config.notify is not None:
            self.config.notify.webhook_url(self.environment)
            self.config.notify.header_values(self.environment)

    async def _make_report_thumbnails(self, result: Result, started_at: float) -> Result:
        """Make the thumbnails of the reports within a share of the run's time, without holding the folder's lock."""
        seconds = THUMBNAIL_SHARE * (time.monotonic() - started_at)
        unwritten = await make_report_thumbnails(self.folder, self.images, result.reports, seconds)
        return replace(result, unwritten=(*result.unwritten, *unwritten))


def _claimed(plan: Plan, claim: Claim) -> Plan:
    warning = superseded_warning(claim)
    return replace(plan, name=claim.name, warnings=(*plan.warnings, warning) if warning else plan.warnings)


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop: uvloop's if it is installed.

    Raises KeyboardInterrupt if a second signal cancelled it.
    """
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        from uvloop import new_event_loop as factory
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None

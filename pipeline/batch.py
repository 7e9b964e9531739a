"""The public Python API: submit, run, resume and inspect the jobs of one output folder. The CLI is a layer over it."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.config.load import load
from pipeline.controls import FolderControls
from pipeline.exports.kinds import ExportOptions
from pipeline.job_queue import JobQueue
from pipeline.ledger import job_changes, submit
from pipeline.ledger.batches import living_batches, request_cancel
from pipeline.ledger.database import transaction
from pipeline.ledger.job_summary import JobSummary, read_job_summaries
from pipeline.ledger.lock import find_owner, run_lock
from pipeline.ledger.put_back import Selection, find_ended, put_back, select
from pipeline.ledger.queue import Scope
from pipeline.ledger.unrecorded_images import unknown_names
from pipeline.planning.build import JobOptions, make_plans, staging_folder
from pipeline.preparation import prepare_ledger, record_found_images
from pipeline.reports.html_report import FILE_NAME
from pipeline.reports.manifest import write_manifest
from pipeline.reports.status import read_status
from pipeline.reports.verify import verify_images
from pipeline.reports.write import write_job_report
from pipeline.result import Result
from pipeline.run import Run, check_credentials, check_settings, make_missing_thumbnails, run_in_loop
from pipeline.stores import Addresses, Stores

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.engine.events import Listener
    from pipeline.exports.export import Export
    from pipeline.job_queue import Submission
    from pipeline.ledger.folder_identity import HeldFolder
    from pipeline.ledger.put_back import JobPutBack
    from pipeline.planning.job import Job
    from pipeline.planning.plan import Plan
    from pipeline.reports.verify import CountImages, Damages


@dataclass
class Batch:
    """An output folder, its config and its environment."""

    config: Config
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    @classmethod
    def open(
        cls, *, config: Path | str | None = None, output: Path | str | None = None, provider: str | None = None
    ) -> Batch:
        """Read the config as the command line does; `provider` is for jobs that name none. Raises ConfigError."""
        loaded = load(config, output=output)
        if provider is not None:
            loaded = replace(loaded, provider=loaded.find_provider(provider).name)
        return cls(loaded)

    @property
    def folder(self) -> Path:
        """The output folder: the ledger, and each job's inputs, manifest and report."""
        return self.config.output

    @property
    def controls(self) -> FolderControls:
        """Pauses, lower limits and priorities, which a run at work follows."""
        return FolderControls(self.config)

    @functools.cached_property
    def stores(self) -> Stores:
        """The stores of the result images of all jobs."""
        return Stores.of(self.config)

    def submit(self, jobs: Sequence[Path | str | Job], options: JobOptions = JobOptions()) -> list[Plan]:
        """Check, expand and queue jobs, without calling a provider. Raises BadInput before anything is changed.

        With `options.limit` the first requests of each job are queued, and what was queued before stays.
        """
        return [submission.plan for submission in self.submissions(jobs, options)]

    def submissions(self, jobs: Sequence[Path | str | Job], options: JobOptions = JobOptions()) -> list[Submission]:
        """Do what `submit` does, and return also how each plan differed from the ledger."""
        with staging_folder() as staging:
            plans = make_plans(self.config, jobs, options, staging)
            with self._writing() as connection:
                return JobQueue(self.config, connection).add_to_run(plans, staging, options)

    def run_sync(
        self,
        jobs: Sequence[Path | str | Job] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
    ) -> Result:
        """Do what `run` does, in an event loop of its own. Raises RuntimeError inside another one, as in a notebook."""
        return run_in_loop(self.run(jobs, options, emit=emit))

    async def run(
        self,
        jobs: Sequence[Path | str | Job] = (),
        options: JobOptions = JobOptions(),
        *,
        emit: Listener = lambda _event: None,
        started: Callable[[list[Plan]], None] = lambda _plans: None,
    ) -> Result:
        """Submit these jobs and process them to the end; without jobs, process the whole queue.

        With `options.limit` all requests of the jobs are queued, and the first of each job are processed. Raises
        BadInput before anything is changed or a provider is called, and FolderBusy after queueing the jobs.
        """
        with staging_folder() as staging:
            plans = make_plans(self.config, jobs, replace(options, limit=None), staging)
            for provider in {member.name: member for plan in plans for member in plan.serving}.values():
                check_credentials(provider, self.environment)
            check_settings(self.config, self.environment, options.on)
            if not jobs and ledger.is_absent(self.folder):
                return Result.of_nothing(self.config)
            with self._writing() as connection, contextlib.ExitStack() as stack:
                queue = JobQueue(self.config, connection)
                change = queue.mode_change(JobOptions() if jobs else options)
                beside = functools.partial(queue.add_beside, plans, staging, options, started, change)
                held = stack.enter_context(run_lock(self.folder, self.stores.new, connection, beside))
                await prepare_ledger(connection, self.folder, emit)
                since = time.time()
                queued = [submission.plan for submission in queue.add(plans, staging, options)]
                change.apply(connection)
                started(queued)
                record_found_images(connection, self.config, emit)
                names = frozenset(plan.name for plan in queued) if jobs else None
                scope = Scope(names, since, options.limit, time.time())
                result = await self._run(connection, held, scope, options, emit)
        return await make_missing_thumbnails(result, emit)

    async def resume(
        self,
        names: Sequence[str] = (),
        options: JobOptions = JobOptions(),
        *,
        kinds: Collection[str] = (),
        statuses: Collection[str] = (),
        ids: Collection[str] = (),
        cancelled: bool = False,
        emit: Listener = lambda _event: None,
        started: Callable[[list[JobPutBack]], None] = lambda _found: None,
    ) -> Result:
        """Put failed and partial requests of these jobs, or of all, into the queue, then process them.

        `kinds` are classes of errors; with `statuses` and `ids`, what matches all of them is put back: BadInput if
        nothing does. What was cancelled or refused by the content policy is put back for jobs that are named, or with
        `cancelled` and these. `started` gets what is put back before it is processed.
        """
        check_settings(self.config, self.environment, options.on)
        if not names and ledger.is_absent(self.folder):
            with ledger.reading(self.folder) as connection:
                select(connection, names, kinds, statuses, ids)
            return Result.of_nothing(self.config)
        with self._writing(names[0] if names else None) as connection:
            selection = select(connection, names, kinds, statuses, ids, cancelled=cancelled)
            queue = JobQueue(self.config, connection)
            change = queue.mode_change(options, selection)
            beside = functools.partial(queue.put_back_beside, selection, started, change)
            with run_lock(self.folder, self.stores.new, connection, beside) as held:
                await prepare_ledger(connection, self.folder, emit)
                self._check_credentials(connection, selection)
                change.apply(connection)
                started(put_back(connection, selection, self.config.discounts))
                record_found_images(connection, self.config, emit)
                scope = Scope(frozenset(selection.names) if names else None, time.time())
                result = await self._run(connection, held, scope, options, emit)
        return await make_missing_thumbnails(result, emit)

    def summaries(self) -> list[JobSummary]:
        """Return a summary of each job, the oldest first; this works while a run is active."""
        return read_status(self.folder, None, self.config.discounts)

    def cancel(self, name: str) -> int:
        """Take the pending requests of a job out of the queue; return their number. Raises BadInput.

        Its living batches are cancelled at the service by the run at work, or else by `cancel_batches`.
        """
        with self._writing(name) as connection:
            (name,) = submit.known_names(connection, [name])
            with transaction(connection):
                request_cancel(connection, name, time.time())
            return submit.cancel(connection, name)

    def count_batches(self, name: str) -> int:
        """Return how many batches of a job are living: sent, and not collected. Raises BadInput."""
        with ledger.reading(self.folder, name) as connection:
            return len(living_batches(connection, _only(name)))

    async def cancel_batches(self, name: str, *, emit: Listener = lambda _event: None) -> Result:
        """Cancel the living batches of a job that `cancel` was called for, and collect what they bring.

        Raises BadInput, and LeftToRunAtWork beside a run, which does it.
        """
        with self._writing(name) as connection:
            (name,) = submit.known_names(connection, [name])
            queue = JobQueue(self.config, connection)
            with run_lock(self.folder, self.stores.new, connection, lambda: queue.cancel_beside(name)) as held:
                await prepare_ledger(connection, self.folder, emit)
                return await self._run(connection, held, _only(name), JobOptions(), emit)

    def put_back(self, name: str) -> list[JobPutBack]:
        """Put requests of a job that may succeed now back, for the run at work if there is one. Raises BadInput.

        What was cancelled, and what the content policy refused, is left alone.
        """
        with self._writing(name) as connection:
            selection = Selection(tuple(submit.known_names(connection, [name])), only_retryable=True)
            is_beside = find_owner(self.folder, connection) is not None
            return put_back(connection, selection, self.config.discounts, for_run_at_work=is_beside)

    def rename(self, old: str, new: str) -> None:
        """Change a job's name; its rows and its folder go along. Raises BadInput, and FolderBusy beside a run."""
        with self._writing(old) as connection:
            (old,) = submit.known_names(connection, [old])
            with JobQueue(self.config, connection).held(f"job `{old}` cannot be renamed"):
                job_changes.rename_job(connection, old, new, self.stores)
                write_manifest(connection, new, self.folder, Addresses.of(self.config))
        if (self.folder / new / FILE_NAME).exists():
            self.report(new)

    def forget(self, name: str, *, files: bool = False) -> None:
        """Delete a job from the ledger, and its folder with `files`. Raises BadInput, and FolderBusy beside a run.

        Its provider pauses until the calls that the ledger forgets are out of the window of the rate limit.
        """
        limits = {provider.name: provider.rate_limit for provider in self.config.providers.values()}
        windows = {name: limit.window for name, limit in limits.items() if limit is not None}
        with self._writing(name) as connection:
            (name,) = submit.known_names(connection, [name])
            with JobQueue(self.config, connection).held(f"job `{name}` cannot be forgotten"):
                job_changes.forget_job(connection, name, self.stores, windows, files=files)

    def manifest(self, name: str) -> Path:
        """Write a job's manifest again from the ledger; return its path. Raises BadInput."""
        with self._writing(name) as connection:
            (name,) = submit.known_names(connection, [name])
            return write_manifest(connection, name, self.folder, Addresses.of(self.config))

    def report(self, name: str, sheet: Path | str | None = None) -> list[Path]:
        """Write a job's report, and a contact sheet if `sheet` is given; return their paths. Raises BadInput."""
        return write_job_report(self.config, name, sheet)

    def verify(
        self, name: str | None = None, *, repair: bool = False, deep: bool = False, count: CountImages | None = None
    ) -> tuple[int, Damages]:
        """Compare every file of a job, or of all, with the ledger; return (number of images, damaged files).

        Of images in an object store it compares the size and the checksum there, and every byte with `deep`.
        With `repair`, damaged files are moved to quarantine/ and missing images are queued. Raises BadInput, DiskFull.
        """
        with self._writing(name) if repair else ledger.reading(self.folder, name) as connection:
            return verify_images(connection, self.config, self.stores, name, count, mend=repair, deep=deep)

    def export(
        self,
        name: str,
        kind: str,
        dest: Path | str | None = None,
        options: ExportOptions = ExportOptions(),
        *,
        count: CountImages | None = None,
    ) -> Export:
        """Export a job's stored images: as imagefolder, webdataset, parquet, csv, croissant, batch or sidecar.

        Without a destination, `export-<kind>` in the job's folder. Raises BadInput, and BrokenImage that names damage.
        """
        from pipeline.exports.export import export_job

        return export_job(self.config, name, kind, dest, options, count)

    def unknown_images(self, name: str | None = None) -> list[str]:
        """Return the images on disk, of a job or of all, that no row has; none beside a working run."""
        with ledger.reading(self.folder, name) as connection:
            if find_owner(self.folder, connection) is not None:
                return []
            found = unknown_names(connection, self.stores.names())
        return [image for image in found if name is None or image.partition("/")[0].lower() == name.lower()]

    def _check_credentials(self, connection: sqlite3.Connection, selection: Selection) -> None:
        """Check the credentials of every provider that has queued requests, or gets some back. Raises ConfigError."""
        waiting = [ended.provider for ended in find_ended(connection, selection) if ended.requests]
        summaries = read_job_summaries(connection, selection.names or None)
        waiting += [summary.provider for summary in summaries if summary.unfinished]
        for name in dict.fromkeys(waiting):
            for provider in self.config.members(name):
                check_credentials(provider, self.environment)

    @contextlib.contextmanager
    def _writing(self, job: str | None = None) -> Iterator[sqlite3.Connection]:
        """Open the ledger to change it, once the changes of folders that a kill has interrupted are finished."""
        with ledger.writing(self.folder, job, shared=self.config.shared) as connection:
            job_changes.finish_folder_changes(connection, self.stores)
            yield connection

    async def _run(
        self, connection: sqlite3.Connection, held: HeldFolder, scope: Scope, options: JobOptions, emit: Listener
    ) -> Result:
        money, wait = options.budget_usd, options.wait
        run = Run(self.config, self.environment, connection, held, scope, money, wait, on=options.on)
        return await run.execute(emit)


def _only(name: str) -> Scope:
    return Scope(frozenset([name]), math.inf)

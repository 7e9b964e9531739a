"""Adds to the queue of an output folder: plans and what is put back, before a run or beside the run at work."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.errors import FolderBusy, LeftToRunAtWork
from pipeline.files import disk_error, make_folder, write_whole
from pipeline.ledger import submit
from pipeline.ledger.equal_requests import equal_requests_warning
from pipeline.ledger.job_modes import ModeChange, unfinished_jobs
from pipeline.ledger.job_name_claim import check_claim, compare
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.lock import exclusive, find_owner, run_lock
from pipeline.ledger.other_keys import with_known_keys
from pipeline.ledger.put_back import find_ended, put_back
from pipeline.planning.build import load_models
from pipeline.reports.adopt import adopt_images_of
from pipeline.reports.claim_words import claim_words
from pipeline.reports.facts import counted
from pipeline.storage import SUBMIT_LOCK_FILE
from pipeline.stores import Stores

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.ledger.job_name_claim import Claim
    from pipeline.ledger.put_back import JobPutBack, Selection
    from pipeline.planning.build import JobOptions
    from pipeline.planning.plan import Plan


_RECORD_SECONDS = 0.5  # that are waited for the record of a run that holds the lock


@dataclass(frozen=True, slots=True)
class Submission:
    """A plan that is queued, and how it differed from what the ledger had of its job."""

    plan: Plan
    claim: Claim


@dataclass(frozen=True, slots=True)
class JobQueue:
    """The queue of an output folder, over an open ledger."""

    config: Config
    connection: sqlite3.Connection

    def add(self, plans: Sequence[Plan], staging: Path, options: JobOptions) -> list[Submission]:
        """Queue plans and copy their input images to the jobs' folders; all are checked before the first is queued.

        Only one process does this at a time. Returns the plans with the jobs' names as the ledger spells them, and with
        warnings and notes of the requests that leave their job or are changed, and of another job that has the same.
        """
        try:
            with exclusive(self.config.output / SUBMIT_LOCK_FILE) if plans else contextlib.nullcontext():
                plans = [with_known_keys(self.connection, plan) for plan in plans]
                claims = [check_claim(self.connection, plan, allow_shrink=options.allow_shrink) for plan in plans]
                queued = [
                    Submission(_claimed(self.connection, plan, claim), claim)
                    for plan, claim in zip(plans, claims, strict=True)
                ]
                for submission in queued:
                    self._copy_inputs(submission.plan, staging)
                    submit.submit(self.connection, submission.plan)
        except OSError as reason:
            raise disk_error(reason, self.config.output) from None
        return queued

    def add_to_run(self, plans: Sequence[Plan], staging: Path, options: JobOptions) -> list[Submission]:
        """Queue plans for the run at work, if there is one: it has looked for images on disk when it began.

        Those that manifests prove are recorded here, so that it does not buy them again.
        """
        queued = self.add(plans, staging, options)
        if find_owner(self.config.output, self.connection) is not None:
            for submission in queued:
                adopt_images_of(self.connection, self.config.output, Stores.of(self.config).new, submission.plan.name)
        return queued

    def mode_change(self, options: JobOptions, selection: Selection | None = None) -> ModeChange:
        """Return the change of mode that options ask for: of all unfinished jobs, or of those that are put back.

        Without such options it changes no job. Raises JobError if it cannot be made.
        """
        asked = options.mode_options(time.time())
        if asked is None:
            return ModeChange()
        names = selection.names if selection else ()
        ended = find_ended(self.connection, selection) if selection else []
        if not names:
            names = (
                *unfinished_jobs(self.connection),
                *(job_put_back.job for job_put_back in ended if job_put_back.requests),
            )
        change = ModeChange(tuple(dict.fromkeys(names)), asked)
        change.check(self.connection, self.config.services, load_models(self.config), is_put_back=bool(selection))
        return change

    def add_beside(
        self,
        plans: Sequence[Plan],
        staging: Path,
        options: JobOptions,
        started: Callable[[list[Plan]], None],
        change: ModeChange,
    ) -> None:
        """Queue plans, or change the mode of jobs, for the run that holds the folder.

        Raises LeftToRunAtWork if there are any, and FolderBusy. The other run knows no limit of ours: with one, only
        the first requests are queued, and none if the job has others in the queue.
        """
        if not plans:
            change.apply(self.connection)
            self._leave_changed(change)
            return
        who = self.run_at_work()
        if options.limit is not None:
            plans = [replace(plan, requests=plan.requests[: options.limit], is_part=True) for plan in plans]
            plans = [with_known_keys(self.connection, plan) for plan in plans]
            for plan in plans:
                if others := compare(self.connection, plan).part_of:
                    raise FolderBusy(
                        f"nothing was queued: {others:,} other requests of `{plan.name}` are queued, and the run at"
                        f" work ({who}) would process them too; run this again when it has ended"
                    )
        queued = self.add_to_run(plans, staging, options)
        queued_plans = [submission.plan for submission in queued]
        started(queued_plans)
        left = LeftToRunAtWork("\n".join(queued_message(self.connection, plan.name, who) for plan in queued_plans))
        summaries = read_job_summaries(self.connection, [plan.name for plan in queued_plans])
        if not any(
            summary.unfinished for summary in summaries
        ):  # the other run has just made it, or an earlier one had
            left.exit_code = int(any(summary.unsuccessful for summary in summaries))
        raise left

    def put_back_beside(
        self, selection: Selection, started: Callable[[list[JobPutBack]], None], change: ModeChange
    ) -> None:
        """Put requests back, in the mode that is asked for, for the run that holds the folder.

        Raises LeftToRunAtWork if there are any, or if the mode of a job was changed.
        """
        change.apply(self.connection)
        found = put_back(self.connection, selection, self.config.discounts, for_run_at_work=True)
        started(found)
        jobs = [job_put_back.job for job_put_back in found if job_put_back.requests]
        if jobs:
            who = self.run_at_work()
            raise LeftToRunAtWork("\n".join(queued_message(self.connection, name, who) for name in jobs))
        self._leave_changed(change)

    def _leave_changed(self, change: ModeChange) -> None:
        """Raise LeftToRunAtWork if the mode of jobs was changed, since nothing else was given."""
        if change.names:
            names = ", ".join(f"`{name}`" for name in change.names)
            raise LeftToRunAtWork(f"changed: the mode of {names}, also for the run at work ({self.run_at_work()})")

    def cancel_beside(self, name: str) -> None:
        """Leave the batches of a job to the run that holds the folder. Raises LeftToRunAtWork."""
        raise LeftToRunAtWork(
            f"the run at work ({self.run_at_work()}) cancels the batches of `{name}` and collects them"
        )

    @contextlib.contextmanager
    def held(self, otherwise: str) -> Iterator[None]:
        """Hold the folder's lock, and let nobody submit. Raises FolderBusy beside a run."""

        def refuse() -> None:
            who = self.run_at_work()
            raise FolderBusy(
                f"{otherwise} while {who} is working on {self.config.output}; wait until it ends, or stop it"
            )

        with (
            run_lock(self.config.output, Stores.of(self.config).new, self.connection, refuse),
            exclusive(self.config.output / SUBMIT_LOCK_FILE),
        ):
            yield

    def run_at_work(self) -> str:
        """Return who holds the folder; a run takes the lock a moment before it records itself."""
        until = time.monotonic() + _RECORD_SECONDS
        while (owner := find_owner(self.config.output, self.connection)) is None and time.monotonic() < until:
            time.sleep(0.02)
        return "another process" if owner is None else owner.who

    def _copy_inputs(self, plan: Plan, staging: Path) -> None:
        for file in dict.fromkeys(image.file for request in plan.requests for image in request.inputs):
            target = self.config.output / plan.name / file
            if not target.exists() or target.stat().st_size != (staging / file).stat().st_size:
                make_folder(target.parent)
                write_whole(target, (staging / file).read_bytes())


def _claimed(connection: sqlite3.Connection, plan: Plan, claim: Claim) -> Plan:
    costs = {request.key: request.estimate_usd if plan.mode == "realtime" else None for request in claim.remade}
    warnings, notes = claim_words(claim, costs)
    equal = filter(None, [equal_requests_warning(connection, plan)])
    return replace(plan, name=claim.name, warnings=(*plan.warnings, *warnings, *equal), notes=notes)


def queued_message(connection: sqlite3.Connection, name: str, who: str) -> str:
    """Return how many requests of a job are queued for the run at work."""
    (summary,) = read_job_summaries(connection, [name])
    if not summary.unfinished:
        return f"nothing to queue: `{summary.name}` has no request that is still to be made"
    them = "it" if summary.unfinished == 1 else "them"
    return f"queued: {summary.name}, {counted(summary.unfinished, 'request')}; the run at work ({who}) takes {them} up"

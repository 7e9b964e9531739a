"""Make the chosen images again: the ledger is asked what they cost, then their requests are queued and processed."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.errors import BadInput, LeftToRunAtWork
from pipeline.job_queue import JobQueue, queued_message
from pipeline.ledger.job_changes import finish_folder_changes
from pipeline.ledger.job_modes import ModeChange
from pipeline.ledger.job_summary import read_job_summaries, received_images
from pipeline.ledger.lock import run_lock
from pipeline.ledger.queue import Scope
from pipeline.ledger.redo import RedoCost, ask_again, find_redo_cost, find_requests, read_made_images
from pipeline.planning.build import JobOptions, staging_folder
from pipeline.preparation import prepare_ledger, record_found_images
from pipeline.redo.changed_job import plan_changed
from pipeline.redo.choice import choose
from pipeline.reports.facts import counted, dollars
from pipeline.reports.write import ThumbnailWork
from pipeline.run import Run, check_credentials, make_missing_thumbnails

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.batch import Batch
    from pipeline.engine.events import Listener
    from pipeline.ledger.folder_identity import HeldFolder
    from pipeline.ledger.redo import MadeImage
    from pipeline.planning.plan import Plan
    from pipeline.redo.changed_job import Change
    from pipeline.redo.choice import Choice
    from pipeline.result import Result


@dataclass(frozen=True, slots=True)
class Redo:
    """Images of `job` that are made again, in `target`: the job itself, or that of the changed requests."""

    job: str
    target: str
    rehearsal: bool
    images: tuple[MadeImage, ...]
    cost: RedoCost
    plan: Plan | None  # of the changed requests
    staging: Path

    @property
    def sentence(self) -> str:
        """How many images are made again, and what that costs."""
        cost = self.cost
        money = "cost unknown" if cost.cost_usd is None else f"about {dollars(cost.cost_usd)}"
        parts = [f"make {counted(cost.images, 'image')} of {counted(cost.requests, 'request')} of `{self.job}` again"]
        parts += [f"in a job of its own, `{self.target}`"] if self.plan is not None else []
        parts += [money, *(["a rehearsal: nothing is billed"] if self.rehearsal else [])]
        parts += [f"{cost.missing:,} of them are missing already"] if cost.missing else []
        return ", ".join(parts)


@contextlib.contextmanager
def prepared(batch: Batch, job: str, choice: Choice, change: Change | None = None) -> Iterator[Redo]:
    """Yield what a choice of images is, and what it costs, before anything is changed. Raises BadInput."""
    config = batch.config
    with staging_folder() as staging:
        with ledger.reading(config.output, job) as connection:
            if choice.flags:  # they need the fingerprints
                ThumbnailWork(config).make(connection, job)
            images = choose(connection, job, choice)
            (summary,) = read_job_summaries(connection, [job])
            plan = None
            if change is not None:
                plan = plan_changed(connection, config, summary, images, change, staging)
            cost = _cost(connection, job, images, plan)
            if summary.goes_by_batch if plan is None else plan.mode != "realtime":
                cost = cost.less(config.discounts.get(summary.provider, 0.0))
        for member in config.members(summary.provider):
            check_credentials(member, batch.environment)
        yield Redo(job, plan.name if plan else job, summary.rehearsal, tuple(images), cost, plan, staging)


def _cost(connection: sqlite3.Connection, job: str, images: list[MadeImage], plan: Plan | None) -> RedoCost:
    if plan is None:
        return find_redo_cost(connection, job, [image.image_pk for image in images])
    have = received_images(connection, plan.name)
    missing = {request.key: max(0, request.n - have.get(request.key, 0)) for request in plan.requests}
    costs = [
        None if request.estimate_usd is None else request.estimate_usd * missing[request.key] / request.n
        for request in plan.requests
    ]
    known = [usd for usd in costs if usd is not None]
    total = sum(known) if len(known) == len(costs) else None
    return RedoCost(len(plan.requests), sum(missing.values()), 0, total)


async def process(batch: Batch, redo: Redo, options: JobOptions, emit: Listener) -> Result:
    """Queue the requests of these images and process them; the exit code is that of these requests.

    Raises LeftToRunAtWork beside a run, which takes them up, and BadInput if the images are not what they were.
    """
    config = batch.config
    with ledger.writing(config.output, redo.job, shared=config.shared) as connection:
        finish_folder_changes(connection, batch.stores)
        beside = functools.partial(_leave, connection, batch, redo)
        with run_lock(config.output, batch.stores.new, connection, beside) as held:
            await prepare_ledger(connection, config.output, emit)
            record_found_images(connection, config, emit)
            _check_images(connection, redo)
            result = await _run(connection, held, batch, redo, options, emit)
    return await make_missing_thumbnails(result, emit)


def _check_images(connection: sqlite3.Connection, redo: Redo) -> None:
    """Check that the images are still those that were chosen: a person may take long to answer. Raises BadInput."""
    made = {(image.image_pk, image.sha256) for image in read_made_images(connection, redo.job) if not image.superseded}
    if not made.issuperset((image.image_pk, image.sha256) for image in redo.images):
        raise BadInput(f"images of `{redo.job}` were changed after they were chosen; nothing is made again: try again")


async def _run(
    connection: sqlite3.Connection, held: HeldFolder, batch: Batch, redo: Redo, options: JobOptions, emit: Listener
) -> Result:
    since = time.time()
    if redo.plan is None:
        chosen = ask_again(connection, [image.image_pk for image in redo.images])
        scope = Scope(frozenset([redo.target]), since, limited_until=time.time(), only_redo=True)
    else:
        (queued,) = JobQueue(batch.config, connection).add([redo.plan], redo.staging, JobOptions())
        chosen = find_requests(connection, redo.target, [request.key for request in queued.plan.requests])
        scope = Scope(frozenset([redo.target]), since)
    run = Run(batch.config, batch.environment, connection, held, scope, options.budget_usd, options.wait, chosen)
    return await run.execute(emit)


def _leave(connection: sqlite3.Connection, batch: Batch, redo: Redo) -> None:
    """Queue the requests for the run that holds the folder. Raises LeftToRunAtWork."""
    queue = JobQueue(batch.config, connection)
    _check_images(connection, redo)
    if redo.plan is not None:
        queue.add_beside([redo.plan], redo.staging, JobOptions(), lambda _plans: None, ModeChange())
    who = queue.run_at_work()
    ask_again(connection, [image.image_pk for image in redo.images], for_run_at_work=True)
    raise LeftToRunAtWork(queued_message(connection, redo.target, who))

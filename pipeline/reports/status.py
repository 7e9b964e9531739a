"""Reads how each job stands from the ledger, and writes it for people and as JSON: `pipeline status`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.ledger.job_summary import JobSummary, read_job_summaries
from pipeline.ledger.queries import has_owner_record
from pipeline.ledger.request_history import read_failed_requests
from pipeline.ledger.submit import known_names
from pipeline.ledger.workers import read_workers
from pipeline.planning.mode import ServiceMode, local_time
from pipeline.reports.batches import batch_lines, batches_json, mode_words
from pipeline.reports.controls import ControlsInForce, work_seconds
from pipeline.reports.facts import count_facts, counted, duration, expected_facts, spent_facts, utc_time
from pipeline.reports.status_failed import failed_json, failed_lines
from pipeline.reports.stops import read_holding_stops, stop_lines, stops_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Config, Provider
    from pipeline.ledger.job_name_claim import Claim
    from pipeline.ledger.lock import LockOwner
    from pipeline.ledger.request_history import FailedRequest
    from pipeline.ledger.workers import WorkerRow
    from pipeline.planning.plan import Plan
    from pipeline.reports.facts import Fact
    from pipeline.reports.forms import JobsForm, StatusForm
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.stops import HoldingStop


def nothing_submitted(config: Config) -> str:
    """Return the sentence for an output folder without jobs: which folder, and which config led to it."""
    no_config = "no config.yaml was found here or above"
    found = no_config if config.file is None else f"the config is {config.file.absolute()}"
    return f"nothing in {config.output}; {found}; to start, run: pipeline run JOB.yaml"


@dataclass(frozen=True, slots=True)
class FolderStatus:
    """How the jobs of an output folder stand, the run that works on it, the stops that hold, and the controls."""

    summaries: Sequence[JobSummary]
    owner: LockOwner | None
    stops: Sequence[HoldingStop]
    controls: ControlsInForce
    failed: Sequence[FailedRequest] | None = None  # what failed or came back partial, if it was asked for
    workers: Sequence[WorkerRow] = ()

    @property
    def unfinished(self) -> int:
        """Requests that are still to be worked on."""
        return sum(summary.unfinished for summary in self.summaries)


def read_folder_status(
    folder: Path,
    job: str | None,
    discounts: Mapping[str, float] | None = None,
    providers: Mapping[str, Provider] | None = None,
    *,
    failed: bool = False,
) -> FolderStatus:
    """Return how a job stands, or all, and who works on them; with `failed` also each request that failed.

    Raises BadInput for an unknown job, and LedgerError.
    """
    with ledger.reading(folder, job) as connection:
        names = None if job is None else known_names(connection, [job])
        summaries = read_job_summaries(connection, names, discounts)
        owner = read_owner(folder, connection)
        stops = read_holding_stops(connection, names)
        controls = ControlsInForce.read(connection, providers or {}, owner)
        requests = read_failed_requests(connection, names) if failed else None
        workers = [] if owner is None else read_workers(connection)
        return FolderStatus(summaries, owner, stops, controls, requests, workers)


def read_owner(folder: Path, connection: sqlite3.Connection) -> LockOwner | None:
    """Return the run at work on a folder, None if none is."""
    if not has_owner_record(connection):
        return None
    from pipeline.ledger.lock import find_owner  # with filelock, a third of the time that `status` takes

    return find_owner(folder, connection)


def work_line(status: FolderStatus, command: NextCommand) -> str:
    """Return whether a run is at work, since when, and what continues the queue if none is."""
    if status.owner is not None:
        since = status.owner.started_at
        form = "%H:%M" if time.time() - since < 12 * 3600 else "%Y-%m-%d %H:%M"
        return f"working since {time.strftime(form, time.localtime(since))} ({status.owner.who})"
    if not status.unfinished:
        return "no run is at work, and nothing is queued"
    if status.stops:
        return "no run is at work; what stopped the last one, and how to continue:"
    return f"no run is at work; to continue, run: {command.line('run')}"


def folder_lines(
    status: FolderStatus, providers: Mapping[str, Provider], command: NextCommand, *, verbose: bool = False
) -> Iterator[str]:
    """Yield the status for people: what people have set, whether a run is at work, what stopped the last one, then a
    few lines per job.
    """
    yield from status.controls.lines(command)
    if status.summaries:
        yield work_line(status, command)
        yield from stop_lines(status.stops, command)
    at_work = {name: status.controls.at_work(provider) for name, provider in providers.items()}
    yield from status_lines(status.summaries, at_work, status.controls.outages, verbose=verbose)
    yield from failed_lines(status.failed or (), command)


def folder_json(status: FolderStatus, command: NextCommand) -> StatusForm:
    """Return the status as `status --json` shows it."""
    owner = status.owner
    view: StatusForm = {
        "jobs": status_json(status.summaries)["jobs"],
        "run": None if owner is None else {"who": owner.who, "since": owner.started_at},
        "stops": stops_json(status.stops, command),
        "providers": status.controls.json(),
        "workers": [
            {"id": worker.id, "node": worker.node, "pid": worker.pid, "calls": worker.calls, "images": worker.images}
            for worker in status.workers
        ],
    }
    if status.failed is not None:
        view["failed"] = [failed_json(request) for request in status.failed]
    return view


def read_status(folder: Path, job: str | None, discounts: Mapping[str, float] | None = None) -> list[JobSummary]:
    """Return how a job stands, or all. Raises BadInput for an unknown one, and LedgerError."""
    with ledger.reading(folder, job) as connection:
        names = None if job is None else known_names(connection, [job])
        return read_job_summaries(connection, names, discounts)


def status_json(summaries: Sequence[JobSummary], *, living_only: bool = False) -> JobsForm:
    """Return how the jobs stand as JSON shows it; with `living_only`, without the batches that have ended."""
    return {
        "jobs": [
            {
                "name": summary.name,
                "provider": summary.provider,
                "providers": [
                    {
                        "name": served.provider,
                        "images": served.images,
                        "cost_usd": None if served.cost_usd is None else round(served.cost_usd, 6),
                    }
                    for served in summary.by_provider
                ],
                "counts": dict(summary.counts),
                "images": summary.images,
                "cost_usd": None if summary.cost_usd is None else round(summary.cost_usd, 6),
                "expected_usd": None if summary.expected_usd is None else round(summary.expected_usd, 6),
                "maybe_paid": summary.maybe_paid,
                "paid_waiting": summary.paid_waiting,
                "rehearsal": summary.rehearsal,
                "priority": summary.priority,
                "mode": summary.mode,
                "deadline": utc_time(summary.deadline),
                "batches": batches_json(summary.living if living_only else summary.batches),
            }
            for summary in summaries
        ]
    }


def submission_line(plan: Plan, claim: Claim) -> str:
    """Return how many requests a plan has, and how many of them the ledger had before: made, queued or neither."""
    total = f"{counted(len(plan.requests), 'request')} for {counted(plan.images, 'image')}"
    others = claim.known - claim.made - claim.queued
    parts = [f"{len(plan.requests) - claim.known:,} new"]
    parts += [
        f"{number:,} already {what}" for number, what in ((claim.made, "made"), (claim.queued, "queued")) if number
    ]
    parts += [f"{others:,} failed or cancelled before"] if others else []
    return f"{plan.name}: {total} at provider `{plan.provider.name}`: {', '.join(parts)}"


def mode_line(plan: Plan, now: float) -> str | None:
    """Return that a plan goes by batch and what that means; None if it does not."""
    rules, service = plan.provider.batch, ServiceMode(plan.mode, plan.deadline)
    if plan.mode == "realtime" or rules is None or service.has_passed(now):
        return None
    line = f"{plan.name}: goes by batch, at {100 * (1 - rules.discount):g} % of the price"
    if plan.deadline is not None:
        return f"{line}; what is late for the deadline, {local_time(plan.deadline)}, is made in realtime"
    return f"{line}; a batch ends within {duration(rules.expires_hours * 3600)}"


def status_lines(
    summaries: Sequence[JobSummary],
    providers: Mapping[str, Provider],
    down: Collection[str] = (),
    *,
    verbose: bool = False,
) -> Iterator[str]:
    """Yield the status for people, three lines per job, and one if batches are out; with `verbose` one per batch.

    No time is stated for a job whose providers are all `down`.
    """
    for summary in summaries:
        yield f"{summary.name} ({', '.join(filter(None, (summary.provider, mode_words(summary), _priority(summary))))})"
        yield f"  {_joined(count_facts(summary)) or 'no requests'}"
        money = [*spent_facts(summary), *expected_facts(summary)]
        yield f"  {_joined([counted(summary.images, 'image'), *money, *_to_come(summary, providers, down)])}"
        for line in batch_lines(summary, each=verbose):
            yield f"  {line}"


def _priority(summary: JobSummary) -> str:
    return f"priority {summary.priority}" if summary.priority else ""


def _joined(facts: Iterable[Fact | str]) -> str:
    return " · ".join(map(str, facts))


def _to_come(summary: JobSummary, providers: Mapping[str, Provider], down: Collection[str]) -> list[str]:
    """Return how many images are to come by calls, and how long that takes; batches are not bound by the limit."""
    provider = providers.get(summary.provider)
    missing = summary.missing - summary.in_batches.images
    if missing <= 0 or summary.mode == "batch" or provider is None or provider.rate_limit is None:
        return []
    if all(name in down for name in summary.serving):
        return [f"{missing:,} to come"]
    seconds = work_seconds(provider, missing / provider.rate_limit.per_minute * 60, time.time())
    within = "" if provider.window is None else " and in its window"
    return [f"{missing:,} to come, {duration(seconds)} at the limit{within}"]


def forgotten(summary: JobSummary, *, files: bool) -> str:
    """Return what was deleted with a job that is forgotten."""
    what = f"{counted(sum(summary.counts.values()), 'request')} and {counted(summary.images, 'image')}"
    return f"job `{summary.name}` is forgotten, with {what}" + (
        ", and its files are deleted" if files else "; its files stay"
    )


def forget_question(summary: JobSummary, *, files: bool) -> str:
    """Return what is lost if a job is forgotten, paid work that is not here first, and the question."""
    lost = [*spent_facts(summary)]
    if summary.unfinished:
        lost.append(counted(summary.unfinished, "queued request"))
    images = counted(summary.images, "image")
    kept = f"Its {images} on the disk are deleted, too" if files else f"Its {images} on the disk stay"
    what = f"job `{summary.name}` ({_joined(lost)})" if lost else f"job `{summary.name}`"
    return f"Forget {what}? {kept}; if its file is run again, everything is made and paid again."

"""Write the summary at the end of a run: images, failures with their causes, what is left, and what to type next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.errors import BudgetSpent
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.stops import read_stops
from pipeline.progress.event_text import one_line
from pipeline.reports.advice import stop_advice
from pipeline.reports.batches import left_out_lines
from pipeline.reports.facts import counted, job_line
from pipeline.reports.failure_report import BUDGET_OPTION, read_causes, stop_commands, with_budget
from pipeline.reports.needed_budget import needed_budget
from pipeline.reports.stops import read_holding_stops, stop_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.ledger.job_summary import JobSummary
    from pipeline.reports.failure_report import FailureCause
    from pipeline.reports.next_command import NextCommand
    from pipeline.result import Result

_MAX_JOBS = 10  # with a line of their own; the rest are summed up
_MAX_CAUSES = 8
_MAX_MESSAGE = 240  # characters of an example's message


def summary_lines(result: Result, command: NextCommand, again: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the summary. `again` are the words of the command that continues the run."""
    for name, limit in result.lowered.items():
        yield f"{name} allowed only {limit.images} images per {limit.per_seconds:g} s"
    yield from _jobs(result.summaries)
    failed = [summary.name for summary in result.summaries if summary.unsuccessful]
    if failed:
        with ledger.reading(result.folder) as connection:
            causes = read_causes(connection, failed)
        yield from _failures(causes, command)
    yield from _older_stops(result, command)
    left = [summary for summary in result.summaries if summary.unfinished > summary.in_batches.requests]
    stopped = _stopped_by_budget(result, left)
    needed = _needed_budget(result, stopped)
    for advice in stop_advice(result.stops, needed):
        yield f"to fix it: {advice}"
    yield from left_out_lines(result.summaries, command.line("run"))
    if left:
        if BUDGET_OPTION in again or len(stopped) == len(left):  # else another job would get this budget, too
            again = with_budget(again, needed)
        requests = sum(summary.unfinished - summary.in_batches.requests for summary in left)
        images = sum(summary.missing - summary.in_batches.images for summary in left)
        yield f"still queued: {counted(requests, 'request')} for {counted(images, 'image')}; to continue, run:"
        with ledger.reading(result.folder) as connection:
            kinds = [type(stop).__name__ for stop in result.stops]
            commands = stop_commands(connection, kinds, again, [summary.name for summary in left])
        for words in commands[:_MAX_JOBS]:
            yield f"    {command.line(*words)}"


def _stopped_by_budget(result: Result, left: Sequence[JobSummary]) -> list[str]:
    """Return the names of the jobs that their budget has stopped in this run."""
    if not any(isinstance(stop, BudgetSpent) for stop in result.stops):
        return []
    with ledger.reading(result.folder) as connection:
        stops = read_stops(connection, [summary.name for summary in left])
    stopped = {stop.job for stop in stops if stop.kind == BudgetSpent.__name__}
    return [summary.name for summary in left if summary.name in stopped]


def _needed_budget(result: Result, stopped: Sequence[str]) -> float | None:
    """Return the budget that is enough for the rest of each of these jobs; None for no job, or without a price."""
    if not stopped:
        return None
    with ledger.reading(result.folder) as connection:
        return needed_budget(connection, read_job_summaries(connection, stopped))


def _older_stops(result: Result, command: NextCommand) -> Iterator[str]:
    """Yield the stops of earlier runs that hold for what is still queued."""
    if not any(summary.unfinished for summary in result.summaries):
        return
    with ledger.reading(result.folder) as connection:
        stops = read_holding_stops(connection, [summary.name for summary in result.summaries])
    own = {stop.message for stop in result.stops}
    yield from stop_lines([holding_stop for holding_stop in stops if holding_stop.stop.message not in own], command)


def _jobs(summaries: Sequence[JobSummary]) -> Iterator[str]:
    for summary in summaries[:_MAX_JOBS]:
        yield job_line(summary)
    if rest := summaries[_MAX_JOBS:]:
        images, unsuccessful = sum(summary.images for summary in rest), sum(summary.unsuccessful for summary in rest)
        yield f"{len(rest)} more jobs: {images:,} images; {unsuccessful:,} failed"


def _failures(causes: Sequence[FailureCause], command: NextCommand) -> Iterator[str]:
    """Yield each cause with its number of requests, an example and what to do."""
    yield f"failed: {counted(sum(cause.count for cause in causes), 'request')}"
    for cause in causes[:_MAX_CAUSES]:
        yield from _cause(cause, command)
    if len(causes) > _MAX_CAUSES:
        yield f"  and {len(causes) - _MAX_CAUSES} more causes; see the manifests"


def _cause(cause: FailureCause, command: NextCommand) -> Iterator[str]:
    first = cause.jobs[0]
    example = f"{first.job}/{first.id}: {one_line(first.message, _MAX_MESSAGE)}"
    yield f"  {cause.count:,} × {cause.title}, such as {example}"  # noqa: RUF001 - the multiplication sign is intended
    commands = cause.commands
    yield f"    {cause.advice}{':' if commands else ''}"
    for words in commands[:_MAX_JOBS]:
        is_short = words[0] != "resume" or len(words) <= _MAX_JOBS + 1
        yield f"    {command.line(*(words if is_short else words[:1]))}"
    if any(cause.key[1:]):  # else no error was recorded
        yield f"    see: pipeline help {cause.kind}"

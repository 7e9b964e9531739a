"""How a run ended → what people read last: what is here, what failed and why, what is left, and what to type."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pipeline.progress.event_text import one_line
from pipeline.reports.failures import read_causes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.ledger.job_summary import JobSummary
    from pipeline.reports.failures import Cause
    from pipeline.result import Result

_MOST_JOBS = 10  # that get a line of their own; the rest are summed
_MOST_CAUSES = 8
_LONGEST = 120  # characters of an example's message


def closing_lines(result: Result, program: Sequence[str], again: Sequence[str]) -> Iterator[str]:
    """Write the summary. `program` begins every command, `again` is what goes on with what is left."""
    for name, limit in result.lowered.items():
        yield f"{name} allowed {limit.images} images per {limit.per_seconds:g} s only"
    yield from _jobs(result.summaries)
    failed = [summary.name for summary in result.summaries if summary.unsuccessful]
    if failed:
        yield from _failures(read_causes(result.folder, failed), program)
    left = [summary for summary in result.summaries if summary.unfinished]
    if left:
        requests, images = sum(summary.unfinished for summary in left), sum(summary.missing for summary in left)
        yield f"still queued: {requests:,} requests for {images:,} images; this goes on with them:"
        yield f"    {shlex.join([*program, *again])}"


def _jobs(summaries: Sequence[JobSummary]) -> Iterator[str]:
    for summary in summaries[:_MOST_JOBS]:
        counts = ", ".join(f"{number:,} {status}" for status, number in summary.counts.items() if number)
        yield f"{summary.name}: {summary.images:,} images; {counts or 'nothing to do'}{_money(summary)}"
    if rest := summaries[_MOST_JOBS:]:
        images, unsuccessful = sum(one.images for one in rest), sum(one.unsuccessful for one in rest)
        yield f"{len(rest)} more jobs: {images:,} images; {unsuccessful:,} failed"


def _money(summary: JobSummary) -> str:
    spent = "" if summary.cost_usd is None else f"; ${summary.cost_usd:.2f}{' in rehearsal' * summary.rehearsal}"
    return spent + (f"; {summary.maybe_paid} calls may have been paid besides" if summary.maybe_paid else "")


def _failures(causes: Sequence[Cause], program: Sequence[str]) -> Iterator[str]:
    """Group the causes of all jobs, and say of each how often, where for example, and what to do."""
    groups: dict[tuple[str, str | None, int | None], list[Cause]] = {}
    for cause in causes:
        groups.setdefault(cause.name, []).append(cause)
    number = sum(cause.count for cause in causes)
    yield f"failed: {number:,} {'request' if number == 1 else 'requests'}"
    for group in sorted(groups.values(), key=lambda group: -sum(cause.count for cause in group))[:_MOST_CAUSES]:
        yield from _group(group, program)
    if len(groups) > _MOST_CAUSES:
        yield f"  and {len(groups) - _MOST_CAUSES} causes more; the manifests name them"


def _group(group: Sequence[Cause], program: Sequence[str]) -> Iterator[str]:
    first = group[0]
    name = " ".join(str(word) for word in (first.http_status, first.code or first.kind) if word)
    example = f"{first.job}/{first.id}: {one_line(first.message, _LONGEST)}"
    yield f"  {sum(cause.count for cause in group):,} × {name}, such as {example}"  # noqa: RUF001 - so many times
    commands = [command for command in dict.fromkeys(cause.command for cause in group) if command]
    yield f"    {first.advice}{':' if commands else ''}"
    if commands and len({command[0] for command in commands}) == 1 and commands[0][0] == "resume":
        names = [command[1] for command in commands]
        commands = [("resume", *(names if len(names) <= _MOST_JOBS else []))]
    for command in commands[:_MOST_JOBS]:
        yield f"    {shlex.join([*program, *command])}"

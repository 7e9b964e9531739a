"""Writes the stops that still hold, with what mends each before the commands that continue: for people and as JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.stops import read_stops
from pipeline.reports.advice import advice_for_stop
from pipeline.reports.failure_report import stop_commands, with_budget
from pipeline.reports.needed_budget import needed_budget

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Sequence

    from pipeline.ledger.stops import RecordedStop
    from pipeline.reports.forms import StopForm
    from pipeline.reports.next_command import NextCommand


@dataclass(frozen=True, slots=True)
class HoldingStop:
    """A stop that still holds, and the commands that continue what it reaches, as words."""

    stop: RecordedStop
    commands: tuple[tuple[str, ...], ...]
    advice: str | None  # what to do before the work is continued


def read_holding_stops(connection: sqlite3.Connection, jobs: Collection[str] | None = None) -> list[HoldingStop]:
    """Return the stops that hold for queued requests of these jobs, or of all, the oldest first."""
    stops = read_stops(connection, jobs)
    if not stops:
        return []
    waiting = [summary for summary in read_job_summaries(connection, jobs) if summary.unfinished]
    found = []
    for stop in stops:
        reached = [
            summary
            for summary in waiting
            if stop.job in {None, summary.name} and stop.provider in {None, *summary.serving}
        ]
        needed = needed_budget(connection, reached) if stop.kind == "BudgetSpent" else None
        again = with_budget(["run"], needed)
        commands = stop_commands(connection, [stop.kind], again, [summary.name for summary in reached])
        found.append(HoldingStop(stop, tuple(commands), advice_for_stop(stop.kind, stop.message, needed)))
    return found


def stop_lines(stops: Sequence[HoldingStop], command: NextCommand) -> Iterator[str]:
    """Yield each stop: when, what and why; then what mends it; then the commands that continue."""
    for holding_stop in stops:
        yield f"stopped {_moment(holding_stop.stop.stopped_at)}, {holding_stop.stop.reach}: {holding_stop.stop.message}"
        if holding_stop.advice is not None:
            yield f"  first: {holding_stop.advice}"
        for words in holding_stop.commands:
            yield f"  then: {command.line(*words)}"


def stops_json(stops: Sequence[HoldingStop], command: NextCommand) -> list[StopForm]:
    """Return the stops as plain values for JSON."""
    return [
        {
            "kind": holding_stop.stop.kind,
            "message": holding_stop.stop.message,
            "reach": holding_stop.stop.reach,
            "job": holding_stop.stop.job,
            "provider": holding_stop.stop.provider,
            "model": holding_stop.stop.model,
            "at": round(holding_stop.stop.stopped_at, 3),
            "advice": holding_stop.advice,
            "commands": [command.line(*words) for words in holding_stop.commands],
        }
        for holding_stop in stops
    ]


def _moment(stopped_at: float) -> str:
    form = "at %H:%M" if time.time() - stopped_at < 12 * 3600 else "on %Y-%m-%d at %H:%M"
    return time.strftime(form, time.localtime(stopped_at))

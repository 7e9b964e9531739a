"""Checks of what holds work back, as the ledger remembers it: pauses, lower limits, a run at work, and stops."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.doctor.check import warning, well
from pipeline.errors import PipelineError
from pipeline.ledger.attempts import paused_until
from pipeline.ledger.controls import read_controls
from pipeline.ledger.lock import find_owner
from pipeline.reports.controls import limit_words, moment_words, window_words
from pipeline.reports.facts import clock
from pipeline.reports.next_command import NextCommand
from pipeline.reports.stops import read_holding_stops

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from pipeline.config.provider import Provider
    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import NextRun


def check_held(next_run: NextRun) -> Iterator[Check]:
    """Yield what still holds work back: a run at work, a pause that a provider asked for, and stops of earlier runs."""
    found: list[Check] = []
    with contextlib.suppress(PipelineError), ledger.reading(next_run.config.output) as connection:  # named elsewhere
        for holds in (_controls, _run_at_work, _pauses, _stops):
            found += holds(connection, next_run)
    yield from found
    if all(check.status == "ok" for check in found):
        yield well("held", "no run is at work, and no pause and no stop holds anything back")


def _controls(connection: sqlite3.Connection, next_run: NextRun) -> Iterator[Check]:
    """Yield what people have set: pauses, lower limits, and windows, which are no fault."""
    facts, command = read_controls(connection), NextCommand.here(next_run.config)
    for provider in next_run.providers():
        name, control = provider.name, facts.of(provider.name)
        if control.held_since is not None:
            what = f"`{name}` is paused since {moment_words(control.held_since)}"
            yield warning("held", what, command.line("unpause", name))
        if control.throttle is not None and provider.rate_limit is not None:
            what = f"`{name}` is throttled to {limit_words(provider, control.throttle)}"
            yield warning("held", what, command.line("throttle", name, "--reset"))
        if provider.window is not None:
            yield well("held", f"`{name}` {window_words(provider.window, next_run.now)}")


def why_not_now(connection: sqlite3.Connection, provider: Provider) -> str | None:
    """Return why a provider is not called now, since a person, its window or the provider itself wants it so."""
    now = time.time()
    if read_controls(connection).of(provider.name).held_since is not None:
        return f"`{provider.name}` is paused"
    if provider.window is not None and not provider.window.is_open(now):
        return f"`{provider.name}` is outside its window"
    if (until := paused_until(connection, provider.name)) > now:
        return f"`{provider.name}` asked for a pause until {clock(until, now)}"
    return None


def _run_at_work(connection: sqlite3.Connection, next_run: NextRun) -> Iterator[Check]:
    owner = find_owner(next_run.config.output, connection)
    if owner is not None:
        what = f"{owner.who} is working on {next_run.config.output}: a second run only queues its jobs"
        yield warning("held", what, "wait until it ends, or let it take up the jobs")


def _pauses(connection: sqlite3.Connection, next_run: NextRun) -> Iterator[Check]:
    for provider in next_run.providers():
        if (until := paused_until(connection, provider.name)) > next_run.now:
            what = f"`{provider.name}` asked for a pause until {clock(until, next_run.now)}"
            yield warning("held", what, "start the run then, or let it wait")


def _stops(connection: sqlite3.Connection, next_run: NextRun) -> Iterator[Check]:
    command = NextCommand.here(next_run.config)
    for holding_stop in read_holding_stops(connection, [job.name for job in next_run.jobs]):
        again = " and ".join(command.line(*words) for words in holding_stop.commands)
        stop = holding_stop.stop
        what = f"stopped at {clock(stop.stopped_at, next_run.now)}, {stop.reach}: {stop.message}"
        yield warning("held", what, f"{holding_stop.advice or 'fix what it names'}; then {again}")

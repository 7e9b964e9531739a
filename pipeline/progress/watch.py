"""`status --watch`: reads the ledger every few seconds and shows it on a screen, in plain blocks, or as JSON lines."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.printable import printable_json, printable_lines
from pipeline.progress.display import can_draw
from pipeline.progress.from_ledger import read_view
from pipeline.progress.plain import view_lines
from pipeline.reports.facts import clock
from pipeline.reports.next_command import NextCommand
from pipeline.reports.status import folder_json, folder_lines, nothing_submitted, work_line
from pipeline.reports.stops import stop_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.config.load import Config
    from pipeline.progress.from_ledger import LedgerView
    from pipeline.reports.status import FolderStatus


def watch(config: Config, job: str | None, seconds: float, *, as_json: bool, keep: bool = False) -> int:
    """Show how far everything is every so many seconds, until no run is at work or nothing is queued.

    With `keep`, until a signal. Return the exit code.

    Raises BadInput for an unknown job, and LedgerError.
    """
    command = NextCommand.here(config)
    with contextlib.ExitStack() as stack:
        draws = not as_json and can_draw(sys.stdout)
        show = _json if as_json else stack.enter_context(_screen()) if draws else _blocks(config)
        try:
            with _sigterm_exits():
                while True:
                    reading = _with_notes(read_view(config, job, time.time()), command)
                    is_over = not keep and _is_over(reading.status)
                    if not is_over or not draws:
                        show(reading, command)
                    if is_over:
                        break
                    time.sleep(seconds)
        except KeyboardInterrupt:
            return 130
    if draws:  # what was drawn is erased
        _print("\n".join(folder_lines(reading.status, config.services, command)))
    return 0


def _is_over(status: FolderStatus) -> bool:
    """Return whether there is nothing to wait for; before anything is submitted, a run may be about to start."""
    return bool(status.summaries) and (status.owner is None or not status.unfinished)


def _with_notes(reading: LedgerView, command: NextCommand) -> LedgerView:
    if not reading.summaries:
        return reading
    controls, stops = reading.status.controls.lines(command), stop_lines(reading.status.stops, command)
    notes = (*controls, work_line(reading.status, command), *stops)
    return replace(reading, view=replace(reading.view, notes=notes))


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that the screen is erased."""
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _screen() -> Iterator[Callable[[LedgerView, NextCommand], None]]:
    from pipeline.progress.screen import Screen

    screen = Screen(sys.stdout)
    try:
        yield lambda reading, _command: screen.show(reading.view)
    finally:
        screen.close()


def _blocks(config: Config) -> Callable[[LedgerView, NextCommand], None]:
    def show(reading: LedgerView, _command: NextCommand) -> None:
        lines = list(view_lines(reading.view)) or [nothing_submitted(config)]
        _print("\n".join([clock(reading.view.now, reading.view.now, seconds=True), *lines, ""]))

    return show


def _json(reading: LedgerView, command: NextCommand) -> None:
    view = reading.view
    live = {
        provider.name: {
            "images_per_minute": provider.per_minute and round(provider.per_minute, 2),
            "limit_per_minute": provider.limit,
            "in_flight": provider.in_flight,
            "bottleneck": provider.bottleneck,
            "until": provider.until,
            "expires_at": provider.expires_at,
        }
        for provider in view.providers
    }
    controls = {control["name"]: control for control in reading.status.controls.json()}
    providers = [{"name": name, **controls.get(name, {}), **facts} for name, facts in live.items()]
    shown = {"at": round(view.now, 3), **folder_json(reading.status, command), "providers": providers}
    _print(printable_json({**shown, "ends_at": view.total.ends_at}))


def _print(text: str) -> None:
    print(printable_lines(text), flush=True)  # noqa: T201 - results go to stdout

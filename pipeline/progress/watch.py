"""`status --watch`: reads the ledger every few seconds and shows it on a screen, in plain blocks, or as JSON lines."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING

from pipeline.printable import printable_json, printable_lines
from pipeline.progress.display import can_draw
from pipeline.progress.from_ledger import read_view
from pipeline.progress.plain import view_lines
from pipeline.progress.view import clock
from pipeline.reports.status import NOTHING_SUBMITTED, status_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.config.load import Config
    from pipeline.progress.from_ledger import LedgerView


def watch(config: Config, job: str | None, seconds: float, *, as_json: bool) -> int:
    """Show how far everything is every so many seconds until a signal; return the exit code.

    Raises BadInput for an unknown job, and LedgerError.
    """
    with contextlib.ExitStack() as stack:
        show = _json if as_json else stack.enter_context(_screen()) if can_draw(sys.stdout) else _block
        try:
            with _sigterm_exits():
                while True:
                    show(read_view(config.output, job, config.providers, time.time()))
                    time.sleep(seconds)
        except KeyboardInterrupt:
            return 130


@contextlib.contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Make SIGTERM raise SystemExit, so that the screen is erased."""
    before = signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _screen() -> Iterator[Callable[[LedgerView], None]]:
    from pipeline.progress.screen import Screen

    screen = Screen(sys.stdout)
    try:
        yield lambda reading: screen.show(reading.view)
    finally:
        screen.close()


def _block(reading: LedgerView) -> None:
    lines = list(view_lines(reading.view)) or [NOTHING_SUBMITTED]
    _print("\n".join([clock(reading.view.now, reading.view.now, seconds=True), *lines, ""]))


def _json(reading: LedgerView) -> None:
    view = reading.view
    providers = [
        {
            "name": one.name,
            "images_per_minute": one.per_minute and round(one.per_minute, 2),
            "limit_per_minute": one.limit,
            "in_flight": one.in_flight,
            "bottleneck": one.bottleneck,
            "until": one.until,
            "expires_at": one.expires_at,
        }
        for one in view.providers
    ]
    shown = {"at": round(view.now, 3), **status_json(reading.summaries), "providers": providers}
    _print(printable_json({**shown, "ends_at": view.total.ends_at}))


def _print(text: str) -> None:
    print(printable_lines(text), flush=True)  # noqa: T201 - results go to stdout

"""Shows a run on its terminal: on a live screen if it can be redrawn, else in plain lines with the same facts."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from pipeline.errors import PipelineError
from pipeline.printable import printable_lines
from pipeline.progress.announcements import Announcements
from pipeline.progress.event_text import describe
from pipeline.progress.from_events import EventTotals
from pipeline.progress.plain import ChangedLines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import TextIO

    from pipeline.config.opening_hours import OpeningHours
    from pipeline.engine.events import Event
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.progress.screen import Screen

PLAIN_SECONDS, MOST_PLAIN_SECONDS = 5.0, 300.0  # between two comparisons, in plain lines: each time twice as many
LIVE_SECONDS = 0.5  # between two drawings
_READING_SHARE = 50  # the ledger is read again after so many times as long as reading it took


def can_draw(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can be redrawn."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return os.name == "nt" and stream.isatty()
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


class Progress:
    """A context manager and a listener. It draws at its own pace in its own thread, however many events there are.

    `read` reads the job summaries. `live` draws a screen; without it, or without a terminal, lines are printed. The
    thread calls `tick`.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[JobSummary]],
        *,
        verbose: bool,
        live: bool = True,
        now: Callable[[], float] = time.time,
        windows: Mapping[str, OpeningHours] | None = None,
    ) -> None:
        self._read = read
        self._verbose = verbose
        self._now = now
        self._live = live and can_draw(sys.stderr)
        self._totals = EventTotals(windows)
        self._announcements = Announcements()
        self._changed = ChangedLines()
        self._read_at = 0.0
        self._announced: deque[str] = deque()
        self._screen: Screen | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_ticking, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # the terminal may be gone, which is no reason to end otherwise
            for wave in self._announcements.rest():
                self.say(describe(wave))
            self._print_announced()
            if self._screen is not None:
                self._screen.close()

    def __call__(self, event: Event) -> None:
        """Count an event, and print it if it is of importance."""
        self._totals.count(event, self._now())
        for announced in [event] if self._verbose else self._announcements.of(event, self._now()):
            self.say(describe(announced))

    def say(self, line: str) -> None:
        """Print a line above the screen at the next drawing; at once without a screen."""
        if self._live:
            self._announced.append(line)
        else:
            _print(line)

    def tick(self) -> None:
        """Draw how far everything is."""
        if not self._totals.begun:
            return
        self._read_again()
        self._print_announced()
        view = self._totals.view(self._now())
        if not self._live:
            for line in self._changed.of(view):
                _print(line)
            return
        if self._screen is None:
            from pipeline.progress.screen import Screen

            self._screen = Screen(sys.stderr)
        if not getattr(sys.stderr, "is_behind", False):  # after Ctrl-S, only the last drawing is of use
            self._screen.show(view)

    def _keep_ticking(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            due, wait = 0.0, PLAIN_SECONDS
            while not self._over.wait(LIVE_SECONDS if self._live else PLAIN_SECONDS):
                for event in self._announcements.due(self._now()):
                    self.say(describe(event))
                if self._live or time.monotonic() >= due:
                    self.tick()
                    due, wait = time.monotonic() + wait - PLAIN_SECONDS / 2, min(2 * wait, MOST_PLAIN_SECONDS)

    def _read_again(self) -> None:
        """Read the ledger if a job is unknown or the last reading is old; reading takes a fiftieth of the time."""
        began = time.monotonic()
        if began < self._read_at and not self._totals.has_unknown_job():
            return
        self._totals.about_to_read()
        with contextlib.suppress(PipelineError):  # the run itself reports a damaged ledger
            self._totals.read(self._read())
        ended = time.monotonic()
        self._read_at = ended + _READING_SHARE * (ended - began)

    def _print_announced(self) -> None:
        """Print the lines above the screen, all at once, since each printing is a drawing too."""
        if not self._announced:
            return
        lines = "\n".join(self._announced.popleft() for _ in range(len(self._announced)))
        if self._screen is None:
            _print(lines)
        else:
            self._screen.say(lines)


def _print(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal is gone, or the disk of a log is full
        sys.stderr.write(f"{printable_lines(line)}\n")  # at once: a line is written, or left out, as a whole
        sys.stderr.flush()

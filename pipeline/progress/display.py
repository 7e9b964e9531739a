"""A run → its terminal: a live screen where there is one, plain lines with the same facts elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from pipeline.engine import events
from pipeline.errors import PipelineError
from pipeline.progress.event_text import describe
from pipeline.progress.from_events import EventTotals
from pipeline.progress.plain import ChangedLines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import TextIO

    from pipeline.engine.events import Event
    from pipeline.ledger.job_summary import JobSummary
    from pipeline.progress.screen import Screen

PLAIN_SECONDS = 5.0  # between two looks for news, in plain lines
LIVE_SECONDS = 0.5  # between two drawings
_READING_SHARE = 50  # the ledger is read again after so many times as long as reading it took

_TOLD = (
    *(events.Paused, events.LimitLowered, events.ProviderDown, events.ProviderUp),
    *(events.Stopped, events.Stopping, events.NotificationFailed, events.BackupFailed),
)


def can_draw(stream: TextIO) -> bool:
    """Say whether a stream is a terminal on which a screen can be drawn and redrawn."""
    if not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return os.name == "nt" and stream.isatty()
    return (stream.encoding or "").lower().replace("-", "") == "utf8"


class Progress:
    """A context manager, and a listener. It shows at its own pace, in a thread of its own, however many events come.

    `read` gives the ledger's accounts. `live` draws a screen; without it, or where there is no terminal, lines are
    printed. `tick` is what the thread does each time.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[JobSummary]],
        *,
        verbose: bool,
        live: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._verbose = verbose
        self._now = now
        self._live = live and can_draw(sys.stderr)
        self._totals = EventTotals()
        self._news = ChangedLines()
        self._read_at = 0.0
        self._told: deque[str] = deque()
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
            self._tell()
            if self._screen is not None:
                self._screen.close()

    def __call__(self, event: Event) -> None:
        """Take an event."""
        self._totals.count(event, self._now())
        if self._verbose or isinstance(event, _TOLD):
            self.say(describe(event))

    def say(self, line: str) -> None:
        """Print a line above what is drawn, at the next drawing; at once where nothing is."""
        if self._live:
            self._told.append(line)
        else:
            _print(line)

    def tick(self) -> None:
        """Show how far everything is."""
        if not self._totals.begun:
            return
        self._read_again()
        self._tell()
        view = self._totals.view(self._now())
        if not self._live:
            for line in self._news.of(view):
                _print(line)
            return
        if self._screen is None:
            from pipeline.progress.screen import Screen

            self._screen = Screen(sys.stderr)
        self._screen.show(view)

    def _keep_ticking(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more
            while not self._over.wait(LIVE_SECONDS if self._live else PLAIN_SECONDS):
                self.tick()

    def _read_again(self) -> None:
        """Read the ledger where something is unknown or it was long ago; reading takes a fiftieth of the time."""
        began = time.monotonic()
        if began < self._read_at and not self._totals.has_strangers():
            return
        self._totals.about_to_read()
        with contextlib.suppress(PipelineError):  # a ledger in trouble is the run's to tell
            self._totals.read(self._read())
        ended = time.monotonic()
        self._read_at = ended + _READING_SHARE * (ended - began)

    def _tell(self) -> None:
        """Print what is to stand above the screen, all at once: each printing is a drawing too."""
        if not self._told:
            return
        lines = "\n".join(self._told.popleft() for _ in range(len(self._told)))
        if self._screen is None:
            _print(lines)
        else:
            self._screen.say(lines)


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal

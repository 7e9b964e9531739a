"""Events → `run.log` in the output folder: rotated, one line an event; a key or a URL's signature never gets here.

A thread of its own writes them, those of a moment at once: a line at a time would cost a run a tenth of its speed.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from logging.handlers import RotatingFileHandler
from queue import SimpleQueue
from typing import TYPE_CHECKING

from pipeline.engine.events import CallSent, ImageStored, ProviderPace
from pipeline.progress.event_text import describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.engine.events import Event

_MOMENT = 0.05  # seconds, after which what has come is written
MOST_AT_ONCE = 1000
"""Lines in one write, at most; between two of them the file may be rotated."""


class Log:
    """A listener that writes the file; `verbose` takes the events that come with every picture too."""

    def __init__(self, folder: Path, *, verbose: bool, now: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._verbose = verbose
        self._now = now
        self._heard: SimpleQueue[tuple[float, Event] | None] = SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, CallSent | ImageStored | ProviderPace) and not self._verbose:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="log", daemon=True)
            self._thread.start()
        self._heard.put((self._now(), event))

    def close(self) -> None:
        """Write what has come, and close the file."""
        if self._thread is not None:
            self._heard.put(None)
            self._closing.set()
            self._thread.join()

    def _write(self) -> None:
        handler = _RotatingFile(
            self._folder / "run.log", maxBytes=10 * 2**20, backupCount=3, encoding="utf-8", delay=True
        )
        over = False
        try:
            while not over:
                lines, over = self._gather()
                if lines:
                    handler.emit(logging.LogRecord("pipeline", logging.INFO, "", 0, "\n".join(lines), None, None))
        finally:
            with contextlib.suppress(OSError):  # what a full disk did not take is lost, and no reason for an error
                handler.close()

    def _gather(self) -> tuple[list[str], bool]:
        """Wait for an event, and take along those of the next moment. Gives their lines, and whether that was all."""
        lines: list[str] = []
        heard = self._heard.get()
        self._closing.wait(_MOMENT)
        while heard is not None:
            lines.append(_line(*heard))
            if len(lines) == MOST_AT_ONCE or self._heard.empty():
                return lines, False
            heard = self._heard.get()
        return lines, True


def _line(moment: float, event: Event) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    return f"{when},{int(moment % 1 * 1000):03} {describe(event)}"


class _RotatingFile(RotatingFileHandler):
    """Leaves out the lines for which there is no room, where logging would write a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Go on without these lines."""

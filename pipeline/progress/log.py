"""Events → `run.log` in the output folder: rotated, one line an event; a key or a URL's signature never gets here."""

from __future__ import annotations

import contextlib
import logging
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

from pipeline.engine.events import CallSent, ImageStored, Pace
from pipeline.progress.wording import describe

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.engine.events import Event


class Log:
    """A listener that writes the file; `verbose` takes the events that come with every picture too."""

    def __init__(self, folder: Path, *, verbose: bool) -> None:
        self._folder = folder
        self._level = logging.DEBUG if verbose else logging.INFO
        self._handler: logging.Handler | None = None

    def __call__(self, event: Event) -> None:
        """Write one event."""
        level = logging.DEBUG if isinstance(event, CallSent | ImageStored | Pace) else logging.INFO
        if level < self._level:
            return
        if self._handler is None:
            self._handler = _RotatingFile(
                self._folder / "run.log", maxBytes=10 * 2**20, backupCount=3, encoding="utf-8", delay=True
            )
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self._handler.emit(logging.LogRecord("pipeline", level, "", 0, describe(event), None, None))

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost, and no reason to end a run with an error."""
        if self._handler is not None:
            with contextlib.suppress(OSError):
                self._handler.close()


class _RotatingFile(RotatingFileHandler):
    """Leaves out the lines for which there is no room, where logging would write a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Go on without this line."""

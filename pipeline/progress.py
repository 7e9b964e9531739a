"""The runner's events → the terminal, the log, and lines of JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import sys
import time
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Any, Self

from pipeline.engine import events
from pipeline.engine.events import (
    CallEnded,
    CallSent,
    ImageStored,
    LimitLowered,
    Paused,
    ProviderAway,
    ProviderBack,
    RequestEnded,
    Stopped,
    Stopping,
)
from pipeline.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from pipeline.engine.events import Event

TOLD = (Paused, LimitLowered, ProviderAway, ProviderBack, Stopped, Stopping, events.NotBackedUp)
"""Events that each get a line, whatever else is shown."""

PLAIN_SECONDS = 5.0  # between two plain lines
LIVE_SECONDS = 0.25  # between two pictures of the live line


@dataclasses.dataclass(slots=True)
class Tally:
    """What has happened since the run began."""

    started: float = dataclasses.field(default_factory=time.monotonic)
    images: int = 0
    ended: int = 0
    failed: int = 0
    in_flight: int = 0
    cost_usd: float = 0.0
    binds: str = ""

    def count(self, event: Event) -> None:
        """Take one event into account."""
        match event:
            case CallSent():
                self.in_flight += 1
            case CallEnded(cost_usd=cost):
                self.in_flight -= 1
                self.cost_usd += cost or 0.0
            case ImageStored():
                self.images += 1
                self.binds = ""
            case RequestEnded(status=status):
                self.ended += 1
                self.failed += status != "succeeded"
            case Paused(seconds=seconds):
                self.binds = f"paused for {seconds:.0f} s"
            case ProviderAway(provider=provider):
                self.binds = f"waiting for `{provider}` to come back"
            case ProviderBack():
                self.binds = ""

    @property
    def per_minute(self) -> float:
        """Images a minute since the run began."""
        return self.images / max(1e-9, time.monotonic() - self.started) * 60


class Progress:
    """A live line on a terminal, plain lines with the same facts elsewhere; a context manager, and a listener."""

    def __init__(self, left: Callable[[], tuple[int, float | None]], *, verbose: bool) -> None:
        self._left = left  # images to come, and their cost in US dollars
        self._verbose = verbose
        self._tally = Tally()
        self._shown = time.monotonic()
        self._counted, self._count_at, self._images_then = 0, 0.0, 0
        self._expected: float | None = None
        self._live = sys.stderr.isatty()
        self._status: Any = None

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console

            self._status = Console(stderr=True).status("starting", spinner="dots")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
        if kind is None and self._tally.images:
            self._write(self._line())

    def __call__(self, event: Event) -> None:
        """Show an event, or what it adds up to."""
        self._tally.count(event)
        if isinstance(event, TOLD) or self._verbose:
            self._write(describe(event))
        now = time.monotonic()
        if now - self._shown >= (LIVE_SECONDS if self._live else PLAIN_SECONDS):
            self._shown = now
            if self._status is not None:
                self._status.update(self._line())
            else:
                self._write(self._line())

    def _line(self) -> str:
        tally = self._tally
        facts = [
            f"{tally.images} images",
            f"{tally.per_minute:.1f}/min",
            f"{tally.in_flight} calls in flight",
            f"{self._to_come()} to come",
        ]
        if tally.failed:
            facts.append(f"{tally.failed} failed")
        if tally.cost_usd or self._expected:
            to_come = "" if self._expected is None else f" spent, about ${self._expected:.2f} to come"
            facts.append(f"${tally.cost_usd:.2f}{to_come}")
        return " · ".join([*facts, tally.binds] if tally.binds else facts)

    def _to_come(self) -> int:
        """Count down from the ledger's number, which is asked for at a fiftieth of the time that its answer takes."""
        began = time.monotonic()
        if began >= self._count_at:
            (self._counted, self._expected), self._images_then = self._left(), self._tally.images
            ended = time.monotonic()
            self._count_at = ended + 50 * (ended - began)
        return max(0, self._counted - (self._tally.images - self._images_then))

    def _write(self, line: str) -> None:
        if self._status is not None:
            self._status.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal


class Log:
    """`run.log` in the output folder: rotated, one line an event; a key or a URL's signature never gets here."""

    def __init__(self, folder: Path, *, verbose: bool) -> None:
        self._folder = folder
        self._level = logging.DEBUG if verbose else logging.INFO
        self._handler: logging.Handler | None = None

    def __call__(self, event: Event) -> None:
        """Write one event."""
        level = logging.DEBUG if isinstance(event, CallSent | ImageStored) else logging.INFO
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


def describe(event: Event) -> str:  # noqa: PLR0912 - one line for each event
    """Say an event in one line: a glyph for what became of it, then who and what."""
    match event:
        case CallSent(job, id_, provider, images):
            return f"→ {job}/{id_}: {images} asked of {provider}"
        case CallEnded(job, id_, _, seconds, _, None):
            return f"← {job}/{id_}: answered in {seconds:.1f} s"
        case CallEnded(job, id_, _, seconds, _, error):
            return f"! {job}/{id_}: {_said(error)} after {seconds:.1f} s"
        case ImageStored(_, _, file):
            return f"• {file}"
        case events.Retrying(job, id_, seconds, error):
            return f"↻ {job}/{id_}: again in {seconds:.1f} s: {_said(error)}"
        case RequestEnded(job, id_, status, error):
            return f"{'✓' if status == 'succeeded' else '✗'} {job}/{id_}: {status}" + (
                f": {_said(error)}" if error else ""
            )
        case Paused(provider, seconds, reason):
            return f"‖ {provider} asks everyone to wait {seconds:.1f} s: {_one_line(reason)}"
        case LimitLowered(provider, images, per_seconds, reason):
            return f"▼ {provider} allows {images} images per {per_seconds:g} s, no more: {_one_line(reason)}"
        case ProviderAway(provider, reason):
            return f"‖ {provider} is away; waiting and probing: {_one_line(reason)}"
        case ProviderBack(provider, seconds):
            return f"▶ {provider} is back after {seconds:.0f} s"
        case Stopping(signal):
            return f"■ {signal}: no further calls; those in flight finish, a second signal ends at once"
        case events.NotBackedUp(error):
            return f"! the ledger could not be copied: {_said(error)}"
        case Stopped(what, error):
            return f"■ no further calls for {what}: {_said(error)}"
    raise AssertionError(event)  # pragma: no cover - the match is complete


def event_json(event: Event) -> str:
    """Write an event as one line of JSON."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    fields = {field.name: _plain(getattr(event, field.name)) for field in dataclasses.fields(event)}
    return json.dumps({"event": name, **fields}, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, RequestError):
        return {"http_status": value.http_status, "type": value.type, "code": value.code, "message": value.message}
    return value


def _said(error: RequestError | None) -> str:
    if error is None:
        return ""
    status = f"{error.http_status} " if error.http_status else ""
    return f"{status}{error.code or type(error).__name__}: {_one_line(error.message)}"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:300]

"""Decides which events get a line of their own: those that a person would act on."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from pipeline.engine import events
from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.engine.worker_events import AwaitingLeases, NodeRefused, WorkerLost, WorkersReady
from pipeline.progress.batch_waves import BatchEvent, BatchWave, BatchWaves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.engine.events import Event

SHORT_SECONDS = 5.0
"""Pauses and outages below this get no line; the provider's line counts them."""

LONG_PAUSE = 60.0
"""Seconds from which on every pause gets a line; of shorter ones only the first of a provider does."""

LONG_WAIT = 120.0
"""Seconds that one request waits before another attempt from which on that gets a line."""

_ALWAYS = (
    *(events.LimitLowered, events.UsageIgnored, events.ImagesLeftOut),
    *(events.Stopping, events.NotificationFailed, events.BackupFailed, events.ImagesFound),
    *(events.KeyExposed, Held, Throttled, Reprioritised),
    *(AwaitingLeases, WorkersReady, WorkerLost, NodeRefused),
)


def _kind(event: Event) -> str:
    if isinstance(event, events.StoreSilent | events.StoreAnswers):
        return "images"
    return "calls" if isinstance(event, events.ProviderDown | events.ProviderUp) else "purchases"


class Announcements:
    """The events of one run that are announced. Thread-safe; moments are seconds since 1970."""

    def __init__(self) -> None:
        self._outages: dict[tuple[str, str], tuple[float, Event]] = {}  # -> when it is no short one any more
        self._waves = BatchWaves()
        self._paused: set[str] = set()  # providers whose first pause was announced
        self._lock = threading.Lock()

    def of(self, event: Event, now: float) -> list[Event]:
        """Return what is to be announced because of an event."""
        with self._lock:
            return list(self._of(event, now))

    def due(self, now: float) -> list[Event | BatchWave]:
        """Return the outages that are no short ones any more, the stops after which the run has gone on, and what has
        happened to batches lately.
        """
        with self._lock:
            names = [name for name, (moment, _) in self._outages.items() if now >= moment]
            return [*(self._outages.pop(name)[1] for name in names), *self._waves.over(now)]

    def rest(self) -> list[BatchWave]:
        """Return what has happened to batches and is not announced yet, at the end of the run."""
        with self._lock:
            return self._waves.over(math.inf)

    def _of(self, event: Event, now: float) -> Iterator[Event]:
        match event:
            case events.Retrying(seconds=seconds):
                if seconds >= LONG_WAIT:
                    yield event
            case events.Paused(provider, seconds):
                if seconds >= LONG_PAUSE or (seconds >= SHORT_SECONDS and provider not in self._paused):
                    self._paused.add(provider)
                    yield event
            case events.ProviderDown(provider) | events.PurchasesHeld(provider) | events.StoreSilent(provider):
                self._outages[_kind(event), provider] = (now + SHORT_SECONDS, event)
            case events.Stopped(what):  # the summary tells it, if the run ends at once
                self._outages["stop", what] = (now + SHORT_SECONDS, event)
            case events.ProviderUp(provider) | events.PurchasesResumed(provider) | events.StoreAnswers(provider):
                moment, began = self._outages.pop((_kind(event), provider), (now, None))
                if now >= moment:
                    yield from ([began] if began else [])
                    yield event
            case _ if isinstance(event, BatchEvent):
                self._waves.add(event, now)
            case _ if isinstance(event, _ALWAYS):
                yield event

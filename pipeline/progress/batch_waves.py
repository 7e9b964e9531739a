"""Folds what happens to many batches within a short time into one announcement: sent, collected, failed."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.engine.events import BatchCollected, BatchMoved, BatchSent

BatchEvent = BatchSent | BatchMoved | BatchCollected

QUIET_SECONDS = 10.0
"""A wave is over if nothing was added to it for so long."""

MOST_SECONDS = 120.0
"""A wave is announced after so long though more may follow."""

BAD_ENDS = {"failed", "expired", "cancelled"}
"""Statuses in which a batch ends without all its lines."""


@dataclass(slots=True)
class BatchWave:
    """Events of one kind, about one batch each."""

    began_at: float
    last_at: float
    events: list[BatchEvent] = field(default_factory=list)

    def is_over(self, now: float) -> bool:
        """Return whether the wave is to be announced."""
        return now >= min(self.last_at + QUIET_SECONDS, self.began_at + MOST_SECONDS)


class BatchWaves:
    """The waves that are still growing. Of a batch's moves only a bad end counts, once."""

    def __init__(self) -> None:
        self._waves: dict[tuple[type, str], BatchWave] = {}
        self._ended: set[tuple[str, str]] = set()

    def add(self, event: BatchEvent, now: float) -> None:
        """Add an event to its wave."""
        name = event.provider if isinstance(event, BatchSent) else ""
        if isinstance(event, BatchMoved):
            name = event.status
            if name not in BAD_ENDS or (event.id, name) in self._ended:
                return
            self._ended.add((event.id, name))
        wave = self._waves.setdefault((type(event), name), BatchWave(now, now))
        wave.events.append(event)
        wave.last_at = now

    def over(self, now: float) -> list[BatchWave]:
        """Return the waves that are over, each once."""
        keys = [key for key, wave in self._waves.items() if wave.is_over(now)]
        return [self._waves.pop(key) for key in keys]

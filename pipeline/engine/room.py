"""Room in flight: below the ceiling of the config, and at a server without a stated limit as much as it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.engine.adaptive import AdaptiveSlots
from pipeline.engine.slots import Slots

if TYPE_CHECKING:
    from pipeline.config.load import Provider


class Room:
    """The calls of one provider that may be in flight. `initial_level` is the number that an earlier run measured."""

    def __init__(self, provider: Provider, initial_level: int | None = None) -> None:
        self._slots = Slots(provider.concurrency)
        self.adaptive = AdaptiveSlots(provider.concurrency, initial_level) if provider.rate_limit is None else None

    @property
    def in_flight(self) -> int:
        """Calls at the server, as far as they are counted."""
        return 0 if self.adaptive is None else self.adaptive.in_flight

    async def acquire(self, priority: int) -> None:
        """Wait for room for a call."""
        await self._slots.acquire(priority)
        if self.adaptive is not None:
            try:
                await self.adaptive.acquire(priority)
            except BaseException:
                self._slots.release()
                raise

    def release(self, *, is_answered: bool = False) -> None:
        """Return the room of a call; the server is free already if its response has come."""
        self._slots.release()
        if self.adaptive is not None and not is_answered:
            self.adaptive.release()

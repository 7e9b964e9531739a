"""Hold: no call is sent to a provider while people have paused it, outside its window, or just after a long sleep."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.engine.retry import until_changed

if TYPE_CHECKING:
    from pipeline.config.opening_hours import OpeningHours

_LAST_SECONDS = 1.0
"""Of a window, in which no call is started: its first byte is on its way for a while, and clocks differ."""


_SLEPT_SECONDS = 3.0
"""Without `look`, which is called several times a second: then the process was stopped, or the machine suspended."""


class HeldBack(Exception):
    """The provider was paused, or its window closed, after a call was recorded and before its first byte was sent."""


@dataclass(frozen=True, slots=True)
class HoldReason:
    """Why no call is sent now, and until when (seconds since 1970) if that is known."""

    text: str
    until: float | None = None


class Hold:
    """Whether calls of one provider are held; whoever waits goes on when they are not."""

    def __init__(self, window: OpeningHours | None = None) -> None:
        self._is_paused = False
        self._window = window
        self._changed = asyncio.Event()
        self._span: tuple[float, float, bool] | None = None  # of the clock, and whether the window is open in it
        self._closed_at: float | None = None  # on the loop's clock, as far as it was looked at
        self._looked_at: float | None = None  # on the loop's clock

    @property
    def is_closed(self) -> bool:
        """Whether no call may be sent now."""
        return self._is_paused or self.has_slept or not self._is_in_window()

    @property
    def has_slept(self) -> bool:
        """Whether the process has slept, and nobody has looked since: what lies in the sockets is read first."""
        return self._looked_at is not None and asyncio.get_running_loop().time() - self._looked_at > _SLEPT_SECONDS

    @property
    def looked_at(self) -> float | None:
        """When `look` was called last, on the loop's clock."""
        return self._looked_at

    @property
    def reason(self) -> HoldReason | None:
        """Why no call is sent now; None if calls are sent."""
        if self._is_paused:
            return HoldReason("paused by a person")
        if self._window is None or self._is_in_window():
            return None
        now = time.time()
        return HoldReason(f"outside its window, {self._window.describe(now)}", _next_opening(self._window, now))

    def set_paused(self, *, paused: bool) -> None:
        """Pause the provider, or end that."""
        self._is_paused = paused
        self._changed.set()

    async def admit(self) -> None:
        """Wait until calls may be sent. `look` ends the wait when the window has opened."""
        while self.is_closed:
            await until_changed(self._changed, None)

    def look(self) -> float:
        """Wake those who wait if the window has opened; return for how many seconds calls had been held until now,
        once they are sent again, else 0. A sleep of the process counts.
        """
        now = asyncio.get_running_loop().time()
        if self.has_slept and self._closed_at is None:
            self._closed_at = self._looked_at
        self._looked_at = now
        if self.is_closed:
            self._closed_at = now if self._closed_at is None else self._closed_at
            return 0.0
        self._changed.set()
        closed_at, self._closed_at = self._closed_at, None
        return 0.0 if closed_at is None else now - closed_at

    def _is_in_window(self) -> bool:
        """Return whether the window is open, and stays so for the moment that a first byte takes."""
        if self._window is None:
            return True
        now = time.time()
        if self._span is None or not self._span[0] <= now < self._span[1]:  # the clock may be set back, too
            is_open = self._window.is_open(now)
            change = self._window.next_change(now)
            if is_open and change - now <= _LAST_SECONDS:
                is_open = False
            elif is_open:
                change -= _LAST_SECONDS
            self._span = (now, change, is_open)
        return self._span[2]


def _next_opening(window: OpeningHours, now: float) -> float:
    """Return when a window opens next; in its last second, when it opens again after it has closed."""
    change = window.next_change(now)
    return window.next_change(change) if window.is_open(now) else change

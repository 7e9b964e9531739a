"""Pauses after 429s: how long the next one is, and when a provider that answers with nothing else is given up."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.errors import OutageGivenUp

if TYPE_CHECKING:
    from pipeline.errors import RateLimited

_FIRST_PAUSE = 2.0  # seconds after a 429 that states no wait; each next one in a row is twice as long
_MORE = 0.05  # what a pause is longer than the server asks, at most: that is the least


class Pauses:
    """The 429s of one provider in a row."""

    def __init__(self, longest: float, give_up_after: float) -> None:
        self._backoff = Backoff(_FIRST_PAUSE, longest, jitter=(1.0, 1.0))
        self._give_up_after = give_up_after
        self._refused_since: float | None = None  # when the provider began to answer with nothing but 429s

    def on_succeeded(self) -> None:
        """A call was answered."""
        self._backoff.reset()
        self.on_interrupted()

    def on_interrupted(self) -> None:
        """The provider answered with something else, or nobody called it for a while."""
        self._refused_since = None

    def next(self, error: RateLimited) -> float:
        """Return the seconds of the pause that a 429 asks for, else of exponential backoff."""
        delay = self._backoff.next()
        asked = delay if error.retry_after is None else error.retry_after
        return random.uniform(asked, asked * (1 + _MORE) + 0.01)

    def stop_after_refusals(self, error: RateLimited) -> OutageGivenUp | None:
        """Record a 429; return a stop if nothing else was answered for too long: then the limit is zero."""
        now = asyncio.get_running_loop().time()
        self._refused_since = now if self._refused_since is None else self._refused_since
        seconds = now - self._refused_since
        if seconds < self._give_up_after:
            return None
        what = f"nothing but 429s (too many requests) for {seconds / 3600:.1f} hours: {error.message}"
        return OutageGivenUp(what, http_status=error.http_status, type=error.type, code=error.code)

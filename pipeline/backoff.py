"""Exponential backoff with jitter, for whatever is tried again."""

from __future__ import annotations

import random


class Backoff:
    """Exponential backoff with jitter: `next` returns a delay in seconds, based on twice the last, up to `longest`."""

    def __init__(self, first: float, longest: float, jitter: tuple[float, float] = (0.5, 1.0)) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._delay = first

    def next(self, longest: float | None = None) -> float:
        """Return the next delay; `longest` replaces the bound for this one and those after it."""
        self._longest = self._longest if longest is None else longest
        delay = min(self._delay, self._longest)
        self._delay = min(2 * delay, self._longest)
        return delay * random.uniform(*self._jitter)

    def reset(self) -> None:
        """Start again with the first delay."""
        self._delay = self._first

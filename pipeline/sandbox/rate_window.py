"""Enforce the rate limit of images by a strict sliding window.

A request arrives when its last byte is read, since only then `n` is known. In no window of `per_seconds` are more than
`images` images accepted; a refused request takes no place. The state is bounded by `images`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `images` in any window of `per_seconds`; zero is an account that may not make any."""

    images: int = 50
    per_seconds: float = 60.0


class SlidingWindow:
    """The images accepted in the last `per_seconds`: each arrival with its number of images."""

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.used = 0
        self._accepted: deque[tuple[float, int]] = deque()

    def admit(self, now: float, images: int) -> float | None:
        """Take `images` places at `now` (monotonic seconds), or return the seconds until they would be free.

        More images than the limit never pass; the wait is then a whole window.
        """
        self._expire(now)
        excess = self.used + images - self.limit.images
        if excess <= 0:
            self._accepted.append((now, images))
            self.used += images
            return None
        for arrival, places in self._accepted:
            excess -= places
            if excess <= 0:
                return arrival + self.limit.per_seconds - now
        return self.limit.per_seconds

    def left(self, now: float) -> int:
        """Return how many places are free at `now`."""
        self._expire(now)
        return max(0, self.limit.images - self.used)

    def _expire(self, now: float) -> None:
        # Compared as `arrival + period` on both sides, so that the wait returned above is exactly the wait needed.
        while self._accepted and self._accepted[0][0] + self.limit.per_seconds <= now:
            self.used -= self._accepted.popleft()[1]

"""Notices that others use a shared limit, halves our pace, and takes it back in steps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.load import Provider
    from pipeline.engine.call_limits import CallLimits

_STEP, _STEPS_PER_WINDOW = 1 / 8, 4
"""Part of our share that is taken back at once, and how often in a window: all of it within one more window."""


class ShareWatch:
    """Watches the limit of a provider that has a `share`. A sign of others is a 429, since our own calls keep to the
    share, or fewer images left than our own log leaves.
    """

    def __init__(self, limits: CallLimits, provider: Provider) -> None:
        limit = provider.rate_limit if provider.shared_limit is not None else None
        self._limits = limits
        self._limit = limit
        self._part = 1.0  # of our share that is in force
        self._halved_at = 0.0  # on the loop's clock, as those that follow
        self._sign_at = 0.0
        self._raised_at = 0.0
        self._news = ""

    def on_refused(self) -> None:
        """A call was refused by the rate limit."""
        self._notice("a 429 that our own calls do not explain: others use this limit")

    def on_answered(self, remaining: int | None, used: int) -> None:
        """A call was answered with so many images left in the window; `used` were our own when it was sent."""
        limit = self._limits.throttle.limit
        if remaining is None or limit is None:
            return
        room = limit.images - max(used, self._limits.throttle.used)
        if remaining < room:
            self._notice(f"{remaining} images are left where our own calls leave {room}: others use this limit")

    def step(self) -> str:
        """Take some of our share back if it is time; return why the limit has changed since the last step, or ""."""
        now, limit = asyncio.get_running_loop().time(), self._limit
        if limit is not None and self._part < 1:
            last = max(self._sign_at + limit.window, self._raised_at + limit.window / _STEPS_PER_WINDOW)
            if now >= last:
                self._part, self._raised_at = min(1.0, self._part + _STEP), now
                self._limits.set_part(self._part)
                self._news = "others leave more of the limit"
        news, self._news = self._news, ""
        return news

    def _notice(self, reason: str) -> None:
        """Halve our pace, at most once in a window; a sign within it prolongs it."""
        now, limit = asyncio.get_running_loop().time(), self._limit
        if limit is None:
            return
        self._sign_at = now
        if self._part == 1.0 or now >= self._halved_at + limit.window:
            self._part, self._halved_at = max(self._part / 2, 1 / limit.images), now
            self._limits.set_part(self._part)
            self._news = reason

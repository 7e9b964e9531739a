"""The images-per-minute limit: aiolimiter's pace, the window's guarantee, and everyone's pause after a 429.

`AsyncLimiter(50, 60)` alone lets 99 pictures through in the first minute, and serves small waiters before large ones.
So whoever is at the head of the line takes `AsyncLimiter(1, window / images)` once per picture, which spaces the
sends, and then waits until the log of the trailing window has room, which is the guarantee. A call stands in the log
from its turn on, and leaves it a window after it was really sent.
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.config import RateLimit


_LEAST_SECONDS = 0.001
"""The shortest sleep: a remainder of rounding is below the clock's own step and would be slept without end."""


class Turn:
    """Leave to send one call of `images` pictures, once. It is stamped by `sent`, or given back by `unsent`."""

    def __init__(self, throttle: Throttle, images: int) -> None:
        self._throttle = throttle
        self.images = images
        self.open = True

    def sent(self) -> None:
        """The call's first bytes leave now."""
        if self.open:
            self.open = False
            self._throttle._stamp(self.images)

    def unsent(self) -> None:
        """The call will never leave; its room is free again. Without effect on a call that was sent."""
        if self.open:
            self.open = False
            self._throttle._refund(self.images)


class Throttle:
    """First come, first served; at most `images` pictures' worth of calls in any window. None means no limit.

    Times are the event loop's.
    """

    def __init__(self, limit: RateLimit | None) -> None:
        self.limit = limit
        self._line = asyncio.Lock()  # asyncio's lock is first come, first served
        self._spacing = AsyncLimiter(1, limit.window / limit.images) if limit else None
        self._sent: list[tuple[float, int]] = []  # heap of (moment, images) within the window
        self._images = 0  # in the window: sent, or about to be
        self._changed = asyncio.Event()
        self._paused_until = 0.0

    @property
    def most(self) -> int | None:
        """Images of one call, at most; None without a limit."""
        return self.limit.images if self.limit else None

    @property
    def paused_for(self) -> float:
        """Seconds of pause that are left."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def remember(self, sent: Iterable[tuple[float, int]]) -> None:
        """Take calls of an earlier run into the log: (seconds ago, images)."""
        now = asyncio.get_running_loop().time()
        for ago, images in sent:
            self._images += images
            heapq.heappush(self._sent, (now - max(0.0, ago), images))

    def pause(self, seconds: float) -> None:
        """Let nobody through for as long, or for longer where a longer pause holds already."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    async def turn(self, images: int) -> Turn:
        """Wait for leave to send a call of `images` pictures. A cancelled wait leaves no trace in the log."""
        if self.most is not None and images > self.most:
            raise ValueError(f"{images} images in one call can never pass a limit of {self.most}")
        async with self._line:
            if self._spacing:
                for _ in range(images):
                    await self._spacing.acquire()
            while wait := self._wait(images):
                await self._sleep(wait)
            self._images += images
            return Turn(self, images)

    def _wait(self, images: int) -> float:
        """Give the seconds until it is worth looking again; 0 where there is room now."""
        if self.paused_for:
            return self.paused_for
        if self.limit is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        while self._sent and self._sent[0][0] + self.limit.window <= now:
            self._images -= heapq.heappop(self._sent)[1]
        if self._images + images <= self.limit.images:
            return 0.0
        return self._sent[0][0] + self.limit.window - now if self._sent else self.limit.window

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or less where a call was given back or stamped meanwhile."""
        seconds = max(seconds, _LEAST_SECONDS)
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _stamp(self, images: int) -> None:
        heapq.heappush(self._sent, (asyncio.get_running_loop().time(), images))
        self._changed.set()

    def _refund(self, images: int) -> None:
        self._images -= images
        self._changed.set()

"""Slots: room for a number of calls in flight; who waits for room goes by priority, then by arrival."""

from __future__ import annotations

import asyncio
import bisect
import itertools


class Slots:
    """At most `most` slots are taken at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # (-priority, arrival), the next one first
        self._arrivals = itertools.count()

    async def acquire(self, priority: int = 0) -> None:
        """Take a slot, or wait for one; a cancelled wait has no effect."""
        if not self._waiting and self.taken < self.most:
            self.taken += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (-priority, next(self._arrivals), future)
        bisect.insort(self._waiting, entry)
        self._hand_out()
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._waiting.remove(entry)
                self._hand_out()
            else:  # it was handed out, and its owner was cancelled at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Return a slot."""
        self.taken -= 1
        self._hand_out()

    def resize(self, most: int) -> None:
        """Change how many slots there are; if more are taken, none is handed out until fewer are."""
        self.most = most
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiting and self.taken < self.most:
            if self._waiting[0][2].cancelled():  # its owner has not noticed yet, and removes it then
                break
            _, _, future = self._waiting.pop(0)
            self.taken += 1
            future.set_result(None)

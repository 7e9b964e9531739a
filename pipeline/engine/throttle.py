"""The images-per-minute limit: aiolimiter's pace, the window's guarantee, and everyone's pause after a 429.

`AsyncLimiter(50, 60)` alone lets 99 pictures through in the first minute, and serves small waiters before large ones.
So a call goes when the window has room for it (`scheduler`), and takes from an aiolimiter one unit per picture, which
spaces the sends. The pace is that of the limit from the first call on, unless the window was used by an earlier run.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

from pipeline.engine.window import WindowScheduler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.config.load import RateLimit
    from pipeline.engine.window import Ticket

_CATCH_UP = 0.15
"""Of the limit: what the pace may make up for after the window, or a late timer, has held somebody up. Without it mixed
calls reach 94 % of the limit, with it 97 %; time in which nobody waited, or nobody might go, is never made up for.
"""

_LEAST_SECONDS = 0.001
"""The shortest sleep: a remainder of rounding is below the clock's own step and would be slept without end."""


class Permit:
    """Leave to send one call of `images` pictures, once. It is stamped by `sent`, or given back by `unsent`."""

    def __init__(self, throttle: Throttle, images: int, ticket: Ticket | None) -> None:
        self.images = images
        self._throttle = throttle
        self._ticket = ticket

    def sent(self) -> None:
        """The call's first bytes leave now."""
        if self._ticket is not None:
            self._throttle._sent(self._ticket)

    def unsent(self) -> None:
        """The call will never leave; its room is free again. Without effect on a call that was sent."""
        if self._ticket is not None:
            self._throttle._leave(self._ticket)


class Throttle:
    """At most `images` pictures' worth of calls in any window; None means no limit, and pauses alone. Times are the
    event loop's.
    """

    def __init__(self, limit: RateLimit | None) -> None:
        self._scheduler = WindowScheduler(limit) if limit else None
        self._pace = _pace(limit) if limit else AsyncLimiter(1)
        self._unearned = 0.0  # seconds that the pace does not make up for
        self._in_hand = False  # a unit of the pace is taken, and its call has not gone
        self._last: Ticket | None = None  # whose units are being taken
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._server: asyncio.Task[None] | None = None
        self._idle_since = -math.inf
        self._changed = asyncio.Event()
        self._paused_until = 0.0

    @property
    def limit(self) -> RateLimit | None:
        """The limit in force."""
        return self._scheduler.limit if self._scheduler else None

    @property
    def used(self) -> int:
        """Images in the window: sent, or about to be."""
        return self._scheduler.used if self._scheduler else 0

    @property
    def paused_for(self) -> float:
        """Seconds of pause that are left."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def remember(self, sent: Iterable[tuple[float, int]]) -> None:
        """Take calls of an earlier run into the log: (seconds ago, images)."""
        now = asyncio.get_running_loop().time()
        for ago, images in sent:
            if self._scheduler:
                self._scheduler.remember(now - max(0.0, ago), images)

    def pause(self, seconds: float) -> None:
        """Let nobody through for as long, or for longer where a longer pause holds already."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)
        self._changed.set()

    def lower(self, images: int, per_seconds: float | None) -> bool:
        """Hold to this limit from now on where it is lower than the one in force; say whether it is.

        `per_seconds` is None where the server did not say it. Where people chose no limit, none is adopted.
        """
        old = self.limit
        if old is None or self._scheduler is None:
            return False
        limit = replace(old, images=images, per_seconds=per_seconds or old.per_seconds)
        if images < 1 or limit.images * old.per_seconds >= old.images * limit.per_seconds:
            return False
        self._scheduler.lower(limit)
        self._pace, self._unearned = _pace(limit), math.inf
        self._changed.set()
        return True

    async def turn(self, images: int) -> Permit:
        """Wait for leave to send a call of `images` pictures, or of fewer where the limit in force allows no more.

        A cancelled wait leaves no trace.
        """
        if self._scheduler is None:
            while wait := self.paused_for:
                await self._sleep(wait)
            return Permit(self, images, None)
        ticket = self._scheduler.join(images)
        self._waiters[ticket] = asyncio.get_running_loop().create_future()
        self._changed.set()
        if self._server is None or self._server.done():
            self._begin(self._scheduler)
        try:
            await self._waiters[ticket]
        except BaseException:
            self._leave(ticket)
            raise
        finally:
            del self._waiters[ticket]
        return Permit(self, ticket.images, ticket)

    def close(self) -> None:
        """Let nobody through any more who waits now."""
        if self._server is not None:
            self._server.cancel()
        for future in self._waiters.values():
            future.cancel()

    def _begin(self, scheduler: WindowScheduler) -> None:
        self._server = asyncio.create_task(self._serve(scheduler), name="throttle")
        self._server.add_done_callback(self._served)

    async def _serve(self, scheduler: WindowScheduler) -> None:
        """Let those in line go, one after another, while there are any."""
        now = asyncio.get_running_loop().time
        self._unearned += now() - self._idle_since
        while scheduler.waiting:
            await self._open(scheduler)
            if paused := self.paused_for:
                begin = now()
                await self._sleep(paused)
                self._unearned += now() - begin
            elif (ticket := scheduler.next(now())) is None:
                await self._sleep(scheduler.look_again() - now())
            elif self._waiters[ticket].done():  # cancelled, and has not yet noticed
                scheduler.leave(ticket)
            else:
                self._waiters[ticket].set_result(None)
                self._in_hand, self._last, pace = False, ticket, self._pace
                for _ in range(ticket.images - 1):
                    await pace.acquire()
        self._idle_since = now()

    async def _open(self, scheduler: WindowScheduler) -> None:
        """Take the first unit of the next call, and before it those that nobody earned by waiting."""
        if self._unearned:
            units, self._unearned = self._unearned / scheduler.spacing, 0.0
            await self._pace.acquire(min(units, self._pace.max_rate - (not self._in_hand)))
        if not self._in_hand:
            await self._pace.acquire()
            self._in_hand = True

    def _served(self, server: asyncio.Task[None]) -> None:
        """Leave nobody waiting without end for a server that fell."""
        reason = None if server.cancelled() else server.exception()
        if reason is None:
            return
        for future in self._waiters.values():
            if not future.done():
                future.set_exception(reason)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, or less where something has changed meanwhile."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if seconds == math.inf else max(seconds, _LEAST_SECONDS)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _sent(self, ticket: Ticket) -> None:
        if self._scheduler:
            self._scheduler.sent(ticket, asyncio.get_running_loop().time())
            self._changed.set()

    def _leave(self, ticket: Ticket) -> None:
        """Give back the room of a call, and the pace that it took where nobody has gone since: it was not sent."""
        if self._scheduler is None:
            return
        granted = self._scheduler.leave(ticket)
        self._changed.set()
        if granted and ticket is self._last and not self._in_hand and self._server is not None:
            self._in_hand, self._idle_since = True, asyncio.get_running_loop().time()
            self._server.cancel()
            self._begin(self._scheduler)


def _pace(limit: RateLimit) -> AsyncLimiter:
    """Give a bucket of one picture and what may be made up for, which runs at the limit's pace."""
    units = 1 + _CATCH_UP * limit.images
    return AsyncLimiter(units, units * limit.window / limit.images)

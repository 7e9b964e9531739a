"""The images-per-minute limit: pace, sliding window, and the pause of all calls after a 429.

`AsyncLimiter(50, 60)` alone lets 99 images through in the first minute, and serves small waiters before large ones.
So a call goes when the window has room for it (`WindowScheduler`), and takes one unit per image from an aiolimiter
bucket, which spaces the sends (`Pace`). The pace is that of the limit from the first call on, unless an earlier run
used the window.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

from pipeline.engine.window import WindowScheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.config.load import RateLimit
    from pipeline.engine.window import Ticket

_LEAST_SECONDS = 0.001
"""The shortest sleep: a rounding remainder is below the clock's own resolution and would be slept for ever."""

_CATCH_UP = 0.15
"""Part of the limit that may be made up for after the window, or a late timer, has delayed a call. Without it mixed
calls reach 94 % of the limit, with it 97 %. Time in which nobody waited, or nobody might go, is never made up for.
"""

_PULL_SECONDS = 0.1
"""A gap between two calls that is not idleness: the next request of a route is taken from the ledger in it."""

_ABOUT_TO_SEND = 1.0  # seconds between the first byte of a call and the last of its headers, at most
_AWAKE_SECONDS = 0.1  # between two looks at whether the process has been found to have slept


class Pace:
    """Spaces images evenly over the window with an aiolimiter leaky bucket, one unit per image.

    The first unit of the next call is taken ahead, so that the call goes when it may.
    """

    def __init__(self, limit: RateLimit) -> None:
        units = 1 + _CATCH_UP * limit.images
        self._bucket = AsyncLimiter(units, units * limit.window / limit.images)
        self._spacing = limit.window / limit.images
        self._credit = 0.0  # seconds of credit that accrued while idle or paused
        self._holds_unit = False  # a unit is taken, and its call has not gone

    def discard(self, seconds: float) -> None:
        """Discard the credit of this many seconds, in which nobody waited or nobody might go."""
        self._credit += seconds

    async def acquire_first(self) -> None:
        """Acquire the first unit of the next call, after discarding credit that accrued while idle or paused."""
        if self._credit:
            units, self._credit = self._credit / self._spacing, 0.0
            await self._bucket.acquire(min(units, self._bucket.max_rate - (not self._holds_unit)))
        if not self._holds_unit:
            await self._bucket.acquire()
            self._holds_unit = True

    async def acquire_rest(self, images: int) -> None:
        """Hand the first unit to a call of `images` images, and acquire the units of its other images."""
        self._holds_unit = False
        for _ in range(images - 1):
            await self._bucket.acquire()

    @property
    def holds_unit(self) -> bool:
        """Whether a unit is taken for a call that has not gone."""
        return self._holds_unit

    def give_back(self) -> None:
        """Keep the unit of a call that was not sent for the next one."""
        self._holds_unit = True


class Reservation:
    """Room in the window for one call of `images` images: used by `on_sent`, or freed by `cancel`."""

    def __init__(self, throttle: Throttle, images: int, ticket: Ticket | None) -> None:
        self.images = images
        self._throttle = throttle
        self._ticket = ticket

    def on_sent(self) -> None:
        """The call's first bytes are sent now."""
        if self._ticket is not None:
            self._throttle._on_sent(self._ticket)

    def cancel(self) -> None:
        """Free the room of a call that will not be sent. No effect on a call that was sent."""
        if self._ticket is not None:
            self._throttle._withdraw(self._ticket)


class Throttle:
    """At most `limit.images` images' worth of calls in any window; without a limit, pauses alone hold calls back.

    Moments are the event loop's.
    """

    def __init__(self, limit: RateLimit | None) -> None:
        self._scheduler = WindowScheduler(limit) if limit else None
        self._pace = Pace(limit) if limit else None
        self._last: Ticket | None = None  # the call whose units are being acquired
        self._waiters: dict[Ticket, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._idle_since = -math.inf
        self._changed = asyncio.Event()
        self._paused_until = 0.0
        self.has_slept: Callable[[], bool] = lambda: False  # the process: nothing is granted before `on_woken`

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
        """Remaining seconds of the pause."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    def remember(self, sent: Iterable[tuple[float, int]]) -> None:
        """Add calls of an earlier run to the log: (seconds ago, images)."""
        now = asyncio.get_running_loop().time()
        for ago, images in sent:
            if self._scheduler:
                self._scheduler.remember(now - max(0.0, ago), images)

    def pause(self, seconds: float) -> None:
        """Hold all calls for this long, or for longer if a longer pause is in force."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)
        self._changed.set()

    def on_woken(self, asleep_since: float) -> None:
        """The process goes on after a sleep; what it was about to send then may have been sent only now."""
        if self._scheduler is not None:
            self._scheduler.postpone(asleep_since - _ABOUT_TO_SEND, asyncio.get_running_loop().time())
        self._changed.set()

    def enforce(self, limit: RateLimit) -> None:
        """Enforce another limit from now on; no effect without one, since calls were not counted."""
        if self._scheduler is None or limit == self._scheduler.limit:
            return
        self._scheduler.enforce(limit)
        self._pace = Pace(limit)
        self._pace.discard(math.inf)
        if self._task is not None and not self._task.done():  # it may wait for the old pace
            self._restart(self._task, self._scheduler)
        self._changed.set()

    async def reserve(self, images: int, priority: int = 0) -> Reservation:
        """Wait for room for a call of `images` images, or of fewer if the limit in force allows no more.

        A cancelled wait has no effect.
        """
        if self._scheduler is None or self._pace is None:
            while wait := self.paused_for:
                await self._sleep(wait)
            return Reservation(self, images, None)
        ticket = self._scheduler.enqueue(images, priority)
        self._waiters[ticket] = asyncio.get_running_loop().create_future()
        self._changed.set()
        if self._task is None or self._task.done():
            self._start(self._scheduler)
        try:
            await self._waiters[ticket]
        except BaseException:
            self._withdraw(ticket)
            raise
        finally:
            del self._waiters[ticket]
        return Reservation(self, ticket.images, ticket)

    def close(self) -> None:
        """Cancel all waiting calls."""
        if self._task is not None:
            self._task.cancel()
        for future in self._waiters.values():
            future.cancel()

    def _restart(self, task: asyncio.Task[None], scheduler: WindowScheduler) -> None:
        """Serve anew with the pace as it is now; a call that was granted stays granted."""
        task.cancel()
        self._start(scheduler)

    def _start(self, scheduler: WindowScheduler) -> None:
        self._task = asyncio.create_task(self._serve(scheduler), name="throttle")
        self._task.add_done_callback(self._propagate_failure)

    async def _serve(self, scheduler: WindowScheduler) -> None:
        """Grant queued calls one after another, as long as there are any."""
        now = asyncio.get_running_loop().time
        assert self._pace is not None
        idle = now() - self._idle_since
        self._pace.discard(idle if idle > _PULL_SECONDS else 0.0)
        while scheduler.waiting:
            pace = self._pace
            await pace.acquire_first()
            if paused := self.paused_for:
                start = now()
                await self._sleep(paused)
                self._pace.discard(now() - start)
            elif self.has_slept():
                await self._sleep(_AWAKE_SECONDS)
            elif (ticket := scheduler.grant(now())) is None:
                await self._sleep(scheduler.next_change() - now())
            elif self._waiters[ticket].done():  # cancelled, and has not noticed yet
                scheduler.withdraw(ticket)
            else:
                self._waiters[ticket].set_result(None)
                self._last = ticket
                await pace.acquire_rest(ticket.images)
        self._idle_since = now()

    def _propagate_failure(self, task: asyncio.Task[None]) -> None:
        """Pass a failure of the serving task to all waiters, so that none waits for ever."""
        reason = None if task.cancelled() else task.exception()
        if reason is None:
            return
        for future in self._waiters.values():
            if not future.done():
                future.set_exception(reason)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the time is over or something has changed."""
        self._changed.clear()
        try:
            async with asyncio.timeout(None if seconds == math.inf else max(seconds, _LEAST_SECONDS)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _on_sent(self, ticket: Ticket) -> None:
        if self._scheduler:
            self._scheduler.on_sent(ticket, asyncio.get_running_loop().time())
            self._changed.set()

    def _withdraw(self, ticket: Ticket) -> None:
        """Free the room of a call that was not sent, and keep its pace if no other call has gone since."""
        if self._scheduler is None or self._pace is None:
            return
        granted = self._scheduler.withdraw(ticket)
        self._changed.set()
        if granted and ticket is self._last and not self._pace.holds_unit and self._task is not None:
            self._pace.give_back()
            self._idle_since = asyncio.get_running_loop().time()
            self._restart(self._task, self._scheduler)

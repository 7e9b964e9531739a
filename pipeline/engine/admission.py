"""Admission control for one provider: waits for outages, server pauses and the rate limit; all waits end on a stop."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from pipeline.engine.circuit_breaker import CircuitBreaker
from pipeline.engine.retry import Backoff
from pipeline.engine.stop_policy import StopSignal
from pipeline.engine.throttle import Throttle
from pipeline.errors import OutageGivenUp, RateLimited

if TYPE_CHECKING:
    from pipeline.config.load import RateLimit
    from pipeline.engine.throttle import Reservation
    from pipeline.errors import RequestError, Stop

_FIRST_PAUSE = 2.0  # seconds after a 429 that states no wait; each next one in a row is twice as long
_MORE = 0.05  # what a pause is longer than the server asks, at most: that is the least


class Permit:
    """Permission to send one call of `images` images, once; `is_probe` if the call probes an outage."""

    def __init__(self, admission: Admission, request_pk: int, reservation: Reservation, *, is_probe: bool) -> None:
        self.images = reservation.images
        self.is_probe = is_probe
        self._admission = admission
        self._request_pk = request_pk
        self._reservation = reservation

    def sent(self) -> None:
        """The call's first bytes are sent now."""
        self._reservation.sent()

    def release(self) -> None:
        """The call is over, or will not be sent: room in the window that it did not use is free again."""
        self._reservation.cancel()
        self._admission.released(self._request_pk)


class Admission:
    """Admission control for all calls of one provider. `changed` is set whenever a wait has ended."""

    def __init__(
        self,
        limit: RateLimit | None,
        base_url: str,
        give_up_after: float,
        longest_backoff: float,
        signal: StopSignal | None = None,
    ) -> None:
        self.throttle = Throttle(limit)
        self.lowered: RateLimit | None = None  # the limit that the server stated
        self.signal = signal or StopSignal()
        self.changed = self.signal.changed
        self._breaker = CircuitBreaker(base_url, give_up_after)
        self._give_up_after = give_up_after
        self._pauses = Backoff(_FIRST_PAUSE, longest_backoff, jitter=(1.0, 1.0))
        self._waiting = 0
        self._refused_since: float | None = None  # when the provider began to answer with nothing but 429s

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a permit."""
        return self._waiting

    @property
    def resting(self) -> int:
        """Number of requests that wait for a permit, or between two attempts."""
        return self.signal.waits

    @property
    def halted(self) -> bool:
        """Whether no further call may be made."""
        return self.signal.is_set

    @property
    def down_for(self) -> float | None:
        """Seconds since the provider went down; None while it is up."""
        since = self._breaker.open_since
        return None if since is None else asyncio.get_running_loop().time() - since

    async def acquire(self, request_pk: int, images: int) -> Permit:
        """Wait until a call for `images` images may be sent, or for fewer if the limit in force allows no more.

        Raises Withdrawn when the provider is stopped. The caller releases the permit.
        """
        self._waiting += 1
        try:
            async with self.signal.interruptible():
                return await self._acquire(request_pk, images)
        except BaseException:
            self.released(request_pk)
            raise
        finally:
            self._waiting -= 1
            self.changed.set()

    async def _acquire(self, request_pk: int, images: int) -> Permit:
        while True:
            is_probe = await self._breaker.admit(request_pk)
            reservation = await self.throttle.reserve(images)
            if is_probe or self._breaker.open_since is None:
                return Permit(self, request_pk, reservation, is_probe=is_probe)
            reservation.cancel()  # the provider went down while this call was queued

    async def sleep(self, seconds: float) -> None:
        """Wait before another attempt. Raises Withdrawn when the provider is stopped."""
        async with self.signal.interruptible():
            await asyncio.sleep(seconds)

    def released(self, request_pk: int) -> None:
        """This request's call is over, or was never made: if it was to be the probe, another may be."""
        self._breaker.released(request_pk)

    def succeeded(self, request_pk: int) -> float | None:
        """Record a response; return for how many seconds the provider had been down, None if it had not."""
        self._refused_since = None
        self._pauses.reset()
        down_for = self.down_for
        self._breaker.succeeded(request_pk)
        return down_for

    def failed(self, request_pk: int, error: RequestError) -> Stop | None:
        """Record a failed call; return the stop that follows, if any."""
        if isinstance(error, RateLimited):
            return self._breaker.failed(request_pk, error) or self._given_up(error)
        self._refused_since = None
        return self._breaker.failed(request_pk, error)

    def _given_up(self, error: RateLimited) -> Stop | None:
        """Return a stop if the provider has answered with nothing but 429s for too long: its limit is zero."""
        now = asyncio.get_running_loop().time()
        self._refused_since = now if self._refused_since is None else self._refused_since
        seconds = now - self._refused_since
        if seconds < self._give_up_after:
            return None
        what = f"nothing but 429s for {seconds / 3600:.1f} hours: {error.message}"
        return OutageGivenUp(what, http_status=error.http_status, type=error.type, code=error.code)

    def pause(self, error: RateLimited) -> float:
        """Hold all calls for as long as a 429 asks, else by exponential backoff; return the seconds."""
        delay = self._pauses.next()
        asked = delay if error.retry_after is None else error.retry_after
        seconds = random.uniform(asked, asked * (1 + _MORE) + 0.01)
        self.throttle.pause(seconds)
        return seconds

    def lower(self, error: RateLimited) -> RateLimit | None:
        """Enforce the limit that a 429 states for the rest of the run if it is lower than ours; return it then."""
        if error.limit is None or not self.throttle.lower(*error.limit):
            return None
        self.lowered = self.throttle.limit
        return self.lowered

    def close(self) -> None:
        """Cancel background work."""
        self.throttle.close()

"""Leave to call a provider: its outage, pause and limit are waited out here, and a stop cuts every wait short."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from pipeline.engine.circuit_breaker import CircuitBreaker
from pipeline.engine.throttle import Throttle
from pipeline.errors import OutageGivenUp, RateLimited

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.load import RateLimit
    from pipeline.engine.throttle import Permit
    from pipeline.errors import RequestError, Stop


class Admission:
    """What all calls of one provider go through. `moved` is set whenever somebody has got through, or need not wait."""

    def __init__(self, limit: RateLimit | None, base_url: str, give_up_after: float, longest_backoff: float) -> None:
        self.throttle = Throttle(limit)
        self.halted = False
        self.lowered: RateLimit | None = None  # the limit that the server told us
        self.moved = asyncio.Event()
        self._breaker = CircuitBreaker(base_url, give_up_after)
        self._give_up_after = give_up_after
        self._longest_backoff = longest_backoff
        self._waiting = 0
        self._interruptible: set[asyncio.Task[Any]] = set()
        self._refusals = 0  # 429s in a row
        self._refused_since: float | None = None  # when the provider began to say nothing but 429, by the loop's clock

    @property
    def waiting(self) -> int:
        """Calls that wait for leave."""
        return self._waiting

    @property
    def resting(self) -> int:
        """Requests that wait for leave, or between two tries."""
        return len(self._interruptible)

    def halt(self) -> None:
        """Let nobody through any more: whoever waits, here or in `sleep`, is cancelled at once."""
        self.halted = True
        for task in self._interruptible:
            task.cancel()
        self.moved.set()

    async def leave(self, request: int, images: int) -> tuple[Permit, bool]:
        """Wait for leave to call for `images` pictures; give the turn, and whether this call is an outage's probe."""
        self._waiting += 1
        try:
            with self._interruptible_wait():
                return await self._leave(request, images)
        except asyncio.CancelledError:
            self.left(request)
            raise
        finally:
            self._waiting -= 1
            self.moved.set()

    def left(self, request: int) -> None:
        """This request's call is over, or was never made: if it was to be the probe, another may be."""
        self._breaker.released(request)

    async def _leave(self, request: int, images: int) -> tuple[Permit, bool]:
        while True:
            probe = await self._breaker.passage(request)
            turn = await self.throttle.turn(images)
            if probe or self._breaker.down_since is None:
                return turn, probe
            turn.unsent()  # the provider went away while this one stood in line

    async def sleep(self, seconds: float) -> None:
        """Wait before another try; a stop cuts it short."""
        with self._interruptible_wait():
            await asyncio.sleep(seconds)

    def answered(self, request: int) -> float | None:
        """Note a request's answer; give for how long the provider had been away, None where it was not."""
        self._refusals, self._refused_since = 0, None
        away = self.away
        self._breaker.answered(request)
        return away

    @property
    def away(self) -> float | None:
        """For how long the provider has been away, in seconds; None while it is there."""
        down_since = self._breaker.down_since
        return None if down_since is None else asyncio.get_running_loop().time() - down_since

    def failed(self, request: int, error: RequestError) -> Stop | None:
        """Note a failed call; give the stop that follows."""
        if isinstance(error, RateLimited):
            return self._breaker.failed(request, error) or self._refused_for_good(error)
        self._refused_since = None
        return self._breaker.failed(request, error)

    def _refused_for_good(self, error: RateLimited) -> Stop | None:
        """Give the stop where nothing but 429s came for too long: a limit of nothing that does not say so is one."""
        now = asyncio.get_running_loop().time()
        self._refused_since = now if self._refused_since is None else self._refused_since
        seconds = now - self._refused_since
        if seconds < self._give_up_after:
            return None
        what = f"nothing but 429s for {seconds / 3600:.1f} hours: {error.message}"
        return OutageGivenUp(what, http_status=error.http_status, type=error.type, code=error.code)

    def pause(self, error: RateLimited) -> float:
        """Hold everyone for as long as a 429 says, else for longer each time; give the seconds."""
        self._refusals += 1
        asked = error.retry_after
        if asked is None:
            asked = min(2.0 ** min(self._refusals, 30), self._longest_backoff)
        seconds = asked + random.uniform(0.0, 0.05 * asked + 0.01)  # what the server says is the least
        self.throttle.pause(seconds)
        return seconds

    def lower(self, error: RateLimited) -> RateLimit | None:
        """Adopt the limit that a 429 states where it is lower than ours, for the rest of the run; give it."""
        if error.limit is None or not self.throttle.lower(*error.limit):
            return None
        self.lowered = self.throttle.limit
        return self.lowered

    def close(self) -> None:
        """End what works for this gate in the background."""
        self.throttle.close()

    @contextlib.contextmanager
    def _interruptible_wait(self) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        if self.halted:
            raise asyncio.CancelledError
        self._interruptible.add(task)
        try:
            yield
        finally:
            self._interruptible.discard(task)

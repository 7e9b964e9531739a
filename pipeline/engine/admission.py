"""Admission control for one provider: waits for outages, server pauses and the rate limit; all waits end on a stop."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

from pipeline.engine.call_limits import CallLimits
from pipeline.engine.circuit_breaker import CircuitBreaker
from pipeline.engine.delivery_breaker import DeliveryBreaker
from pipeline.engine.hold import Hold
from pipeline.engine.parking import Parking
from pipeline.engine.pauses import Pauses
from pipeline.engine.permit import Permit
from pipeline.engine.refusal_guard import RefusalGuard
from pipeline.engine.room import Room
from pipeline.engine.shared_limit import ShareWatch
from pipeline.engine.stop_policy import StopSignal, Withdrawn
from pipeline.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.config.load import Provider, RateLimit, RetryRules
    from pipeline.engine.throttle import Throttle
    from pipeline.engine.uploads import Spool
    from pipeline.errors import RequestError, Stop
    from pipeline.ledger.queue import QueuedRequest


class Admission:
    """Admission control for all calls of one provider. `changed` is set whenever a wait has ended.

    At most `concurrency` permits are out at once. Requests that are parked, or that wait between two attempts, hold
    none, so that others are sent meanwhile.
    """

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        rules: RetryRules,
        signal: StopSignal | None = None,
        *,
        known_good: bool = False,
        spool: Spool | None = None,
        initial_level: int | None = None,
    ) -> None:
        outage = rules.outage_hours * 3600
        self.limits = CallLimits(provider.rate_limit, provider.share)
        self.others = ShareWatch(self.limits, provider)
        self.hold = Hold(provider.window)
        self.throttle.has_slept = lambda: self.hold.has_slept
        self.priorities: Mapping[int, int] = {}  # of jobs, by primary key; those that are not 0
        self.signal = signal or StopSignal()
        self.changed = self.signal.changed
        self.refusals = RefusalGuard(known_good=known_good)
        self.delivery = DeliveryBreaker(provider.name, outage)
        self._breaker = CircuitBreaker(base_url, outage, start_seconds=rules.start_minutes * 60, known_good=known_good)
        self._spool = spool
        self.room = Room(provider, initial_level)
        self._pauses = Pauses(rules.max_wait_seconds, outage)
        self._waiting = 0
        self._sleeping = 0
        self._parking = Parking(self.signal, self.changed)
        self._moving = StopSignal()  # interrupted to give requests of routes back that wait for a permit
        self._lines: dict[int, StopSignal] = {}  # by priority; interrupted to let others go first
        self.calls_ended = 0
        self.in_flight = 0  # permits that are not released

    @property
    def throttle(self) -> Throttle:
        """The provider's own throttle."""
        return self.limits.throttle

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a permit."""
        return self._waiting

    def waiting_from(self, priority: int | None) -> int:
        """Return how many calls of this priority or a higher one wait for a permit; of all, if it is None."""
        if priority is None:
            return self._waiting
        return sum(line.waits for own, line in self._lines.items() if own >= priority)

    @property
    def resting(self) -> int:
        """Number of requests that wait for a permit, or between two attempts or downloads."""
        return self.signal.waits

    @property
    def idle(self) -> int:
        """Number of requests that need no room in flight: parked, or between two attempts."""
        return self._sleeping + self.parked

    @property
    def parked(self) -> int:
        """Number of parked requests."""
        return len(self._parking)

    @property
    def halted(self) -> bool:
        """Whether no further call may be made."""
        return self.signal.is_set

    @property
    def down_for(self) -> float | None:
        """Seconds since the provider went down; None while it is up."""
        since = self._breaker.open_since
        return None if since is None else asyncio.get_running_loop().time() - since

    @property
    def given_up_in(self) -> float | None:
        """Seconds until a provider that is down is given up; None while it is up."""
        moment = self._breaker.given_up_at
        return None if moment is None else moment - asyncio.get_running_loop().time()

    @property
    def is_passable(self) -> bool:
        """Whether a call would wait for nothing but the limit, and for room in flight."""
        is_paused = self.throttle.paused_for > 0 or self.hold.is_closed
        return not is_paused and self._breaker.is_passable and self.delivery.is_passable

    def give_back(self) -> None:
        """End the waits for a permit of requests that others may serve."""
        if not self.is_passable:
            self._moving.interrupt()

    def follow_hold(self) -> None:
        """Go on if the provider is not held any more: the time in which it was is no part of an outage."""
        if self.hold.has_slept and (since := self.hold.looked_at) is not None:
            for throttle in self.limits.throttles:
                throttle.on_woken(since)
        seconds = self.hold.look()
        if seconds:
            self._breaker.exclude_seconds(seconds)
            self._pauses.on_interrupted()
            self.changed.set()

    def give_way(self, priority: int | None = None) -> None:
        """Take the requests that wait for a permit out of the line: those of a lower priority, or all."""
        for own, line in self._lines.items():
            if priority is None or own < priority:
                line.interrupt()

    async def acquire(self, request: QueuedRequest, images: int, *, returns: bool = True) -> Permit:
        """Wait until a call for `images` images may be sent, or for fewer if the limit in force allows no more.

        Raises Withdrawn when the provider is stopped, for a request that `returns` to the queue when it has to give
        way, and for a request of a route when the provider pauses or goes down. The caller releases the permit.
        """
        while True:
            try:
                return await self._acquire_in_line(request, images)
            except Withdrawn:
                if returns or request.route is not None or self.signal.is_set:
                    raise

    async def _acquire_in_line(self, request: QueuedRequest, images: int) -> Permit:
        self._waiting += 1
        held_slot = False
        try:
            priority = self.priorities.get(request.job_pk, 0)
            line = self._lines.setdefault(priority, StopSignal())
            async with self.signal.interruptible(line, *(() if request.route is None else (self._moving,))):
                await self.room.acquire(priority)
                held_slot = True
                return await self._acquire(request, images, priority)
        except BaseException:
            if held_slot:
                self.room.release()
            self.on_released(request)
            raise
        finally:
            self._waiting -= 1
            self.changed.set()

    async def _acquire(self, request: QueuedRequest, images: int, priority: int) -> Permit:
        while True:
            await self.hold.admit()
            if self._spool is not None:
                await self._spool.admit()
            await self.refusals.admit(request)
            await self.delivery.admit(request.pk)
            is_probe = await self._breaker.admit(request.pk)
            reservations = await self.limits.reserve(request.model, images, priority)
            if not self.hold.is_closed and (is_probe or not self._is_held(request)):
                self.in_flight += 1
                return Permit(
                    request,
                    reservations,
                    hold=self.hold,
                    throttle=self.throttle,
                    room=self.room,
                    on_released=functools.partial(self._on_permit_released, request),
                    is_probe=is_probe,
                )
            for reservation in reservations:  # the provider went down, was refused or held while this call was queued
                reservation.cancel()
            self._breaker.on_released(request.pk)

    def _is_held(self, request: QueuedRequest) -> bool:
        is_down = self._breaker.open_since is not None
        is_full = self._spool is not None and not self._spool.has_room
        return is_down or is_full or self.delivery.holds(request.pk) or self.refusals.holds(request)

    async def sleep(self, seconds: float) -> None:
        """Wait before another attempt, without room in flight. Raises Withdrawn when the provider is stopped."""
        self._sleeping += 1
        self.changed.set()
        try:
            await self.pause_download(seconds)
        finally:
            self._sleeping -= 1

    async def pause_download(self, seconds: float) -> None:
        """Wait before another download. Raises Withdrawn when the provider is stopped."""
        async with self.signal.interruptible():
            await asyncio.sleep(seconds)

    async def park(self, condition: Callable[[], bool]) -> bool:
        """Wait, without room in flight, as `Parking.park` does."""
        return await self._parking.park(condition)

    def unpark_all(self) -> None:
        """End all parking: nothing else is left to send."""
        self._parking.unpark_all()

    def _on_permit_released(self, request: QueuedRequest) -> None:
        self.in_flight -= 1
        self.on_released(request)
        self.on_progress()

    def on_released(self, request: QueuedRequest) -> None:
        """This request's call is over, or was never made: if it was to be a probe, another may be."""
        self._breaker.on_released(request.pk)
        self.refusals.on_released(request)
        self.changed.set()

    def on_ended(self, request: QueuedRequest) -> None:
        """A request is over, or back in the queue."""
        self.yield_probes(request)
        self.on_progress()

    def yield_probes(self, request: QueuedRequest) -> None:
        """This request probes no more, since it is over or waits itself: others that wait for it may probe."""
        self.refusals.on_ended(request)
        self.delivery.on_released(request.pk)

    def on_progress(self) -> None:
        """Something has happened that parked requests may wait for."""
        self._parking.on_progress()

    def record_success(self, request: QueuedRequest, sent_at: float | None = None) -> float | None:
        """Record a success of a call that was sent at `sent_at` (the loop's clock, now if it is None).

        Return for how many seconds the provider had been down, None if it had not.
        """
        self._pauses.on_succeeded()
        self.calls_ended += 1
        self.refusals.on_passed(request, asyncio.get_running_loop().time() if sent_at is None else sent_at)
        down_for = self.down_for
        self._breaker.on_succeeded(request.pk)
        self.on_progress()
        return down_for

    def stop_after_failure(self, request: QueuedRequest, error: RequestError) -> Stop | None:
        """Record a failed call; return the stop that follows, if any."""
        self.calls_ended += 1
        stop = self._breaker.stop_after_failure(request.pk, error)
        if isinstance(error, RateLimited):
            stop = stop or self._pauses.stop_after_refusals(error)
        else:
            self._pauses.on_interrupted()
        self.on_progress()
        self.give_back()
        return stop

    def pause(self, error: RateLimited) -> float:
        """Hold all calls for as long as a 429 asks, else by exponential backoff; return the seconds."""
        seconds = self._pauses.next(error)
        self.throttle.pause(seconds)
        self.give_back()
        return seconds

    def lower(self, request: QueuedRequest, error: RateLimited) -> RateLimit | None:
        """Enforce the limit that a 429 states for the rest of the run if it is lower than ours; return it then.

        It is the model's own if the message names the model, else the provider's.
        """
        if error.limit is None:
            return None
        is_of_model = self.throttle.limit is not None and self.refusals.names_model(request, error)
        return self.limits.lower(*error.limit, request.model if is_of_model else None)

    def close(self) -> None:
        """Cancel background work."""
        self.limits.close()

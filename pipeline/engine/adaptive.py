"""Adaptive concurrency: how many calls a server without a stated limit serves at once, measured while calls are made.

Doubled with each latency at the start while latency stays, so that images per second grow; then one more per round, as
Vegas does for TCP (Brakmo and Peterson 1994); three quarters of it when the server refuses, and then up to what it
served last.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.engine.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Hashable

FIRST_LEVEL = 8
"""Calls in flight at the beginning, before anything is known of the server."""

_LEAST_SAMPLES = 8
"""Responses of a round: fewer say little of a latency that varies."""

_SUFFERS, _MOST_QUEUED = 1 / 3, 1.5
"""Calls that may queue at the server, by their part of those in flight and by number: above both, latency suffers. A
queue of one hides the time between a response and the next call.
"""

_HEADROOM = 1.25  # calls in flight after the start, by what the server seems to serve at once
_AFTER_REFUSAL = 3 / 4
_FIRST_PROBE, _LONGEST_PROBE = 20.0, 320.0  # seconds until more than was last refused is tried again
_REFRESH_SECONDS = 30.0  # between two measurements of the latency with half of the calls in flight, while it suffers
_FOLLOWS = 3 / 4  # of the latency, with half of the calls in flight: then they were the reason


@dataclass(slots=True)
class _Round:
    """Responses to calls that were sent while up to `level` calls could be in flight; latencies by kind of call.

    Until `most` calls may be in flight, each response adds one: at the start that is the next level, whose calls
    are sent since `grown_at`.
    """

    level: int
    since: float
    most: int
    grown_at: float | None = None
    latencies: dict[Hashable, list[float]] = field(default_factory=lambda: defaultdict(list))
    samples: int = 0
    was_full: bool = False  # no slot was free: the level mattered

    @property
    def is_over(self) -> bool:
        """Whether there are enough responses."""
        return self.samples >= max(self.level, _LEAST_SAMPLES)


class AdaptiveSlots:
    """Slots for the calls in flight of one provider, as many as its server seems to serve. Moments are the loop's.

    `initial_level` is what an earlier run measured, None if none did.
    """

    def __init__(self, most: int, initial_level: int | None) -> None:
        self._most = most
        self._is_starting = initial_level is None
        first = min(most, initial_level or FIRST_LEVEL)
        self._slots = Slots(first)
        self._round = _Round(first, 0.0, min(most, 2 * first) if self._is_starting else first)
        self._base: dict[Hashable, float] = {}  # latency by kind of call, when none queued
        self._proven = initial_level or 0  # a whole round was served
        self._ceiling = math.inf  # more was refused, although it was not proven
        self._probe_at, self._probe_seconds = 0.0, _FIRST_PROBE
        self._reduced_at = -math.inf
        self._is_reduction_answered = True  # a call has succeeded since the last reduction
        self._refreshed_at = -math.inf
        self._before_refresh: tuple[int, float] | None = None  # the level, and how much longer latency was

    @property
    def measured_level(self) -> int | None:
        """The number of calls that the server seems to serve at once; None as long as that is not known."""
        if self._before_refresh is not None:
            return self._before_refresh[0]
        return None if self._is_starting and self._proven < self._most else self._round.level

    @property
    def in_flight(self) -> int:
        """Calls in flight."""
        return self._slots.taken

    @property
    def room(self) -> int:
        """Calls that may be sent now."""
        return max(0, self._slots.most - self._slots.taken)

    async def acquire(self, priority: int) -> None:
        """Take a slot, or wait for one."""
        if self.room <= 1:
            self._round.was_full = True
        await self._slots.acquire(priority)

    def release(self) -> None:
        """Return a slot."""
        self._slots.release()

    def on_answered(self, kind: Hashable, sent_at: float, latency: float) -> None:
        """A call of this kind has succeeded after so many seconds."""
        self._is_reduction_answered = True
        if self._slots.most < self._round.most:
            self._grow(asyncio.get_running_loop().time())
        if sent_at >= self._round.since:
            self._round.latencies[kind].append(latency)
            self._round.samples += 1
            if self._round.is_over:
                self._end_round(self._round)

    def _grow(self, now: float) -> None:
        """Allow one more call in flight; calls that were sent with fewer than the level do not count."""
        self._slots.resize(self._slots.most + 1)
        if self._slots.most <= self._round.level and not self._is_starting:
            self._round.since = now
        elif self._slots.most == self._round.level + 1:
            self._round.grown_at = now

    def reduce_after_refusal(self, sent_at: float, in_flight: int) -> bool:
        """Reduce the calls in flight after a refusal of a call that was sent when `in_flight` were; return whether that
        number explains the refusal.

        Refusals of calls that were sent before the last reduction are of the same burst.
        """
        if in_flight > self._proven:
            self._ceiling = min(self._ceiling, max(1, in_flight - 1))
        else:
            self._proven = in_flight - 1
        if self._is_starting:  # the others are being served, although not all of them have been yet
            self._proven = max(self._proven, in_flight - 1)
        if sent_at < self._reduced_at:
            self._recover(self._slots.most)
            return True
        is_explained = self._slots.most > 1 and self._is_reduction_answered
        if math.isfinite(self._reduced_at):
            self._probe_seconds = min(2 * self._probe_seconds, _LONGEST_PROBE)
        self._is_starting, self._is_reduction_answered, self._before_refresh = False, False, None
        self._reduced_at = asyncio.get_running_loop().time()
        self._probe_at = self._reduced_at + self._probe_seconds
        self._recover(int(self._slots.most * _AFTER_REFUSAL))
        return is_explained

    def _recover(self, most: int) -> None:
        """Go on with so many calls in flight, and one more with each response up to what was served."""
        served = int(min(self._ceiling, max(1, self._proven)))
        self._slots.resize(max(1, min(most, served)))
        level = max(self._slots.most, served)
        self._round = _Round(level, asyncio.get_running_loop().time(), level)

    def _end_round(self, ended: _Round) -> None:
        """Decide how many calls may be in flight in the next round."""
        if ended.was_full:
            self._proven = max(self._proven, ended.level)
        ratio = self._ratio(ended)
        suffers = ended.level * (1 - 1 / ratio) > max(_MOST_QUEUED, ended.level * _SUFFERS)
        if self._before_refresh is not None:
            self._end_refresh(ended, ratio, *self._before_refresh)
        elif self._is_starting and suffers:
            self._is_starting = False
            self._begin(math.ceil(_HEADROOM * ended.level / ratio))
        elif self._is_starting:
            self._begin_starting(ended)
        elif not suffers:
            self._begin(self._next_level(ended))
        elif asyncio.get_running_loop().time() < self._refreshed_at + _REFRESH_SECONDS:
            self._begin(ended.level)
        else:  # it may be longer for other reasons
            self._before_refresh = (ended.level, ratio)
            self._begin(ended.level // 2)

    def _begin_starting(self, ended: _Round) -> None:
        """Begin a round of twice the calls in flight if all slots were taken; those since the growth count."""
        now = asyncio.get_running_loop().time()
        level = min(self._most, 2 * ended.level) if ended.was_full else ended.level
        since = now if level == ended.level or ended.grown_at is None else ended.grown_at
        self._round = _Round(level, since, min(self._most, 2 * level), now if self._slots.most > level else None)

    def _next_level(self, ended: _Round) -> int:
        """Return one more, if that may be served: not what was refused, until it is time to try it again."""
        if not ended.was_full:
            return ended.level
        if ended.level > self._ceiling:
            self._ceiling, self._probe_seconds = math.inf, _FIRST_PROBE
        if ended.level >= self._ceiling and asyncio.get_running_loop().time() < self._probe_at:
            return ended.level
        return ended.level + 1

    def _ratio(self, ended: _Round) -> float:
        """Return by which factor latency is longer than where no call queued, over all kinds of calls."""
        total = expected = 0.0
        for kind, latencies in ended.latencies.items():
            mean = sum(latencies) / len(latencies)
            base = self._base.get(kind)
            if base is None or (mean < base and len(latencies) >= _LEAST_SAMPLES):
                base = self._base[kind] = mean
            total += sum(latencies)
            expected += base * len(latencies)
        return max(1.0, total / expected) if expected > 0 else 1.0

    def _end_refresh(self, ended: _Round, ratio: float, level: int, before: float) -> None:
        """Go on where this was; if latency has not followed the calls in flight, it is that of the server itself."""
        self._before_refresh, self._refreshed_at = None, asyncio.get_running_loop().time()
        if ratio > before * _FOLLOWS:
            for kind, latencies in ended.latencies.items():
                self._base[kind] = sum(latencies) / len(latencies)
        self._begin(level)

    def _begin(self, level: int) -> None:
        """Begin a round with so many calls in flight; responses to calls that were sent with as many count."""
        level = max(1, min(level, self._most))
        since = self._round.since if level == self._slots.most else asyncio.get_running_loop().time()
        self._slots.resize(level)
        self._round = _Round(level, since, level)

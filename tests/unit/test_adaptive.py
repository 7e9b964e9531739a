"""Calls in flight adapt to what a server serves at once: nearly as fast as the best fixed number, and few refused."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.adaptive import FIRST_LEVEL, AdaptiveSlots
from tests.support.virtual_time import run

if TYPE_CHECKING:
    from collections.abc import Callable

GAP = 0.01  # seconds between a response and the next call


@dataclass
class Server:
    """Serves so many calls at once, each for as long as `latency` says; others wait, or are refused."""

    capacity: int
    latency: Callable[[], float]
    refuses: bool = False
    inside: int = 0
    free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.free = asyncio.Semaphore(self.capacity)

    async def serve(self) -> bool:
        """Serve a call; return whether it was not refused."""
        if self.refuses and self.free.locked():
            await asyncio.sleep(0.002)
            return False
        async with self.free:
            await asyncio.sleep(self.latency())
        return True


@dataclass
class Tally:
    """What became of the calls of some seconds."""

    answered: int = 0
    refused: int = 0

    @property
    def share_refused(self) -> float:
        """The part of all calls that was refused."""
        return self.refused / (self.answered + self.refused)


async def measure(server: Server, slots: AdaptiveSlots | None, warm: float, seconds: float, fixed: int = 0) -> Tally:
    """Call a server as fast as adaptive slots, or a fixed number of callers, allow; count after the first seconds."""
    now, tally = asyncio.get_running_loop().time, Tally()
    begin = now()

    async def call() -> None:
        while True:
            if slots is not None:
                await slots.acquire(0)
            await asyncio.sleep(GAP)
            sent_at, in_flight = now(), slots.in_flight if slots is not None else 0
            is_served = await server.serve()
            if slots is not None and is_served:
                slots.on_answered("kind", sent_at, now() - sent_at)
            elif slots is not None:
                slots.reduce_after_refusal(sent_at, in_flight)
            if slots is not None:
                slots.release()
            if now() - begin >= warm:
                tally.answered += is_served
                tally.refused += not is_served

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(warm + seconds), asyncio.TaskGroup() as callers:
            for _ in range(fixed or 110):
                callers.create_task(call())
    return tally


def best_fixed(make: Callable[[], Server], capacity: int) -> float:
    """Return the calls a second of the best fixed number of callers."""
    rates = []
    for number in (capacity, capacity + 2, 2 * capacity):

        async def main(number: int = number) -> float:
            return (await measure(make(), None, 10.0, 40.0, fixed=number)).answered / 40

        rates.append(run(main()))
    return max(rates)


@pytest.mark.parametrize(("capacity", "latency"), [(1, 0.2), (8, 0.5), (32, 1.0)])
def test_within_a_minute_it_is_nearly_as_fast_as_the_best_fixed_number(capacity: int, latency: float) -> None:
    def make() -> Server:
        return Server(capacity, lambda: latency)

    async def main() -> tuple[Tally, AdaptiveSlots]:
        slots = AdaptiveSlots(1024, None)
        return await measure(make(), slots, 60.0, 40.0), slots

    tally, slots = run(main())
    assert tally.answered / 40 >= 0.95 * best_fixed(make, capacity)
    assert slots.measured_level is not None
    assert capacity <= slots.measured_level <= max(8, 3 * capacity), "latency does not suffer beyond need"


@pytest.mark.parametrize(("capacity", "latency"), [(1, 0.2), (8, 0.5), (32, 1.0)])
def test_of_a_server_that_refuses_beyond_its_capacity_too_and_a_tenth_is_refused_at_most(
    capacity: int, latency: float
) -> None:
    def make() -> Server:
        return Server(capacity, lambda: latency, refuses=True)

    async def main() -> tuple[Tally, Tally]:
        first = await measure(make(), AdaptiveSlots(1024, None), 0.0, 60.0)
        return first, await measure(make(), AdaptiveSlots(1024, None), 60.0, 100.0)

    first, later = run(main())
    assert first.share_refused <= 0.1
    assert later.share_refused <= 0.02
    ideal = capacity / (latency + GAP)
    assert later.answered / 100 >= 0.95 * ideal


@pytest.mark.parametrize("capacity", [8, 32])
def test_latency_that_varies_hinders_nobody(capacity: int) -> None:
    chance = random.Random(7)

    def make() -> Server:
        return Server(capacity, lambda: chance.uniform(0.5, 4.0))

    async def main() -> Tally:
        return await measure(make(), AdaptiveSlots(1024, None), 120.0, 150.0)

    assert run(main()).answered / 150 >= 0.95 * capacity / 2.25


def test_a_server_without_bounds_is_used_as_far_as_the_config_allows() -> None:
    async def main() -> tuple[Tally, AdaptiveSlots]:
        slots = AdaptiveSlots(100, None)
        return await measure(Server(10**6, lambda: 1.0), slots, 60.0, 50.0), slots

    tally, slots = run(main())
    assert slots.measured_level == 100
    assert tally.answered / 50 >= 0.95 * 100 / (1.0 + GAP)


def test_at_the_start_each_latency_doubles_the_calls_in_flight() -> None:
    async def main() -> Tally:
        return await measure(Server(10**6, lambda: 1.0), AdaptiveSlots(64, None), 0.0, 5.0 * (1.0 + GAP))

    assert run(main()).answered >= 8 + 16 + 32 + 64


def test_a_server_that_becomes_slow_by_itself_keeps_its_calls() -> None:
    slow = False

    async def main() -> int | None:
        nonlocal slow
        slots = AdaptiveSlots(64, None)
        server = Server(10**6, lambda: 3.0 if slow else 1.0)
        measuring = asyncio.create_task(measure(server, slots, 0.0, 400.0))
        await asyncio.sleep(30)
        slow = True
        await measuring
        return slots.measured_level

    assert run(main()) == 64


def test_a_server_whose_capacity_shrinks_is_followed() -> None:
    async def main() -> tuple[Tally, int | None]:
        slots, server = AdaptiveSlots(1024, None), Server(32, lambda: 1.0, refuses=True)
        measuring = asyncio.create_task(measure(server, slots, 60.0, 90.0))
        await asyncio.sleep(50)
        server.free = asyncio.Semaphore(8)
        return await measuring, slots.measured_level

    tally, found = run(main())
    assert found in {8, 9}
    assert tally.share_refused <= 0.05


async def test_what_an_earlier_run_found_is_where_the_next_begins() -> None:
    assert AdaptiveSlots(1024, 37).room == 37
    assert AdaptiveSlots(16, 37).room == 16
    assert AdaptiveSlots(1024, None).room == FIRST_LEVEL
    assert AdaptiveSlots(2, None).room == 2
    assert AdaptiveSlots(1024, None).measured_level is None, "nothing is known yet"


async def test_a_burst_of_refusals_reduces_once_and_what_calls_in_flight_cannot_explain_is_said() -> None:
    slots = AdaptiveSlots(1024, 16)
    begin = asyncio.get_running_loop().time() - 1
    assert slots.reduce_after_refusal(begin, 16), "sixteen at once may be too many"
    assert slots.reduce_after_refusal(begin, 15)
    assert slots.reduce_after_refusal(begin, 14)
    assert slots.room == 12, "three quarters"
    later = asyncio.get_running_loop().time() + 1
    assert not slots.reduce_after_refusal(later, 12), "again, and nothing has succeeded since"
    slots.on_answered("kind", later + 1, 0.5)
    alone = AdaptiveSlots(1, None)
    assert not alone.reduce_after_refusal(begin, 1), "one call cannot be too many"
    assert math.isclose(alone.room, 1)

"""Slots are handed out by priority and arrival, and a cancelled wait takes none."""

from __future__ import annotations

import asyncio

from pipeline.engine.slots import Slots
from tests.support.workbench import until


async def test_a_higher_priority_goes_first_and_equal_ones_in_order() -> None:
    slots, went = Slots(1), []
    await slots.acquire()

    async def work(name: str, priority: int) -> None:
        await slots.acquire(priority)
        went.append(name)
        slots.release()

    tasks = [asyncio.create_task(work(*one)) for one in (("a", 0), ("b", 0), ("high", 3), ("low", -1))]
    await asyncio.sleep(0)
    slots.release()
    await asyncio.gather(*tasks)
    assert went == ["high", "a", "b", "low"]
    assert slots.taken == 0


async def test_a_cancelled_wait_takes_no_slot_whenever_it_is_cancelled() -> None:
    slots = Slots(1)
    await slots.acquire()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    slots.release()  # before the first one has noticed
    await until(lambda: waiting[0].done() and waiting[1].done())
    assert (waiting[0].cancelled(), waiting[1].cancelled(), slots.taken) == (True, False, 1)
    slots.release()
    waiting[2].cancel()  # at the moment at which it gets the slot
    await until(waiting[2].done)
    assert (waiting[2].cancelled(), slots.taken) == (True, 0)

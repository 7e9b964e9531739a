"""The room for lines of batches that are decoded and stored at the same time."""

from __future__ import annotations

import asyncio

from pipeline.engine.batches.line_room import LineRoom

MIB = 2**20


async def _waits(room: LineRoom, size: int) -> bool:
    """Take room in a task, and return whether it has to wait."""
    task = asyncio.create_task(room.take(size))
    for _ in range(5):
        await asyncio.sleep(0)
    if task.done():
        return False
    task.cancel()
    return True


async def test_bytes_and_lines_are_bounded() -> None:
    room = LineRoom()
    await room.take(20 * MIB)
    assert await _waits(room, 5 * MIB)
    assert not await _waits(room, 4 * MIB)
    room.give(20 * MIB)
    assert not await _waits(room, 5 * MIB)
    full = LineRoom()
    for _ in range(16):
        await full.take(1)
    assert await _waits(full, 1)


async def test_a_line_that_is_too_large_for_all_is_worked_on_alone() -> None:
    room = LineRoom()
    await room.take(99 * MIB)
    assert await _waits(room, 1)


async def test_all_who_wait_go_on_when_there_is_room() -> None:
    room = LineRoom()
    await room.take(99 * MIB)
    tasks = [asyncio.create_task(room.take(1)) for _ in range(3)]
    await asyncio.sleep(0)
    room.give(99 * MIB)
    await asyncio.gather(*tasks)

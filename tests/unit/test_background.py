"""Tasks beside a block end with it, and it ends with an error of theirs."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.background import background_tasks
from pipeline.errors import LedgerError


async def _fail(error: Exception) -> None:
    await asyncio.sleep(0)
    raise error


async def test_an_error_of_a_task_ends_the_block_at_once() -> None:
    bug = TypeError("a bug")

    async def work() -> None:
        async with background_tasks() as tasks:
            tasks.create_task(_fail(bug))
            await asyncio.Event().wait()

    with pytest.raises(TypeError) as raised:
        await work()
    assert raised.value is bug
    current = asyncio.current_task()
    assert current is not None
    assert not current.cancelling()


async def test_an_error_of_the_block_is_raised_as_it_is() -> None:
    error = LedgerError("the ledger is damaged")

    async def work() -> None:
        async with background_tasks() as tasks:
            tasks.create_task(asyncio.Event().wait())
            raise error

    with pytest.raises(LedgerError) as raised:
        await work()
    assert raised.value is error


async def test_tasks_are_cancelled_at_the_end_of_the_block() -> None:
    async with background_tasks() as tasks:
        task = tasks.create_task(asyncio.Event().wait())
    assert task.cancelled()


async def test_a_cancelled_block_is_cancelled() -> None:
    async def work() -> None:
        async with background_tasks():
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

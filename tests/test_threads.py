"""Work in threads comes back as it is, and there are few of them."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from pipeline.engine.threads import Threads


async def test_what_a_thread_gives_or_raises_comes_to_whoever_awaits_it() -> None:
    def pair(one: int, *, two: int) -> tuple[int, int]:
        return one, two

    with Threads() as threads:
        assert await threads.run(pair, 1, two=2) == (1, 2)
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        assert await threads.run(threading.get_ident) != threading.get_ident()


async def test_there_are_few_threads_and_what_is_more_waits() -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        go.wait()

    cores = os.cpu_count() or 1
    with Threads() as threads:
        waiting = [threads.run(work) for _ in range(cores + 3)]
        for _ in range(cores + 1):
            assert await asyncio.to_thread(begun.acquire, timeout=20)
        assert not begun.acquire(blocking=False)
        go.set()
        await asyncio.gather(*waiting)

"""What the workers of one provider share."""

from __future__ import annotations

import asyncio
import os
import threading

from pipeline.engine.caller import image_threads


async def test_there_are_few_threads_and_what_is_more_waits() -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        go.wait()

    cores = os.cpu_count() or 1
    with image_threads() as threads:
        waiting = [asyncio.get_running_loop().run_in_executor(threads, work) for _ in range(cores + 3)]
        for _ in range(cores + 1):
            assert await asyncio.to_thread(begun.acquire, timeout=20)
        assert not begun.acquire(blocking=False)
        go.set()
        await asyncio.gather(*waiting)

"""Work in threads comes back as it is, and its threads give way to the event loop."""

from __future__ import annotations

import os
import sys
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


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no priority of its own here")
async def test_the_threads_have_a_lower_priority_than_the_loop_and_the_loop_keeps_its_own() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with Threads() as threads:
        theirs = await threads.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert theirs > before
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before

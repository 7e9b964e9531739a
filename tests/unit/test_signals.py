"""The second signal ends a process, even if what it interrupts does not end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


def _ended(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end in a process of its own."""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)


STUCK = """
import asyncio, hashlib, os
from pipeline.signals import Shutdown, ending_process

async def main():
    with Shutdown().listening(lambda number: os.kill(os.getpid(), number)):
        os.kill(os.getpid(), NUMBER)
        try:
            await asyncio.sleep(60)
        finally:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)

with ending_process(lambda: print("last words", flush=True)):
    asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_main_thread_that_does_not_end_is_ended_with_the_number_of_the_signal(number: signal.Signals) -> None:
    script = STUCK.replace("NUMBER", str(int(number)))
    ended = _ended(script)
    assert (ended.returncode, ended.stdout) == (128 + number, "last words\n"), ended.stderr


INTERRUPTED = """
import asyncio, os, signal, time, weakref
from pipeline.signals import Shutdown, ending_process

class Thing:
    pass

async def main():
    with Shutdown().listening(lambda number: print("stop", number.name)):
        pass

with ending_process(lambda: None):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing  # an exception in the callback is discarded
    asyncio.run(main())
"""


def test_a_signal_whose_interrupt_python_discards_is_not_lost() -> None:
    ended = _ended(INTERRUPTED)
    assert "Exception ignored" in ended.stderr
    assert (ended.returncode, ended.stdout) == (0, "stop SIGINT\n"), ended.stderr


TWICE = """
import asyncio, os
from pipeline.signals import Shutdown, ending_process

async def main():
    stopped = asyncio.Event()

    def stop(number):
        print("stop", number.name)
        stopped.set()

    with Shutdown().listening(stop):
        os.kill(os.getpid(), NUMBER)
        os.kill(os.getpid(), NUMBER)  # as `timeout` and a terminal that is closed do
        await stopped.wait()

with ending_process(lambda: print("last words", flush=True)):
    asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_that_is_sent_to_a_process_and_to_its_group_is_one(number: signal.Signals) -> None:
    script = TWICE.replace("NUMBER", str(int(number)))
    ended = _ended(script)
    assert (ended.returncode, ended.stdout) == (0, f"stop {number.name}\n"), ended.stderr


AFTER_THE_RUN = """
import asyncio, hashlib, os
from pipeline.signals import Shutdown, ending_process

async def main():
    with Shutdown().listening(lambda number: print("stop", number.name, flush=True)):
        os.kill(os.getpid(), 15)
        await asyncio.sleep(0.1)
    with Shutdown().listening(lambda number: print("not a first one")):
        thread = asyncio.create_task(asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", b"", b"", 1_000_000_000))
        await asyncio.sleep(0.1)
        os.kill(os.getpid(), 15)
        await thread

with ending_process(lambda: print("last words", flush=True)):
    asyncio.run(main())
"""


def test_the_second_signal_ends_the_process_also_in_a_later_part_of_the_command() -> None:
    ended = _ended(AFTER_THE_RUN)
    assert (ended.returncode, ended.stdout) == (143, "stop SIGTERM\nlast words\n"), ended.stderr

"""The second signal ends a process, even if what it interrupts does not end."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (128 + number, "last words\n"), ended.stderr

"""When an exchange times out, and what a suspension of the process changes; in virtual time."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from pipeline.client.timeout import Timeout
from tests.support.virtual_time import VirtualLoop, run

if TYPE_CHECKING:
    from collections.abc import Awaitable


def now() -> float:
    return asyncio.get_running_loop().time()


def suspend(seconds: float) -> None:
    """Advance the clock while the event loop does nothing, as while the process is suspended."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now += seconds


async def seconds_until_timeout(block: Awaitable[None], total: float, silence: float) -> float:
    begin = now()
    with pytest.raises(TimeoutError):
        async with Timeout(total, silence):
            await block
    return now() - begin


def test_it_expires_after_its_seconds_or_after_silence() -> None:
    async def main() -> None:
        assert await seconds_until_timeout(asyncio.sleep(60), 5, 10) == pytest.approx(5, abs=0.01)
        assert await seconds_until_timeout(asyncio.sleep(60), 10, 5) == pytest.approx(5, abs=0.01)

    run(main())


def test_progress_ends_a_silence_but_not_the_total() -> None:
    async def main() -> None:
        async def trickle() -> None:
            async with Timeout(20, 5) as limit:
                while True:
                    await asyncio.sleep(4)
                    limit.progressed()

        begin = now()
        with pytest.raises(TimeoutError):
            await trickle()
        assert now() - begin == pytest.approx(20, abs=0.01)

    run(main())


@pytest.mark.parametrize("seconds", [3600, 5.5], ids=["long", "until just after the deadline"])
def test_what_arrived_while_the_process_was_suspended_is_read(seconds: float) -> None:
    async def main() -> None:
        mine, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=mine)
            async with Timeout(5):
                theirs.send(b"whole")
                suspend(seconds)
                assert await reader.readexactly(5) == b"whole"
                await asyncio.sleep(1)  # as for the rest of a large response
            writer.close()

    run(main())


def test_a_loop_that_is_always_late_does_not_put_off_a_timeout_for_ever() -> None:
    async def main() -> None:
        async def busy() -> None:
            while True:
                suspend(0.3)
                await asyncio.sleep(0)

        assert await seconds_until_timeout(busy(), 5, 10) == pytest.approx(10.5, abs=1)

    run(main())


def test_if_nothing_arrived_while_the_process_was_suspended_it_expires_soon_after() -> None:
    async def main() -> None:
        async def trickle() -> None:
            async with Timeout(5, 2) as limit:
                suspend(3600)
                while True:
                    await asyncio.sleep(1)
                    limit.progressed()

        begin = now()
        with pytest.raises(TimeoutError):
            await trickle()
        assert now() - begin == pytest.approx(3610, abs=0.1)

    run(main())


def test_an_error_of_the_block_is_not_replaced_and_no_timer_is_left() -> None:
    async def main() -> None:
        async def fail() -> None:
            async with Timeout(5):
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        await asyncio.sleep(60)

    run(main())

"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

TURN_SECONDS = 1e-6
"""What a turn of the loop takes; without it, a remainder of rounding would be waited for without end."""


class _NoWait(selectors.DefaultSelector):
    """Waits for nothing, and moves the loop's clock by the seconds that it was asked to wait."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.steps += 1
        self._loop.now += TURN_SECONDS
        ready = super().select(0)
        if timeout is None and not ready:
            raise RuntimeError("everyone waits, and no timer is set: this would hang for ever")
        if timeout and not ready:
            self._loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`steps` counts the loop's turns, so that a busy loop shows."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self.steps = 0
        super().__init__(_NoWait(self))

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T], *, start: float = 1000.0) -> T:
    """Run `main` in virtual time, from a clock that stands at `start`."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
        return runner.run(main)


def steps() -> int:
    """Give how many turns the running loop has taken."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.steps

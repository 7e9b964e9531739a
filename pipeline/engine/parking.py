"""Parking: requests that wait, without room in flight, for something that other requests bring about."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.engine.stop_policy import StopSignal


class Parking:
    """The parked requests of one provider, each with the condition that it waits for."""

    def __init__(self, signal: StopSignal, changed: asyncio.Event) -> None:
        self._signal = signal
        self._changed = changed
        self._parked: dict[asyncio.Future[bool], Callable[[], bool]] = {}

    def __len__(self) -> int:
        return len(self._parked)

    async def park(self, condition: Callable[[], bool]) -> bool:
        """Wait until `condition` holds; return False if there is nothing left that could make it hold.

        Raises Withdrawn when the provider is stopped.
        """
        if condition():
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._parked[future] = condition
        self._changed.set()
        try:
            async with self._signal.interruptible():
                return await future
        finally:
            del self._parked[future]

    def unpark_all(self) -> None:
        """End all parking: nothing else is left to send."""
        self._unpark(lambda _: True, result=False)

    def on_progress(self) -> None:
        """Something has happened that parked requests may wait for."""
        self._unpark(lambda condition: condition(), result=True)

    def _unpark(self, is_over: Callable[[Callable[[], bool]], bool], *, result: bool) -> None:
        for future, condition in self._parked.items():
            if not future.done() and is_over(condition):
                future.set_result(result)

"""What takes the processor for milliseconds → threads that give way to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

P = ParamSpec("P")
T = TypeVar("T")

_BEYOND_CORES = 2  # threads that wait for a disk while the others use every core
_NICE = 4
"""On Linux a thread has a priority of its own. Six threads of the loop's own priority kept it waiting for up to 37 ms
(99th percentile, pictures of 2.6 MB on two cores), these for 9 to 22; more would give way to other programs too.
"""


class Threads:
    """A context manager over the threads of one provider's pictures."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor((os.cpu_count() or 1) + _BEYOND_CORES, "pictures", initializer=_give_way)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Run `work` in a thread; the result, or what it raises, comes to whoever awaits it."""
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))


def _give_way() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)

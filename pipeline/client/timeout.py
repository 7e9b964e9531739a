"""Timeout of an exchange that does not expire because the process was suspended."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_LATE = 1.0  # seconds by which a timer fires late if the process was suspended meanwhile
_SLIGHTLY_LATE = 0.1  # seconds: as if it was busy, or was suspended until just after the deadline
_GRACE = 10.0  # seconds in which what has arrived during the suspension is read


class Timeout:
    """Raises TimeoutError if its block takes longer than `total` seconds, or `silence` seconds without progress.

    If the process was suspended when a deadline passed (SIGSTOP, a sleeping laptop, a virtual machine that is paused),
    what lies in the sockets is read first: the response to a paid call may have arrived in time.
    """

    def __init__(self, total: float, silence: float = math.inf) -> None:
        self._total = total
        self._silence = silence
        self._limit = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._silent_since = 0.0
        self._has_grace = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._silent_since = self._loop.time()
        self._end = self._silent_since + self._total
        await self._limit.__aenter__()
        self._arm(self._next_due())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def progressed(self) -> None:
        """Something has arrived: the silence begins again."""
        self._silent_since = self._loop.time()  # the timer stays: it looks at this when it fires

    def expired(self) -> bool:
        """Return whether the block has taken too long, or was silent for too long."""
        return self._limit.expired()

    def _next_due(self) -> float:
        return min(self._end, self._silent_since + self._silence)

    def _arm(self, due: float) -> None:
        self._due = due
        self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        if now - self._due > _LATE:
            self._end = max(self._end, now + _GRACE)
            self._arm(now + _GRACE)
        elif self._next_due() > now:
            self._arm(self._next_due())
        elif now - self._due > _SLIGHTLY_LATE and not self._has_grace:
            self._has_grace = True
            self._arm(now + min(_GRACE, self._total))
        else:
            self._limit.reschedule(now)

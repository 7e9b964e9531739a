"""Unpaid retry: repeats what asks for no picture until the provider answers, with the waits of all other retries."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import OutageGivenUp, TryAgain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.engine.batches.context import BatchContext
    from pipeline.errors import RequestError

_FIRST_WAIT = 0.5  # seconds
_MOST_WAITS = 3  # of a run that is not to wait
_REACTION = 1.0  # seconds after which the end of the exchange is noticed


class UnpaidRetry:
    """The waits of one exchange with a provider that does not answer, or answers with a fault of its own.

    They end with Withdrawn once `is_over` returns true, and after a few in a run that is not to wait.
    """

    def __init__(self, context: BatchContext, is_over: Callable[[], bool] = lambda: False) -> None:
        self._is_over = is_over
        self._hours = context.retry.outage_hours
        self._backoff = Backoff(_FIRST_WAIT, max(_FIRST_WAIT, min(context.retry.max_wait_seconds, 60.0)))
        self._since: float | None = None
        self._has_time = context.waits
        self._waits = 0

    async def wait(self, error: RequestError) -> None:
        """Wait before the next try. Raises the error if time cannot help, OutageGivenUp after an outage, Withdrawn."""
        if not isinstance(error, TryAgain) or error.deterministic:
            raise error
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > self._hours * 3600:
            what = f"the provider has not answered about its batches for {self._hours:g} hours: {error.message}"
            raise OutageGivenUp(what, http_status=error.http_status, type=error.type, code=error.code)
        self._waits += 1
        if self._waits > _MOST_WAITS and not self._has_time:
            raise Withdrawn
        until = now + max(self._backoff.next(), error.retry_after or 0.0)
        while (left := until - time.monotonic()) > 0:
            if self._is_over():
                raise Withdrawn
            await asyncio.sleep(min(left, _REACTION))

    def reset(self) -> None:
        """The provider has answered."""
        self._since = None
        self._backoff.reset()

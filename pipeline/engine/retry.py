"""tenacity: which errors are tried again, how long after, and how often."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from pipeline.errors import NotSent, RateLimited, RequestError, TryAgain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from pipeline.config import RetryRules

FIRST_WAIT = 1.0
"""Seconds before the second try, at most; each next wait may be twice as long."""

_JITTER = 0.05  # above what the server asks, so that those who were told the same do not come back together


def retrying(
    rules: RetryRules,
    sleep: Callable[[float], Awaitable[None]],
    counts: Callable[[RequestError], bool],
    before_sleep: Callable[[RetryCallState], None],
) -> AsyncRetrying:
    """Build the loop of one request in one run. `counts` says whether an error counts against `rules.attempts`.

    The last error comes out as it is.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(TryAgain),
        stop=_StopAfterCounted(rules.attempts, counts),
        wait=_WaitAsAsked(rules.max_wait_seconds),
        sleep=sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


class _StopAfterCounted(stop_base):
    """Stops at the n-th error that counts; what was free may be tried for ever."""

    def __init__(self, most: int, counts: Callable[[RequestError], bool]) -> None:
        self._left = most
        self._counts = counts

    def __call__(self, state: RetryCallState) -> bool:
        self._left -= self._counts(_error(state))
        return self._left <= 0


class _WaitAsAsked(wait_base):
    """Waits as long as the server says, else with growing, random waits. Where the throttle or the outage already holds
    everyone, the request itself does not wait besides, and its own waits do not grow.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._next = FIRST_WAIT

    def __call__(self, state: RetryCallState) -> float:
        error = _error(state)
        if isinstance(error, RateLimited | NotSent):
            return 0.0
        if error.retry_after is not None:
            return float(error.retry_after * random.uniform(1.0, 1.0 + _JITTER))
        wait = min(self._next, self._longest)
        self._next = 2 * wait
        return random.uniform(0.5, 1.0) * wait


def _error(state: RetryCallState) -> Any:
    return state.outcome.exception() if state.outcome else None

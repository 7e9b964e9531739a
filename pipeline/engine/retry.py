"""tenacity: which errors are tried again, how long after, and how often."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from pipeline.errors import NotSent, RateLimited, RequestError, TryAgain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from pipeline.config.load import RetryRules

T = TypeVar("T")

FIRST_WAIT = 1.0
"""Seconds before the second try, at most; each next wait may be twice as long."""

_JITTER = 0.05  # above what the server asks, so that those who were told the same do not come back together


def retrying(
    rules: RetryRules,
    sleep: Callable[[float], Awaitable[None]],
    counts: Callable[[RequestError], bool],
    before_sleep: Callable[[RetryCallState], None],
) -> Retry:
    """Build the loop of one request in one run. `counts` says whether an error counts against `rules.attempts`.

    The last error comes out as it is.
    """
    return Retry(
        lambda: AsyncRetrying(
            retry=retry_if_exception_type(TryAgain),
            stop=_StopAfterCounted(rules.attempts, counts),
            wait=_WaitAsAsked(rules.max_wait_seconds),
            sleep=sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
    )


class Retry:
    """Calls until it need not be done again; its counts and waits go on from one call of it to the next.

    tenacity costs as much as a request's own way, so it is asked only where a try has failed.
    """

    def __init__(self, tenacious: Callable[[], AsyncRetrying]) -> None:
        self._tenacious = functools.cache(tenacious)

    async def __call__(self, make: Callable[[], Awaitable[T]]) -> T:
        """Await what `make` gives, again after each TryAgain. Raises the last error."""
        try:
            return await make()
        except TryAgain as failure:
            met = [failure]

        async def again() -> T:
            if met:
                raise met.pop()  # tenacity begins with the failure that was met already
            return await make()

        return await self._tenacious()(again)


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

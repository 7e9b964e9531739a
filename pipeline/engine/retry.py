"""tenacity: which errors are tried again, how long after, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from pipeline.errors import NotSent, RateLimited, RequestError, TryAgain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tenacity import RetryCallState

    from pipeline.config import RetryRules


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
        wait=_WaitAsAsked(wait_random_exponential(multiplier=0.5, max=rules.max_wait_seconds)),
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
    everyone, the request itself does not wait besides.
    """

    def __init__(self, fallback: wait_base) -> None:
        self._fallback = fallback

    def __call__(self, state: RetryCallState) -> float:
        error = _error(state)
        if isinstance(error, RateLimited | NotSent):
            return 0.0
        return self._fallback(state) if error.retry_after is None else error.retry_after


def _error(state: RetryCallState) -> Any:
    return state.outcome.exception() if state.outcome else None

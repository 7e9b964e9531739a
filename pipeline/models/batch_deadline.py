"""When a job in mode auto has to give up its batches, so that the rest is made in realtime before its deadline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.batch_rules import BatchRules
    from pipeline.config.provider import Provider

CALL_SECONDS = 60.0
"""How long a call takes, as long as none has been seen."""

_RESERVE = 1.1


def realtime_seconds(images: int, provider: Provider, call_seconds: float = CALL_SECONDS) -> float:
    """Return how long images take in realtime: at the rate limit, without one at the most calls in flight."""
    if provider.rate_limit is not None:
        return images / provider.rate_limit.per_minute * 60
    return math.ceil(images / provider.concurrency) * call_seconds


def is_late(
    now: float,
    deadline: float,
    images: int,
    provider: Provider,
    rules: BatchRules,
    call_seconds: float = CALL_SECONDS,
) -> bool:
    """Return whether batches are cancelled now at the latest if so many images are uncollected.

    Only the hours of the provider's window count. Outside it no call could start, so that batches go on until it opens,
    or until the deadline if that comes before.
    """
    seconds, window = (
        _RESERVE * realtime_seconds(images, provider, call_seconds) + rules.cancel_seconds,
        provider.window,
    )
    if window is None or now >= deadline:
        return now >= deadline - seconds
    if not window.is_open(now):
        opening = window.next_change(now)
        if opening >= deadline or opening - now > rules.cancel_seconds:
            return False
    return window.after(now, seconds) >= deadline

"""Lease of a worker: until when it may send calls, on its own clock, as the run has last said that it is there."""

from __future__ import annotations

import math
import time

from pipeline.ledger.workers import LEASE_SECONDS

ORPHAN_SECONDS = 8.0
"""How long calls in flight may still take after the lease: 13 seconds after the run was last heard of."""


def clock() -> float:
    """Return seconds that only ever grow, also while the machine sleeps, if its system can tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class LeaseOverError(Exception):
    """The lease has ended, so the call is not sent."""


class Lease:
    """The right to send calls until `LEASE_SECONDS` after a moment that the run has repeated to the worker.

    The worker states the moment, on its own clock, in each answer. So however long the run's next message takes, the
    lease has ended `LEASE_SECONDS` after the run wrote that message, at the latest.
    """

    def __init__(self) -> None:
        self._until = -math.inf

    def renew(self, stated: float) -> None:
        """Extend the lease: the run has repeated this moment."""
        self._until = max(self._until, stated + LEASE_SECONDS)

    @property
    def over_for(self) -> float:
        """Seconds since the lease has ended; negative while it holds."""
        return clock() - self._until

    def check(self) -> None:
        """Raise LeaseOverError if no call may be sent now."""
        if self.over_for >= 0:
            raise LeaseOverError

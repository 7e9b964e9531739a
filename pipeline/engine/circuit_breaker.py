"""A provider that has gone away: everyone waits, one call at a time probes, and the run goes on when it is back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.errors import NotSent, OutageGivenUp, OutcomeUnknown, ServerFault, Unusable, WrongAddress

if TYPE_CHECKING:
    from pipeline.errors import RequestError, Stop

FAILURES = 5
"""So many requests in a row, all different, must fail at the server before that counts as an outage."""

NEVER_ANSWERED_SECONDS = 60.0
"""A provider that never answered within this is a wrong address."""

FIRST_PROBE, LONGEST_PROBE = 1.0, 60.0  # seconds between probes; each interval is twice the last
LONGEST_PAID_PROBE = 300.0  # where a probe may have been billed: a night of them must not cost a night's pictures


class CircuitBreaker:
    """The door before a provider's throttle. Times are the event loop's."""

    def __init__(self, base_url: str, give_up_after: float) -> None:
        self._base_url = base_url
        self._give_up_after = give_up_after
        self._ever_answered = False  # with whatever status
        self._failing: set[int] = set()
        self._suspects: set[int] = set()  # failed while others were served: they alone are no sign of an outage
        self._fresh = 0  # requests that wait for the end of an outage, and have not failed themselves
        self._down_since: float | None = None
        self._probe_at = 0.0
        self._interval = FIRST_PROBE
        self._probing: int | None = None
        self._changed = asyncio.Event()

    @property
    def down_since(self) -> float | None:
        """When the provider went away; None while it is there."""
        return self._down_since

    async def passage(self, request: int) -> bool:
        """Wait until this request may call; True where its call is the probe of an outage.

        Who has not failed yet probes before who has: a request that always fails would never find the provider well.
        """
        fresh = request not in self._failing
        self._fresh += fresh
        try:
            while self._down_since is not None:
                now = asyncio.get_running_loop().time()
                is_due = self._probing is None and now >= self._probe_at
                if is_due and (fresh or not self._fresh):
                    self._probing = request
                    return True
                await self._until_changed(None if self._probing is not None or is_due else self._probe_at - now)
        finally:
            self._fresh -= fresh
            self._changed.set()
        return False

    async def _until_changed(self, seconds: float | None) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    def answered(self, request: int | None = None) -> None:
        """The provider gave an answer that is not a fault of its own. `request` is who it served: those that failed
        meanwhile may themselves be at fault.
        """
        self._ever_answered = True
        if request is not None:
            self._suspects |= self._failing
            self._suspects.discard(request)
        self._failing.clear()
        self._down_since, self._probing, self._interval = None, None, FIRST_PROBE
        self._changed.set()

    def failed(self, request: int, error: RequestError) -> Stop | None:
        """Note a failure; give the stop where the wait has been long enough."""
        if not isinstance(error, NotSent | ServerFault | OutcomeUnknown | Unusable):
            self.answered()
            return None
        if error.http_status is not None:
            self._ever_answered = True
        now = asyncio.get_running_loop().time()
        if request not in self._suspects or isinstance(error, NotSent):
            self._failing.add(request)
        if self._down_since is None and (isinstance(error, NotSent) or len(self._failing) >= FAILURES):
            self._down_since = now
            self._next_probe(now)
        elif self._probing == request:
            longest = LONGEST_PAID_PROBE if error.outcome == "unknown" else LONGEST_PROBE
            self._interval = min(2 * self._interval, longest)
            self._probing = None
            self._next_probe(now)
        self._changed.set()
        return self._given_up(now, error)

    def released(self, request: int) -> None:
        """The probe was called off before it was made."""
        if self._probing == request:
            self._probing = None
            self._changed.set()

    def _next_probe(self, now: float) -> None:
        """Set the next probe's moment; the last one falls on the deadline, not after it."""
        self._probe_at = min(now + self._interval, max(now, self._deadline))

    @property
    def _deadline(self) -> float:
        assert self._down_since is not None
        never = self._give_up_after if self._ever_answered else NEVER_ANSWERED_SECONDS
        return self._down_since + min(never, self._give_up_after)

    def _given_up(self, now: float, error: RequestError) -> Stop | None:
        if self._down_since is None or now < self._deadline:
            return None
        away = now - self._down_since
        if not self._ever_answered:
            return WrongAddress(
                f"{error.message}; it never answered in {away:.0f} s: check `base_url` {self._base_url}"
            )
        return OutageGivenUp(f"{self._base_url} stayed away for {away / 3600:.1f} hours: {error.message}")

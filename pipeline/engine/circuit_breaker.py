"""Circuit breaker in front of a provider's throttle: in an outage all calls wait, and one at a time probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.engine.retry import until_changed
from pipeline.errors import NotSent, OutageGivenUp, OutcomeUnknown, ServerFault, Unusable, WrongAddress

if TYPE_CHECKING:
    from pipeline.errors import RequestError, Stop

FAILURES = 5
"""Number of different requests in a row that must fail at the server before that counts as an outage."""

NEVER_ANSWERED_SECONDS = 60.0
"""A provider that was never reached within this time has a wrong address, unless it may be starting."""

FIRST_PROBE, LONGEST_PROBE = 1.0, 60.0  # seconds between probes; each interval is twice the last
_REFUSED_CONNECTION = "ClientConnectorError"  # aiohttp's name; DNS, TLS and proxies have others
LONGEST_PAID_PROBE = 300.0  # if a probe may have been billed: a night of probes must not cost a night's images

WORKER_LOST = "worker_lost"
"""Type of the errors of calls whose worker on another machine died: they say nothing about the provider."""


class CircuitBreaker:
    """Closed while the provider answers; open in an outage, and half-open while a probe is in flight.

    Requests are named by their primary keys; moments are the event loop's.
    """

    def __init__(
        self, base_url: str, give_up_after: float, *, start_seconds: float = 600.0, known_good: bool = False
    ) -> None:
        self._base_url = base_url
        self._give_up_after = give_up_after
        self._start_seconds = start_seconds  # that a provider may take to start
        self._known_good = known_good  # in this ledger
        self._may_be_starting = False  # it refuses connections, or a gateway in front of it answers
        self._failing: set[int] = set()
        self._suspects: set[int] = set()  # failed while others were served: they alone do not indicate an outage
        self._fresh = 0  # requests that wait for the end of an outage and have not failed themselves
        self._open_since: float | None = None
        self._probe_at = 0.0
        self._intervals = Backoff(FIRST_PROBE, LONGEST_PROBE, jitter=(1.0, 1.0))
        self._probing: int | None = None
        self._changed = asyncio.Event()

    @property
    def open_since(self) -> float | None:
        """When the outage began; None if there is none."""
        return self._open_since

    @property
    def given_up_at(self) -> float | None:
        """When the outage will have lasted long enough for a stop; None if there is none."""
        return None if self._open_since is None else self._deadline

    @property
    def is_passable(self) -> bool:
        """Whether a call may be made now, if only to probe an outage."""
        if self._open_since is None:
            return True
        return self._probing is None and asyncio.get_running_loop().time() >= self._probe_at

    async def admit(self, request_pk: int) -> bool:
        """Wait until this request may call; return whether its call is the probe of an outage.

        Requests that have not failed probe before those that have: one that always fails would never find the
        provider well.
        """
        fresh = request_pk not in self._failing
        self._fresh += fresh
        try:
            while self._open_since is not None:
                now = asyncio.get_running_loop().time()
                is_due = self._probing is None and now >= self._probe_at
                if is_due and (fresh or not self._fresh):
                    self._probing = request_pk
                    return True
                await until_changed(
                    self._changed, None if self._probing is not None or is_due else self._probe_at - now
                )
        finally:
            self._fresh -= fresh
            self._changed.set()
        return False

    def on_succeeded(self, request_pk: int | None = None) -> None:
        """The provider has sent an answer that is not a fault of its own. `request_pk` is the request that it served:
        requests that failed in the meantime may themselves be at fault.
        """
        self._known_good = True
        if request_pk is not None:
            self._suspects |= self._failing
            self._suspects.discard(request_pk)
        self._failing.clear()
        self._open_since, self._probing = None, None
        self._intervals.reset()
        self._changed.set()

    def stop_after_failure(self, request_pk: int, error: RequestError) -> Stop | None:
        """Record a failure; return the stop that follows once the outage has lasted for too long."""
        if error.type == WORKER_LOST:
            return None
        if error.deterministic or not isinstance(error, NotSent | ServerFault | OutcomeUnknown | Unusable):
            self.on_succeeded()
            return None
        now = asyncio.get_running_loop().time()
        is_starting = error.http_status in {502, 503} or error.type == _REFUSED_CONNECTION
        self._may_be_starting |= is_starting
        self._known_good |= error.http_status is not None and not is_starting  # something there speaks HTTP for itself
        if request_pk not in self._suspects or isinstance(error, NotSent):
            self._failing.add(request_pk)
        if self._open_since is None and (isinstance(error, NotSent) or len(self._failing) >= FAILURES):
            self._open_since = now
            self._schedule_probe(now, LONGEST_PROBE, error.retry_after)
        elif self._probing == request_pk:
            self._probing = None
            longest = LONGEST_PAID_PROBE if error.outcome == "unknown" else LONGEST_PROBE
            self._schedule_probe(now, longest, error.retry_after)
        self._changed.set()
        return self._stop_after_outage(now, error)

    def exclude_seconds(self, seconds: float) -> None:
        """Do not count the last `seconds` as part of an outage: calls were held."""
        if self._open_since is not None:
            self._open_since = min(self._open_since + seconds, asyncio.get_running_loop().time())

    def on_released(self, request_pk: int) -> None:
        """The probe is over, or was never made: another request may probe."""
        if self._probing == request_pk:
            self._probing = None
            self._changed.set()

    def _schedule_probe(self, now: float, longest: float, asked: float | None) -> None:
        """Schedule the next probe, not before the server asks for it; the last one falls on the deadline."""
        wait = max(self._intervals.next(longest), asked or 0.0)
        self._probe_at = min(now + wait, max(now, self._deadline))

    @property
    def _deadline(self) -> float:
        assert self._open_since is not None
        if self._known_good:
            return self._open_since + self._give_up_after
        allowed = self._start_seconds if self._may_be_starting else NEVER_ANSWERED_SECONDS
        return self._open_since + min(allowed, self._give_up_after)

    def _stop_after_outage(self, now: float, error: RequestError) -> Stop | None:
        if self._open_since is None or now < self._deadline:
            return None
        seconds = now - self._open_since
        if not self._known_good:
            return WrongAddress(
                f"{error.message}; the server never answered in {seconds:.0f} s: check `base_url` {self._base_url}"
            )
        return OutageGivenUp(f"{self._base_url} was down for {seconds / 3600:.1f} hours: {error.message}")

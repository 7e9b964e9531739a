"""Delivery breaker: no more images are bought from a provider while those that are paid do not arrive."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.engine.retry import until_changed
from pipeline.errors import NotDelivered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.errors import Stop

OVERDUE = 3
"""Paid responses of different requests, with no image between them, that brought no image before the breaker opens."""

PROBES = 2
"""Probes that bring no image before the provider stops."""

_FIRST_PROBE, _LONGEST_PROBE = 5.0, 300.0  # seconds between two probes: each costs an image


class DeliveryBreaker:
    """Closed while images arrive; open after `OVERDUE` responses that were paid and brought none.

    While it is open, paid images are downloaded on. One request at a time may buy as a probe, and only if no download
    is in progress: a download of a paid image is a probe that costs nothing. If the cause is a rule of this program, or
    time cannot help for another reason, no probe is made, and the provider stops.
    """

    def __init__(self, provider: str, give_up_after: float) -> None:
        self._provider = provider
        self._give_up_after = give_up_after
        self._overdue: dict[int, str] = {}  # primary key of a request -> what happened, since the last image
        self._downloading = 0
        self._open_since: float | None = None
        self._probe_at = 0.0
        self._probing: int | None = None
        self._failed_probes = 0
        self._intervals = Backoff(_FIRST_PROBE, _LONGEST_PROBE, jitter=(1.0, 1.0))
        self._changed = asyncio.Event()
        self.deliveries = 0

    @property
    def is_open(self) -> bool:
        """Whether nothing more is bought for now."""
        return self._open_since is not None

    @property
    def is_passable(self) -> bool:
        """Whether images may be bought now, if only as a probe."""
        if self._open_since is None:
            return True
        is_due = asyncio.get_running_loop().time() >= self._probe_at
        return self._probing is None and not self._downloading and is_due

    @contextlib.contextmanager
    def downloading(self) -> Iterator[None]:
        """Count the downloads of a request as in progress until the block ends."""
        self._downloading += 1
        try:
            yield
        finally:
            self._downloading -= 1
            self._changed.set()

    def holds(self, request_pk: int) -> bool:
        """Return whether a request has to wait for the delivery of paid images."""
        return self.is_open and self._probing != request_pk

    async def admit(self, request_pk: int) -> None:
        """Wait until this request may buy images."""
        while self._open_since is not None:
            now = asyncio.get_running_loop().time()
            if self._probing == request_pk:
                return
            if self._probing is None and not self._downloading and now >= self._probe_at:
                self._probing = request_pk
                return
            is_timed = self._probing is None and not self._downloading
            await until_changed(self._changed, self._probe_at - now if is_timed else None)

    def record_delivery(self) -> float | None:
        """Record that an image has arrived, so that all may buy again. Return for how many seconds purchases were held,
        None if they were not.
        """
        self.deliveries += 1
        self._overdue.clear()
        if self._open_since is None:
            return None
        held_for = asyncio.get_running_loop().time() - self._open_since
        self._open_since, self._probing = None, None
        self._intervals.reset()
        self._changed.set()
        return held_for

    def stop_after_overdue(
        self, request_pk: int, reason: str, *, deterministic: bool, option: str | None = None
    ) -> Stop | None:
        """Record that a paid response has brought no image so far; return the stop that follows, if any.

        `deterministic` if time cannot help; `option` is then what would allow it.
        """
        self._overdue[request_pk] = reason
        if len(self._overdue) < OVERDUE and self._open_since is None:
            return None
        if deterministic:
            return self._stop(reason, option)
        if self._open_since is None:
            self._open_since = asyncio.get_running_loop().time()
            self._probe_at = self._open_since + self._intervals.next()
            self._failed_probes = 0
        self._changed.set()
        return None

    def on_released(self, request_pk: int) -> None:
        """If this request was a probe, it shows nothing: another may probe."""
        if self._probing == request_pk:
            self._probing = None
            self._probe_at = asyncio.get_running_loop().time() + self._intervals.next()
            self._changed.set()

    def stop_after_probe(self, request_pk: int) -> Stop | None:
        """Record that what a request bought never brings an image; return the stop that follows if it was a probe."""
        if self._probing != request_pk or self._open_since is None:
            return None
        now = asyncio.get_running_loop().time()
        self._probing = None
        self._probe_at = now + self._intervals.next()
        self._failed_probes += 1
        self._changed.set()
        if self._failed_probes < PROBES and now - self._open_since < self._give_up_after:
            return None
        return self._stop(self._overdue.get(request_pk, "no image arrived"), None)

    def _stop(self, reason: str, option: str | None) -> NotDelivered:
        allow = f"; to allow it, set {option}, then run `pipeline run`" if option else ""
        return NotDelivered(
            f"{len(self._overdue)} paid responses in a row brought no image, and nothing more is bought from"
            f" `{self._provider}`: {reason}{allow}"
        )

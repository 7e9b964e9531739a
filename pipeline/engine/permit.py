"""Permit: permission to send one call, from the grant of its room to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from pipeline.engine.hold import HeldBack

if TYPE_CHECKING:
    from pipeline.engine.adaptive import AdaptiveSlots
    from pipeline.engine.hold import Hold
    from pipeline.engine.throttle import Reservation, Throttle
    from pipeline.ledger.queue import QueuedRequest


class Grantor(Protocol):
    """The admission control that granted a permit, as the permit sees it."""

    hold: Hold
    adaptive: AdaptiveSlots | None
    in_flight: int

    @property
    def throttle(self) -> Throttle:
        """The images-per-minute limit."""

    def released(self, request: QueuedRequest, *, held_slot: bool = False, is_answered: bool = False) -> None:
        """A call is over, or will not be sent."""

    def progressed(self) -> None:
        """Something has ended that others may wait for."""


class Permit:
    """Permission to send one call of `images` images, once; `is_probe` if the call probes an outage."""

    def __init__(
        self, admission: Grantor, request: QueuedRequest, reservations: list[Reservation], *, is_probe: bool
    ) -> None:
        self.images = reservations[0].images
        self.is_probe = is_probe
        self.sent_at: float | None = None  # on the loop's clock
        self.used = 0  # images in the window when it was sent
        self._in_flight = 0  # calls that were in flight then, as far as they are counted
        self._is_answered = False
        self._admission = admission
        self._request = request
        self._reservations = reservations
        admission.in_flight += 1

    def check(self) -> None:
        """Check that the call may be sent at this moment. Raises HeldBack if the provider is held."""
        if self._admission.hold.is_closed:
            raise HeldBack

    def send(self) -> None:
        """The call's first bytes are sent next. Raises HeldBack, and then they are not."""
        self.check()
        self.sent()

    def sent(self) -> None:
        """The call's first bytes are sent now, or were by a worker that reports it."""
        self.sent_at = asyncio.get_running_loop().time()
        for reservation in self._reservations:
            reservation.sent()
        self.used = self._admission.throttle.used
        self._in_flight = 0 if self._admission.adaptive is None else self._admission.adaptive.in_flight

    def answered(self) -> None:
        """A success response has come, and is stored next: the server is free for another call."""
        adaptive, now = self._admission.adaptive, asyncio.get_running_loop().time()
        if adaptive is not None and self.sent_at is not None and not self._is_answered:
            self._is_answered = True
            params = self._request.params
            kind = (self._request.model, params.get("size"), params.get("quality"), self.images)
            adaptive.answered(kind, self.sent_at, now - self.sent_at)
            adaptive.release()

    def refused(self) -> bool:
        """The call was refused by a 429 or a 503; return whether the number of calls in flight explains that."""
        adaptive = self._admission.adaptive
        return adaptive is not None and self.sent_at is not None and adaptive.refused(self.sent_at, self._in_flight)

    def release(self) -> None:
        """The call is over, or will not be sent: room in the window that it did not use is free again."""
        for reservation in self._reservations:
            reservation.cancel()
        self._admission.in_flight -= 1
        self._admission.released(self._request, held_slot=True, is_answered=self._is_answered)
        self._admission.progressed()

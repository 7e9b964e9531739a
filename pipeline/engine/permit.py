"""Permit: permission to send one call, from the grant of its room to its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipeline.engine.hold import HeldBack

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.engine.hold import Hold
    from pipeline.engine.room import Room
    from pipeline.engine.throttle import Reservation, Throttle
    from pipeline.ledger.queue import QueuedRequest


class Permit:
    """Permission to send one call of `images` images, once; `is_probe` if the call probes an outage.

    `on_released` is called when the call is over, or will not be sent.
    """

    def __init__(
        self,
        request: QueuedRequest,
        reservations: list[Reservation],
        hold: Hold,
        throttle: Throttle,
        room: Room,
        on_released: Callable[[], None],
        *,
        is_probe: bool,
    ) -> None:
        self.images = reservations[0].images
        self.is_probe = is_probe
        self.sent_at: float | None = None  # on the loop's clock
        self.used = 0  # images in the window when it was sent
        self._in_flight = 0  # calls that were at the server then
        self._is_answered = False
        self._request = request
        self._reservations = reservations
        self._hold = hold
        self._throttle = throttle
        self._room = room
        self._on_released = on_released

    def check(self) -> None:
        """Check that the call may be sent at this moment. Raises HeldBack if the provider is held."""
        if self._hold.is_closed:
            raise HeldBack

    def send(self) -> None:
        """The call's first bytes are sent next. Raises HeldBack, and then they are not."""
        self.check()
        self.on_sent()

    def on_sent(self) -> None:
        """The call's first bytes are sent now, or were by a worker that reports it."""
        self.sent_at = asyncio.get_running_loop().time()
        for reservation in self._reservations:
            reservation.on_sent()
        self.used, self._in_flight = self._throttle.used, self._room.in_flight

    def on_answered(self) -> None:
        """A success response has come, and is stored next: the server is free for another call."""
        adaptive = self._room.adaptive
        if adaptive is not None and self.sent_at is not None and not self._is_answered:
            self._is_answered = True
            params, seconds = self._request.params, asyncio.get_running_loop().time() - self.sent_at
            kind = (self._request.model, params.get("size"), params.get("quality"), self.images)
            adaptive.on_answered(kind, self.sent_at, seconds)
            adaptive.release()

    def reduce_after_refusal(self) -> bool:
        """Reduce the calls in flight after a 429 or a 503; return whether their number explains it."""
        adaptive = self._room.adaptive
        return (
            adaptive is not None
            and self.sent_at is not None
            and adaptive.reduce_after_refusal(self.sent_at, self._in_flight)
        )

    def release(self) -> None:
        """The call is over, or will not be sent: room in the window that it did not use is free again."""
        for reservation in self._reservations:
            reservation.cancel()
        self._room.release(is_answered=self._is_answered)
        self._on_released()

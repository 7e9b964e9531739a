"""Sliding-window scheduler with EASY backfill: which waiting call may be sent next.

Pure logic: every moment is passed in, nothing waits, and there is no clock. The call at the head of the queue goes as
soon as the window has room for it. Until then its place is reserved: a later, smaller call may go first if that does
not delay the head ("EASY backfill", Lifka 1995). So no large call starves, and the room that it cannot use is not lost.
The queue is ordered by priority, then by arrival.
"""

from __future__ import annotations

import bisect
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.load import RateLimit


class Ticket:
    """A call's place: queued, then granted, then in the log. `images` shrinks if a lower limit comes into force."""

    __slots__ = ("images", "priority")

    def __init__(self, images: int, priority: int = 0) -> None:
        self.images = images
        self.priority = priority


class WindowScheduler:
    """At most `limit.images` images' worth of calls in any half-open window of `limit.window` seconds.

    A granted call holds its room from the grant until one window after it was sent.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.used = 0  # images in the log, and of granted calls
        self._queue: dict[Ticket, None] = {}  # the highest priority first, then in order of arrival
        self._granted: set[Ticket] = set()  # not yet sent
        self._log: list[tuple[float, int]] = []  # (moment, images), oldest first

    @property
    def spacing(self) -> float:
        """Seconds of the limit that one image takes."""
        return self.limit.window / self.limit.images

    @property
    def waiting(self) -> int:
        """Number of queued calls."""
        return len(self._queue)

    def remember(self, moment: float, images: int) -> None:
        """Add a call of an earlier run to the log."""
        self.used += images
        bisect.insort(self._log, (moment, images))

    def enqueue(self, images: int, priority: int = 0) -> Ticket:
        """Queue a call, reduced to what the limit allows in one call if `images` is more."""
        ticket = Ticket(min(images, self.limit.images), priority)
        last = next(reversed(self._queue), ticket)
        self._queue[ticket] = None
        if last.priority < priority:
            self._queue = dict.fromkeys(sorted(self._queue, key=lambda queued: -queued.priority))
        return ticket

    def grant(self, now: float) -> Ticket | None:
        """Grant the next call and return its ticket; None if none may go before `next_change`."""
        self._forget(now)
        ticket = next(self._eligible(now), None)
        if ticket is not None:
            del self._queue[ticket]
            self._granted.add(ticket)
            self.used += ticket.images
        return ticket

    def next_change(self) -> float:
        """Return the moment at which the window has more room; infinity if time alone makes none."""
        return self._log[0][0] + self.limit.window if self._log else math.inf

    def on_sent(self, ticket: Ticket, now: float) -> None:
        """Log that a granted call is sent now. No effect on any other."""
        if ticket in self._granted:
            self._granted.remove(ticket)
            bisect.insort(self._log, (now, ticket.images))

    def postpone(self, since: float, now: float) -> None:
        """Count the calls that were logged since a moment as sent now: their bytes may have left only now."""
        at = bisect.bisect_left(self._log, (since, 0))
        self._log[at:] = [(now, images) for _, images in self._log[at:]]

    def withdraw(self, ticket: Ticket) -> bool:
        """Free the place or the room of a call that will not be sent; return whether it had been granted.

        No effect on a call that was sent.
        """
        self._queue.pop(ticket, None)
        if ticket not in self._granted:
            return False
        self._granted.remove(ticket)
        self.used -= ticket.images
        return True

    def enforce(self, limit: RateLimit) -> None:
        """Enforce another limit from now on; queued calls for more than it allows are reduced."""
        self.limit = limit
        for ticket in self._queue:
            ticket.images = min(ticket.images, limit.images)

    def _eligible(self, now: float) -> Iterator[Ticket]:
        """Yield the calls that may go now: the head, else those that do not delay it."""
        head = next(iter(self._queue), None)
        if head is None:
            return
        room = self.limit.images - self.used
        if head.images <= room:
            yield head
            return
        reserved, spare = self._reservation(head, now)
        for ticket in itertools.islice(self._queue, 1, None):
            if ticket.images <= min(room, spare) and now + ticket.images * self.spacing <= reserved:
                yield ticket

    def _reservation(self, head: Ticket, now: float) -> tuple[float, int]:
        """Return when there will be room for the head, and how many images will be left over then.

        Granted calls that are not yet sent count as sent now, which is the soonest.
        """
        room = self.limit.images - self.used
        for moment, images in self._log:
            room += images
            if room >= head.images:
                return moment + self.limit.window, room - head.images
        return now + self.limit.window, self.limit.images - head.images

    def _forget(self, now: float) -> None:
        """Drop calls that have left the window from the log."""
        gone = 0
        while gone < len(self._log) and self._log[gone][0] + self.limit.window <= now:
            self.used -= self._log[gone][1]
            gone += 1
        del self._log[:gone]

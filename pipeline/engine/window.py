"""Who may call next: a line of waiting calls, the log of the trailing window, and the head's reservation.

Pure logic: every moment is handed in, nothing waits, and there is no clock. The head of the line goes as soon as the
window has room for it. Until then its place is reserved: a later, smaller call may go first where that does not put
the head off ("EASY backfill", Lifka 1995). So no large call starves, and the room that it cannot use is not lost.
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
    """A call's place: in line, then granted, then in the log. `images` shrinks where a lower limit comes into force."""

    __slots__ = ("images",)

    def __init__(self, images: int) -> None:
        self.images = images


class WindowScheduler:
    """At most `limit.images` pictures' worth of calls in any half-open window of `limit.window` seconds.

    A granted call holds its room from the grant until a window after it was sent.
    """

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self.used = 0  # images in the log, and of granted calls
        self._line: dict[Ticket, None] = {}  # in the order of arrival
        self._granted: set[Ticket] = set()  # not yet sent
        self._log: list[tuple[float, int]] = []  # (moment, images), the oldest first

    @property
    def spacing(self) -> float:
        """Seconds that one picture takes of the limit."""
        return self.limit.window / self.limit.images

    @property
    def waiting(self) -> int:
        """Calls in line."""
        return len(self._line)

    def remember(self, moment: float, images: int) -> None:
        """Take a call of an earlier run into the log."""
        self.used += images
        bisect.insort(self._log, (moment, images))

    def join(self, images: int) -> Ticket:
        """Stand at the end of the line; for what one call may ask, where `images` is more."""
        ticket = Ticket(min(images, self.limit.images))
        self._line[ticket] = None
        return ticket

    def next(self, now: float) -> Ticket | None:
        """Let the next call go, and give its ticket; None where nobody may go before `look_again`."""
        self._forget(now)
        ticket = next(self._may_go(now), None)
        if ticket is not None:
            del self._line[ticket]
            self._granted.add(ticket)
            self.used += ticket.images
        return ticket

    def look_again(self) -> float:
        """Give the moment at which the window has more room; never, where only a change can make it."""
        return self._log[0][0] + self.limit.window if self._log else math.inf

    def sent(self, ticket: Ticket, now: float) -> None:
        """A granted call leaves now. Without effect on any other."""
        if ticket in self._granted:
            self._granted.remove(ticket)
            bisect.insort(self._log, (now, ticket.images))

    def leave(self, ticket: Ticket) -> bool:
        """This call will not be sent: its place or its room is free; say whether it had been granted.

        Without effect on a call that was sent.
        """
        self._line.pop(ticket, None)
        if ticket not in self._granted:
            return False
        self._granted.remove(ticket)
        self.used -= ticket.images
        return True

    def lower(self, limit: RateLimit) -> None:
        """Hold to another limit from now on; who asks in line for more than it allows will ask for less."""
        self.limit = limit
        for ticket in self._line:
            ticket.images = min(ticket.images, limit.images)

    def _may_go(self, now: float) -> Iterator[Ticket]:
        """Give those who may go now: the head, else whoever does not put it off."""
        head = next(iter(self._line), None)
        if head is None:
            return
        room = self.limit.images - self.used
        if head.images <= room:
            yield head
            return
        reserved, spare = self._reservation(head, now)
        for ticket in itertools.islice(self._line, 1, None):
            if ticket.images <= min(room, spare) and now + ticket.images * self.spacing <= reserved:
                yield ticket

    def _reservation(self, head: Ticket, now: float) -> tuple[float, int]:
        """Give when there will be room for the head, and how many images there will be to spare.

        What was granted and not yet sent counts as sent now, which is the soonest.
        """
        room = self.limit.images - self.used
        for moment, images in self._log:
            room += images
            if room >= head.images:
                return moment + self.limit.window, room - head.images
        return now + self.limit.window, self.limit.images - head.images

    def _forget(self, now: float) -> None:
        """Drop from the log what has left the window."""
        gone = 0
        while gone < len(self._log) and self._log[gone][0] + self.limit.window <= now:
            self.used -= self._log[gone][1]
            gone += 1
        del self._log[:gone]

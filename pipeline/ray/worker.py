"""Worker as the run sees it: renews its lease, hands it blocks, takes its reports, and says when it is lost."""

from __future__ import annotations

import asyncio
import math
import pickle
import secrets
import time
from typing import TYPE_CHECKING, Any

from pipeline.ledger.workers import LEASE_SECONDS, WorkerRow
from pipeline.ray.error_text import error_text
from pipeline.ray.messages import Answer, Done, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.engine.caller import Target
    from pipeline.ray.messages import Work
    from pipeline.ray.tickets import OrderTicket

_RESEND_SECONDS = 1.0  # after which a block is sent again if the worker has not seen it
_AGAIN_SECONDS = 0.2  # between two polls of a worker that cannot be reached


class WorkerLostError(Exception):
    """The worker is not heard of any more, and its lease has ended; `is_silent` if Ray does not say that it died."""

    def __init__(self, reason: str, *, is_silent: bool) -> None:
        super().__init__(reason)
        self.is_silent = is_silent


class RemoteWorker:
    """One process of an actor, from its set-up until it is lost.

    `may_renew` returns whether the lease may be extended now; `handle` gets each finished order with its ticket.
    """

    def __init__(
        self,
        number: int,
        actor: Any,
        facts: dict[str, Any],
        may_renew: Callable[[], bool],
        handle: Callable[[RemoteWorker, OrderTicket, Done], None],
    ) -> None:
        self.number = number
        self.actor = actor
        self.node: str = facts["host"]
        self.pid: int = facts["pid"]
        self.node_id: str = facts["node_id"]
        self.calls = 0
        self.images = 0
        self.tickets: dict[int, OrderTicket] = {}  # handed out, and not done
        self.lost_at = -math.inf  # the end of its lease, on the monotonic clock
        self.ahead = 0.0  # seconds by which its wall clock is ahead of ours
        self._may_renew = may_renew
        self._handle = handle
        self._token = secrets.token_hex(8)
        self._stated = -math.inf  # its own clock, in its last answer
        self._heard_at = -math.inf  # when that arrived, on the monotonic clock
        self._confirmed = 0  # reports that have arrived
        self._blocks = 0
        self._unseen: dict[int, tuple[float, bytes]] = {}  # blocks that it has not confirmed, and when they were sent

    @property
    def row(self) -> WorkerRow:
        """What the ledger records of it."""
        return WorkerRow(self.number, self.node, self.pid, self.calls, self.images)

    async def set_up(self, work: Work, targets: Sequence[Target]) -> str | None:
        """Prepare it for orders; return what hinders it, if anything does."""
        self._stated = await self.actor.set_up.remote(self._token, pickle.dumps(work))
        self._heard_at = time.monotonic()
        self.lost_at = self._heard_at + LEASE_SECONDS
        for target in targets:
            if fault := await self.open(target):
                return fault
        return None

    async def open(self, target: Target) -> str | None:
        """Open its sessions with a provider; return what is wrong with that provider's variables there."""
        fault: str | None = await self.actor.open.remote(self._token, pickle.dumps(target))
        return fault

    def hand_out(self, tickets: Sequence[OrderTicket]) -> None:
        """Send it a block of orders."""
        self._blocks += 1
        for ticket in tickets:
            self.tickets[ticket.order.id] = ticket
        block = pickle.dumps([ticket.order for ticket in tickets])
        self._send(self._blocks, block)

    def _send(self, number: int, block: bytes) -> None:
        self._unseen[number] = time.monotonic(), block
        self.actor.take.remote(self._token, self._renewal(), number, block)

    def _renewal(self) -> float:
        """Return the moment from which the worker's lease is extended: it was before its last answer arrived."""
        if not self._may_renew():
            return -math.inf
        self.lost_at = self._heard_at + LEASE_SECONDS
        return self._stated

    async def serve(self) -> None:
        """Take its reports for as long as it lives. Raises WorkerLostError once it is lost and its lease is over."""
        reason: BaseException | None = None
        while True:
            poll = asyncio.ensure_future(self._poll())
            poll.add_done_callback(_retrieve)
            await asyncio.wait([poll], timeout=max(0.0, self.lost_at - time.monotonic()))
            if not poll.done():
                await asyncio.sleep(0)  # both may be due after a pause of this process
            if not poll.done():
                poll.cancel()
                raise WorkerLostError(error_text(reason) if reason else "it does not answer", is_silent=True)
            if (reason := poll.exception()) is None:
                self._take(pickle.loads(poll.result()))  # noqa: S301 - our own worker's bytes
            elif not _may_recover(reason) or time.monotonic() >= self.lost_at:
                await asyncio.sleep(max(0.0, self.lost_at - time.monotonic()))
                what = "its process died" if _is_replaced(reason) else error_text(reason)
                raise WorkerLostError(what, is_silent=_may_recover(reason))
            else:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _poll(self) -> bytes:
        answer: bytes = await self.actor.poll.remote(self._token, self._renewal(), self._confirmed)
        return answer

    def _take(self, answer: Answer) -> None:
        now, wall = time.monotonic(), time.time()
        self._stated, self._heard_at, self.ahead = answer.clock, now, answer.wall - wall
        new = answer.reports[self._confirmed - answer.first :]
        self._confirmed = answer.first + len(answer.reports)
        for report in new:
            self._report(report, wall)
        if answer.blocks >= self._blocks:
            self._unseen.clear()
        for number, (sent_at, block) in list(self._unseen.items()):
            if now - sent_at > _RESEND_SECONDS:
                self._send(number, block)

    def _report(self, report: Sent | Done, now: float) -> None:
        ticket = self.tickets.get(report.id)
        if ticket is None:
            return
        if isinstance(report, Sent):
            self.calls += 1
            ticket.sent(now)
            return
        del self.tickets[report.id]
        self._handle(self, ticket, report)


def _retrieve(poll: asyncio.Future[bytes]) -> None:
    """Take the error of a poll that nobody waits for any more."""
    if not poll.cancelled():
        poll.exception()


def _may_recover(reason: BaseException) -> bool:
    """Return whether the worker may still be there; else another process has replaced it, or none has."""
    from ray.exceptions import ActorUnavailableError

    return isinstance(reason, ActorUnavailableError)


def _is_replaced(reason: BaseException) -> bool:
    """Return whether another process answers, which does not know the token."""
    return isinstance(reason, LookupError) or isinstance(getattr(reason, "cause", None), LookupError)

"""Tickets: orders of the run that are not done, and their hand-out to workers in blocks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pipeline.ray.messages import CallOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.ray.messages import Done, Order

T = TypeVar("T")

LEAST_BLOCK, LARGEST_BLOCK = 8, 32
"""Orders in a block: fewer only if there are no more. A message costs the run as much as handling three pictures."""


@dataclass(eq=False, slots=True)
class OrderTicket:
    """One order that is not done. `on_sent` is called when its call is reported as sent."""

    order: Order
    on_sent: Callable[[], None]
    done: asyncio.Future[Done] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    sent_at: float | None = None  # in seconds since 1970, when that was reported
    ahead: float = 0.0  # seconds by which the clock of its worker is ahead

    @property
    def is_call(self) -> bool:
        """Whether the order may cost money."""
        return isinstance(self.order, CallOrder)

    def sent(self, now: float) -> None:
        """The call is reported as sent, or must be taken for sent."""
        if self.sent_at is None:
            self.sent_at = now
            if not self.done.done():
                self.on_sent()


def share_out(tickets: Sequence[OrderTicket], workers: Mapping[T, int]) -> list[tuple[T, list[OrderTicket]]]:
    """Divide tickets among workers in blocks: each goes to the worker that has the least to do, as the numbers say."""
    size = min(LARGEST_BLOCK, max(LEAST_BLOCK, -(-len(tickets) // len(workers))))
    loads = dict(workers)
    shares = []
    for start in range(0, len(tickets), size):
        block = list(tickets[start : start + size])
        worker = min(loads, key=lambda candidate: loads[candidate])
        loads[worker] += len(block)
        shares.append((worker, block))
    return shares

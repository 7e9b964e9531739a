"""Orders are handed out in blocks, to the worker that has the least to do."""

from __future__ import annotations

import random

import pytest

from pipeline.client.download import DownloadFailed
from pipeline.client.request import Call
from pipeline.engine.image_writer import FileNames
from pipeline.errors import ServerFault
from pipeline.ray.messages import CallOrder, Failure
from pipeline.ray.tickets import LARGEST_BLOCK, LEAST_BLOCK, OrderTicket, share_out


def ticket(number: int) -> OrderTicket:
    """Return a ticket for a call."""
    order = CallOrder(number, "lab", Call("generation", {}), FileNames("job", "a", None), frozenset())
    return OrderTicket(order, lambda: None)


async def test_every_order_is_handed_out_once_in_blocks_to_whoever_has_least() -> None:
    chance = random.Random(7)
    for _ in range(200):
        tickets = [ticket(number) for number in range(chance.randrange(1, 200))]
        loads = {name: chance.randrange(100) for name in range(chance.randrange(1, 9))}
        shares = share_out(tickets, loads)
        assert [one.order.id for _, block in shares for one in block] == list(range(len(tickets)))
        assert all(len(block) <= LARGEST_BLOCK for _, block in shares)
        assert sum(len(block) < LEAST_BLOCK for _, block in shares) <= 1
        assert shares[0][0] == min(loads, key=lambda name: loads[name])


async def test_few_orders_go_to_one_worker_and_many_to_all() -> None:
    assert [len(block) for _, block in share_out([ticket(n) for n in range(5)], {1: 0, 2: 0})] == [5]
    assert {worker for worker, _ in share_out([ticket(n) for n in range(64)], dict.fromkeys(range(8), 0))} == set(
        range(8)
    )


async def test_a_call_is_sent_once() -> None:
    sent: list[int] = []
    one = OrderTicket(ticket(1).order, lambda: sent.append(1))
    one.sent(5.0)
    one.sent(9.0)
    assert (sent, one.sent_at) == ([1], 5.0)


@pytest.mark.parametrize(
    "error",
    [
        DownloadFailed("no", http_status=404, definite=True, option="x"),
        ServerFault("busy", http_status=503, retry_after=3.0),
        FileNotFoundError(2, "gone"),
    ],
)
def test_errors_arrive_as_they_were(error: Exception) -> None:
    again = Failure.of(error).error()
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))

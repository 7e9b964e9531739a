"""Stops reach as far as their cause, are reported once, and end the waits of what they reach."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.events import Stopped
from pipeline.engine.stop_policy import StopPolicy, StopSignal, Withdrawn
from pipeline.errors import BudgetSpent, DiskFull, KeyRefused, ModelUnknown, WrongPath
from tests.support.workbench import request

if TYPE_CHECKING:
    from pipeline.engine.events import Event
    from pipeline.errors import Stop
    from pipeline.ledger.queue import QueuedRequest
    from tests.support.workbench import Bench


@pytest.fixture
def queued(bench: Bench) -> QueuedRequest:
    """A request of provider `lab` as a worker gets it."""
    bench.submit(request(1))
    (found,) = bench.works()
    return found


@pytest.mark.parametrize(
    ("error", "reached", "spared"),
    [
        (DiskFull("no room"), [{}, {"provider": "other"}], []),
        (KeyRefused("no"), [{}, {"job_pk": 9}], [{"provider": "other"}]),
        (WrongPath("no such path"), [{}, {"job_pk": 9}], [{"served_by": "edit"}, {"provider": "other"}]),
        (ModelUnknown("no"), [{}], [{"params": {"model": "another"}}, {"job_pk": 9}]),
        (BudgetSpent("spent"), [{}, {"params": {"model": "another"}}], [{"job_pk": 9}]),
    ],
)
def test_a_stop_reaches_as_far_as_its_cause(
    queued: QueuedRequest, error: Stop, reached: list[dict[str, object]], spared: list[dict[str, object]]
) -> None:
    events: list[Event] = []
    policy = StopPolicy(events.append)
    assert policy.allows(queued)
    policy.stop(error, queued)
    policy.stop(error, queued)
    assert [policy.allows(replace(queued, **change)) for change in reached] == [False] * len(reached)  # type: ignore[arg-type]  # fields by name
    assert [policy.allows(replace(queued, **change)) for change in spared] == [True] * len(spared)  # type: ignore[arg-type]  # the same
    assert policy.stops == [error], "it is kept once"
    assert [type(event) for event in events] == [Stopped], "it is reported once"


async def test_a_stop_ends_the_waits_of_its_provider_and_of_no_other(queued: QueuedRequest) -> None:
    policy = StopPolicy(lambda _: None)
    signals = [policy.signal("lab"), policy.signal("other")]
    assert policy.signal("lab") is signals[0]

    async def wait(number: int) -> None:
        async with signals[number].interruptible():
            await asyncio.sleep(600)

    waiting = [asyncio.create_task(wait(number)) for number in (0, 1)]
    await asyncio.sleep(0)
    policy.stop(KeyRefused("no"), queued)
    with pytest.raises(Withdrawn):
        await waiting[0]
    assert not waiting[1].done()
    policy.halt()
    with pytest.raises(Withdrawn):
        await waiting[1]
    assert policy.signal("late").is_set


async def test_a_provider_of_any_name_ends_no_run(queued: QueuedRequest) -> None:
    policy = StopPolicy(lambda _: None)
    for name in ("images", "uploads", ""):
        policy.stop_provider(name, KeyRefused("no"))
    assert (policy.halting.is_set, policy.allows(queued)) == (False, True)
    policy.halt()
    assert policy.halting.is_set


async def test_an_error_inside_an_interruptible_block_is_not_a_withdrawal() -> None:
    signal = StopPolicy(lambda _: None).signal("lab")
    with pytest.raises(ZeroDivisionError):
        async with signal.interruptible():
            raise ZeroDivisionError
    assert signal.waits == 0


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_each_of_several_signals_ends_a_wait_that_has_them(number: int) -> None:
    signals = [StopSignal(), StopSignal(), StopSignal()]

    async def wait() -> None:
        async with signals[0].interruptible(*signals[1:]):
            await asyncio.sleep(600)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert [signal.waits for signal in signals] == [1, 1, 1]
    signals[number].interrupt()
    with pytest.raises(Withdrawn):
        await waiting
    assert [signal.waits for signal in signals] == [0, 0, 0]
    signals[number].set()
    with pytest.raises(Withdrawn):
        await wait()


async def test_a_wait_that_is_being_interrupted_may_be_interrupted_again() -> None:
    signal = StopSignal()

    async def wait() -> None:
        async with signal.interruptible():
            await asyncio.sleep(600)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    for _ in range(3):  # in the second turn of the loop, the wait is cancelled and has not noticed
        signal.interrupt()
        await asyncio.sleep(0)
    with pytest.raises(Withdrawn):
        await waiting

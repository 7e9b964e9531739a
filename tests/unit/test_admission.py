"""Leave to call: waited for in order, and cut short by a stop."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.config.load import RateLimit
from pipeline.engine.admission import Gate
from pipeline.errors import Invalid, ModelUnknown, NotSent, OutageGivenUp, RateLimited, Stop, WrongAddress
from tests.support.virtual_time import run
from tests.support.workbench import until


def _gate(limit: RateLimit | None = None) -> Gate:
    return Gate(limit, "http://x/v1", give_up_after=3600, longest_backoff=8)


async def test_whoever_waits_is_counted_and_let_through() -> None:
    gate = _gate()
    turn, probe = await gate.leave(1, 3)
    assert (turn.images, probe, gate.waiting, gate.moved.is_set()) == (3, False, 0, True)


async def test_a_halt_cancels_whoever_waits_for_the_limit_or_sleeps_and_lets_nobody_in() -> None:
    gate = _gate(RateLimit(1, 600))
    await gate.leave(1, 1)
    waiting = [asyncio.create_task(gate.leave(number, 1)) for number in (2, 3)]
    sleeping = asyncio.create_task(gate.sleep(600))
    await until(lambda: gate.waiting == 2)
    gate.moved.clear()
    gate.halt()
    results = await asyncio.gather(*waiting, sleeping, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3
    assert (gate.waiting, gate.moved.is_set()) == (0, True)
    for late in (gate.leave(4, 1), gate.sleep(0)):
        with pytest.raises(asyncio.CancelledError):
            await late


async def test_a_halt_does_not_touch_whoever_is_through() -> None:
    gate = _gate()
    through, done = asyncio.Event(), asyncio.Event()

    async def call() -> str:
        await gate.leave(1, 1)
        through.set()
        await done.wait()
        return "answered"

    task = asyncio.create_task(call())
    await through.wait()
    gate.halt()
    done.set()
    assert await task == "answered"


async def test_a_429_pauses_for_what_the_server_says_or_longer_each_time_up_to_our_own_longest() -> None:
    gate = _gate()
    assert 5 <= gate.pause(RateLimited("slow", retry_after=5)) < 5.5
    gate.answered(1)
    pauses = [gate.pause(RateLimited("slow")) for _ in range(5)]
    for pause, least in zip(pauses, (2, 4, 8, 8, 8), strict=True):
        assert least <= pause <= 1.05 * least + 0.01
    assert gate.throttle.paused_for > 7
    gate.answered(1)
    assert 2 <= gate.pause(RateLimited("slow")) < 2.2


def test_nothing_but_429s_for_as_long_as_an_outage_may_last_is_one_and_any_other_answer_begins_anew() -> None:
    async def refused_for(seconds: float, gate: Gate) -> Stop | None:
        error = RateLimited("try again after 0.0 seconds", http_status=429)
        end = asyncio.get_running_loop().time() + seconds
        while True:
            gate.pause(error)
            if (stop := gate.failed(1, error)) or asyncio.get_running_loop().time() > end:
                return stop
            await gate.leave(1, 1)

    async def main() -> None:
        gate = _gate()
        assert await refused_for(3000, gate) is None
        gate.answered(1)
        assert await refused_for(3000, gate) is None
        assert gate.failed(2, Invalid("no", http_status=400)) is None
        assert await refused_for(3500, gate) is None
        stop = await refused_for(200, gate)
        assert isinstance(stop, OutageGivenUp)
        assert "nothing but 429s for 1.0 hours: try again after 0.0 seconds" in str(stop)

    run(main())


async def test_the_limit_that_a_429_states_is_adopted_where_it_is_lower() -> None:
    gate = _gate(RateLimit(50, 60.0))
    told = RateLimited("slow")
    assert gate.lower(told) is None
    told.limit = (60, 60.0)
    assert gate.lower(told) is None
    told.limit = (5, None)
    assert gate.lower(told) == gate.throttle.limit == RateLimit(5, 60.0)
    assert gate.lower(told) is None, "it is told once"
    assert gate.lowered == RateLimit(5, 60.0)


async def test_an_outage_lets_one_probe_through_and_its_answer_all_the_others() -> None:
    gate = _gate()
    assert gate.failed(1, NotSent("no way")) is None
    assert gate.away is not None
    waiting = [asyncio.create_task(gate.leave(number, 1)) for number in (1, 2, 3)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [probe for _, probe in (task.result() for task in done)] == [True]
    away = gate.answered(1)
    assert away is not None
    assert away >= 1
    assert sorted(probe for _, probe in await asyncio.gather(*waiting)) == [False, False, True]


async def test_a_probe_that_is_never_made_leaves_its_place_to_another() -> None:
    gate = _gate()
    gate.failed(1, NotSent("no way"))
    _, probe = await gate.leave(1, 1)
    assert probe
    second = asyncio.create_task(gate.leave(2, 1))
    await asyncio.sleep(0)
    assert not second.done()
    gate.left(1)
    assert (await second)[1]


async def test_a_refusal_too_shows_that_the_provider_is_back() -> None:
    gate = _gate()
    gate.failed(1, NotSent("no way"))
    assert gate.failed(1, ModelUnknown("no such model", http_status=404)) is None
    assert gate.away is None


async def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.circuit_breaker.NEVER_ANSWERED_SECONDS", 0.0)
    assert isinstance(_gate().failed(1, NotSent("no way")), WrongAddress)

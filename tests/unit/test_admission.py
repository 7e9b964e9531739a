"""Leave to call: waited for in order, and cut short by a stop."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.config.load import RateLimit
from pipeline.engine.admission import Admission
from pipeline.errors import Invalid, ModelUnknown, NotSent, OutageGivenUp, RateLimited, Stop, WrongAddress
from tests.support.virtual_time import run
from tests.support.workbench import until


def _admission(limit: RateLimit | None = None) -> Admission:
    return Admission(limit, "http://x/v1", give_up_after=3600, longest_backoff=8)


async def test_whoever_waits_is_counted_and_let_through() -> None:
    admission = _admission()
    turn, probe = await admission.leave(1, 3)
    assert (turn.images, probe, admission.waiting, admission.moved.is_set()) == (3, False, 0, True)


async def test_a_halt_cancels_whoever_waits_for_the_limit_or_sleeps_and_lets_nobody_in() -> None:
    admission = _admission(RateLimit(1, 600))
    await admission.leave(1, 1)
    waiting = [asyncio.create_task(admission.leave(number, 1)) for number in (2, 3)]
    sleeping = asyncio.create_task(admission.sleep(600))
    await until(lambda: admission.waiting == 2)
    admission.moved.clear()
    admission.halt()
    results = await asyncio.gather(*waiting, sleeping, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3
    assert (admission.waiting, admission.moved.is_set()) == (0, True)
    for late in (admission.leave(4, 1), admission.sleep(0)):
        with pytest.raises(asyncio.CancelledError):
            await late


async def test_a_halt_does_not_touch_whoever_is_through() -> None:
    admission = _admission()
    through, done = asyncio.Event(), asyncio.Event()

    async def call() -> str:
        await admission.leave(1, 1)
        through.set()
        await done.wait()
        return "answered"

    task = asyncio.create_task(call())
    await through.wait()
    admission.halt()
    done.set()
    assert await task == "answered"


async def test_a_429_pauses_for_what_the_server_says_or_longer_each_time_up_to_our_own_longest() -> None:
    admission = _admission()
    assert 5 <= admission.pause(RateLimited("slow", retry_after=5)) < 5.5
    admission.answered(1)
    pauses = [admission.pause(RateLimited("slow")) for _ in range(5)]
    for pause, least in zip(pauses, (2, 4, 8, 8, 8), strict=True):
        assert least <= pause <= 1.05 * least + 0.01
    assert admission.throttle.paused_for > 7
    admission.answered(1)
    assert 2 <= admission.pause(RateLimited("slow")) < 2.2


def test_nothing_but_429s_for_as_long_as_an_outage_may_last_is_one_and_any_other_answer_begins_anew() -> None:
    async def refused_for(seconds: float, admission: Admission) -> Stop | None:
        error = RateLimited("try again after 0.0 seconds", http_status=429)
        end = asyncio.get_running_loop().time() + seconds
        while True:
            admission.pause(error)
            if (stop := admission.failed(1, error)) or asyncio.get_running_loop().time() > end:
                return stop
            await admission.leave(1, 1)

    async def main() -> None:
        admission = _admission()
        assert await refused_for(3000, admission) is None
        admission.answered(1)
        assert await refused_for(3000, admission) is None
        assert admission.failed(2, Invalid("no", http_status=400)) is None
        assert await refused_for(3500, admission) is None
        stop = await refused_for(200, admission)
        assert isinstance(stop, OutageGivenUp)
        assert "nothing but 429s for 1.0 hours: try again after 0.0 seconds" in str(stop)

    run(main())


async def test_the_limit_that_a_429_states_is_adopted_where_it_is_lower() -> None:
    admission = _admission(RateLimit(50, 60.0))
    told = RateLimited("slow")
    assert admission.lower(told) is None
    told.limit = (60, 60.0)
    assert admission.lower(told) is None
    told.limit = (5, None)
    assert admission.lower(told) == admission.throttle.limit == RateLimit(5, 60.0)
    assert admission.lower(told) is None, "it is told once"
    assert admission.lowered == RateLimit(5, 60.0)


async def test_an_outage_lets_one_probe_through_and_its_answer_all_the_others() -> None:
    admission = _admission()
    assert admission.failed(1, NotSent("no way")) is None
    assert admission.away is not None
    waiting = [asyncio.create_task(admission.leave(number, 1)) for number in (1, 2, 3)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [probe for _, probe in (task.result() for task in done)] == [True]
    away = admission.answered(1)
    assert away is not None
    assert away >= 1
    assert sorted(probe for _, probe in await asyncio.gather(*waiting)) == [False, False, True]


async def test_a_probe_that_is_never_made_leaves_its_place_to_another() -> None:
    admission = _admission()
    admission.failed(1, NotSent("no way"))
    _, probe = await admission.leave(1, 1)
    assert probe
    second = asyncio.create_task(admission.leave(2, 1))
    await asyncio.sleep(0)
    assert not second.done()
    admission.left(1)
    assert (await second)[1]


async def test_a_refusal_too_shows_that_the_provider_is_back() -> None:
    admission = _admission()
    admission.failed(1, NotSent("no way"))
    assert admission.failed(1, ModelUnknown("no such model", http_status=404)) is None
    assert admission.away is None


async def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.circuit_breaker.NEVER_ANSWERED_SECONDS", 0.0)
    assert isinstance(_admission().failed(1, NotSent("no way")), WrongAddress)

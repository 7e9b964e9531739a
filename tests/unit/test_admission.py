"""Admission control: permits are waited for in order, and a stop ends every wait."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.config.load import RateLimit, RetryRules
from pipeline.engine.admission import Admission
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import Invalid, ModelUnknown, NotSent, OutageGivenUp, RateLimited, Stop, WrongAddress
from tests.support.virtual_time import run
from tests.support.workbench import lab, queued_request, until


def _admission(limit: RateLimit | None = None) -> Admission:
    rules = RetryRules(outage_hours=1.0, max_wait_seconds=8.0)
    return Admission(lab("http://x/v1", rate_limit=limit), "http://x/v1", rules)


async def test_a_waiting_call_is_counted_and_gets_a_permit() -> None:
    admission = _admission()
    permit = await admission.acquire(queued_request(1), 3)
    assert (permit.images, permit.is_probe, admission.waiting, admission.changed.is_set()) == (3, False, 0, True)


async def test_a_stop_ends_all_waits_at_once_and_admits_nobody() -> None:
    admission = _admission(RateLimit(1, 600))
    await admission.acquire(queued_request(1), 1)
    waiting = [asyncio.create_task(admission.acquire(queued_request(number), 1)) for number in (2, 3)]
    sleeping = asyncio.create_task(admission.sleep(600))
    await until(lambda: admission.waiting == 2 and admission.resting == 3)
    admission.changed.clear()
    admission.signal.set()
    results = await asyncio.gather(*waiting, sleeping, return_exceptions=True)
    assert [type(result) for result in results] == [Withdrawn] * 3
    assert (admission.waiting, admission.resting, admission.changed.is_set()) == (0, 0, True)
    for late in (admission.acquire(queued_request(4), 1), admission.sleep(0)):
        with pytest.raises(Withdrawn):
            await late


async def test_a_cancelled_wait_is_cancelled_and_not_withdrawn() -> None:
    admission = _admission(RateLimit(1, 600))
    await admission.acquire(queued_request(1), 1)
    waiting = asyncio.create_task(admission.acquire(queued_request(2), 1))
    await until(lambda: admission.waiting == 1)
    waiting.cancel("second SIGINT")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert admission.waiting == 0


async def test_a_stop_does_not_affect_a_call_in_flight() -> None:
    admission = _admission()
    admitted, done = asyncio.Event(), asyncio.Event()

    async def call() -> str:
        await admission.acquire(queued_request(1), 1)
        admitted.set()
        await done.wait()
        return "answered"

    task = asyncio.create_task(call())
    await admitted.wait()
    admission.signal.set()
    done.set()
    assert await task == "answered"


async def test_a_429_pauses_for_what_the_server_says_or_longer_each_time_up_to_our_own_longest() -> None:
    admission = _admission()
    assert 5 <= admission.pause(RateLimited("slow", retry_after=5)) < 5.5
    admission.record_success(queued_request(1))
    pauses = [admission.pause(RateLimited("slow")) for _ in range(5)]
    for pause, least in zip(pauses, (2, 4, 8, 8, 8), strict=True):
        assert least <= pause <= 1.05 * least + 0.01
    assert admission.throttle.paused_for > 7
    admission.record_success(queued_request(1))
    assert 2 <= admission.pause(RateLimited("slow")) < 2.2


def test_nothing_but_429s_for_as_long_as_an_outage_may_last_is_one_and_any_other_answer_begins_anew() -> None:
    async def refused_for(seconds: float, admission: Admission) -> Stop | None:
        error = RateLimited("try again after 0.0 seconds", http_status=429)
        end = asyncio.get_running_loop().time() + seconds
        while True:
            admission.pause(error)
            if (
                stop := admission.stop_after_failure(queued_request(1), error)
            ) or asyncio.get_running_loop().time() > end:
                return stop
            (await admission.acquire(queued_request(1), 1)).release()

    async def main() -> None:
        admission = _admission()
        assert await refused_for(3000, admission) is None
        admission.record_success(queued_request(1))
        assert await refused_for(3000, admission) is None
        assert admission.stop_after_failure(queued_request(2), Invalid("no", http_status=400)) is None
        assert await refused_for(3500, admission) is None
        stop = await refused_for(200, admission)
        assert isinstance(stop, OutageGivenUp)
        assert "nothing but 429s (too many requests) for 1.0 hours: try again after 0.0 seconds" in str(stop)

    run(main())


async def test_the_limit_that_a_429_states_is_adopted_where_it_is_lower() -> None:
    admission = _admission(RateLimit(50, 60.0))
    told = RateLimited("slow")
    assert admission.lower(queued_request(1), told) is None
    told.limit = (60, 60.0)
    assert admission.lower(queued_request(1), told) is None
    told.limit = (5, None)
    assert admission.lower(queued_request(1), told) == admission.throttle.limit == RateLimit(5, 60.0)
    assert admission.lower(queued_request(1), told) is None, "it is told once"
    assert admission.limits.stated == RateLimit(5, 60.0)


async def test_an_outage_lets_one_probe_through_and_its_answer_all_the_others() -> None:
    admission = _admission()
    assert admission.stop_after_failure(queued_request(1), NotSent("no way")) is None
    assert admission.down_for is not None
    waiting = [asyncio.create_task(admission.acquire(queued_request(number), 1)) for number in (1, 2, 3)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().is_probe for task in done] == [True]
    seconds = admission.record_success(queued_request(1))
    assert seconds is not None
    assert seconds >= 1
    assert sorted(permit.is_probe for permit in await asyncio.gather(*waiting)) == [False, False, True]


async def test_a_probe_that_is_never_made_leaves_its_place_to_another() -> None:
    admission = _admission()
    admission.stop_after_failure(queued_request(1), NotSent("no way"))
    permit = await admission.acquire(queued_request(1), 1)
    assert permit.is_probe
    second = asyncio.create_task(admission.acquire(queued_request(2), 1))
    await asyncio.sleep(0)
    assert not second.done()
    permit.release()
    assert (await second).is_probe


async def test_a_refusal_too_shows_that_the_provider_is_back() -> None:
    admission = _admission()
    admission.stop_after_failure(queued_request(1), NotSent("no way"))
    assert admission.stop_after_failure(queued_request(1), ModelUnknown("no such model", http_status=404)) is None
    assert admission.down_for is None


async def test_an_address_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.circuit_breaker.NEVER_ANSWERED_SECONDS", 0.0)
    assert isinstance(_admission().stop_after_failure(queued_request(1), NotSent("no way")), WrongAddress)

"""When a provider counts as away, who probes it, and when the run gives up; all in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engine.circuit_breaker import FAILURES, LONGEST_PAID_PROBE, LONGEST_PROBE, CircuitBreaker
from pipeline.errors import (
    Invalid,
    NotSent,
    OutageGivenUp,
    OutcomeUnknown,
    RateLimited,
    RequestError,
    ServerFault,
    Stop,
    WrongAddress,
)
from tests.support.virtual_time import run

HOUR = 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


def fault() -> RequestError:
    return ServerFault("overloaded", http_status=503)


async def probe_until_stopped(breaker: CircuitBreaker, error: RequestError) -> tuple[list[float], Stop]:
    """Fail every probe at once; give their moments, and the stop."""
    begin, moments = now(), []
    while True:
        assert await breaker.admit(1)
        moments.append(round(now() - begin, 2))
        if stop := breaker.stop_after_failure(1, error):
            return moments, stop


def test_a_call_that_never_left_is_an_outage_at_once_and_is_probed_at_growing_intervals() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", 300.0, known_good=True)
        breaker.stop_after_failure(1, NotSent("refused"))
        assert breaker.open_since == pytest.approx(now(), abs=0.01)
        moments, stop = await probe_until_stopped(breaker, NotSent("refused"))
        assert moments == pytest.approx([1, 3, 7, 15, 31, 63, 123, 183, 243, 300], abs=0.05)
        assert isinstance(stop, OutageGivenUp)

    run(main())


@pytest.mark.parametrize("error", [NotSent("refused"), OutcomeUnknown("cut")])
def test_a_provider_that_never_answered_is_a_wrong_address_after_a_minute(error: RequestError) -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", 12 * HOUR)
        for request in range(1, FAILURES + 1):
            breaker.stop_after_failure(request, error)
        moments, stop = await probe_until_stopped(breaker, error)
        assert moments == pytest.approx([1, 3, 7, 15, 31, 60], abs=0.05)
        assert isinstance(stop, WrongAddress)
        assert "check `base_url` http://x/v1" in str(stop)

    run(main())


def test_five_different_requests_that_fail_in_a_row_are_an_outage() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        for request in range(FAILURES - 1):
            breaker.stop_after_failure(request, fault())
            assert breaker.open_since is None
        breaker.stop_after_failure(FAILURES, fault())
        assert breaker.open_since is not None

    run(main())


def test_one_poisoned_request_alone_never_is() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        for _ in range(50):
            breaker.stop_after_failure(1, fault())
            assert not await breaker.admit(2)

    run(main())


@pytest.mark.parametrize("error", [RateLimited("slow", http_status=429), Invalid("no", http_status=400)])
def test_any_answer_between_begins_the_count_again(error: RequestError) -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        for request in range(FAILURES - 1):
            breaker.stop_after_failure(request, fault())
        assert breaker.stop_after_failure(7, error) is None
        breaker.stop_after_failure(8, fault())
        assert breaker.open_since is None

    run(main())


def test_one_probes_while_all_others_wait_and_an_answer_lets_them_go() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        breaker.stop_after_failure(0, NotSent("refused"))
        waiting = {request: asyncio.create_task(breaker.admit(request)) for request in range(1, 6)}
        await asyncio.sleep(500)
        probing = [request for request, task in waiting.items() if task.done()]
        assert len(probing) == 1
        breaker.on_succeeded()
        assert sorted(await asyncio.gather(*waiting.values())) == [False] * 4 + [True]
        assert breaker.open_since is None

    run(main())


def test_a_probe_that_is_called_off_lets_another_one_probe() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        breaker.stop_after_failure(0, NotSent("refused"))
        assert await breaker.admit(1)
        other = asyncio.create_task(breaker.admit(2))
        await asyncio.sleep(50)
        breaker.on_released(3)  # was not the probe
        await asyncio.sleep(50)
        assert not other.done()
        breaker.on_released(1)
        assert await other

    run(main())


def test_calls_in_flight_that_fail_during_an_outage_do_not_delay_the_probe() -> None:
    async def main() -> None:
        breaker, begin = CircuitBreaker("http://x/v1", HOUR), now()
        breaker.stop_after_failure(0, NotSent("refused"))
        for request in range(1, 9):
            await asyncio.sleep(0.1)
            breaker.stop_after_failure(request, OutcomeUnknown("cut"))
        assert await breaker.admit(9)
        assert now() - begin == pytest.approx(1, abs=0.01)

    run(main())


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(5, 60), min_size=FAILURES + 1, max_size=20),
    st.floats(1, 3 * HOUR),
    st.sampled_from([NotSent("refused"), OutcomeUnknown("cut"), ServerFault("overloaded", http_status=503)]),
)
def test_whatever_the_latencies_an_outage_costs_each_request_few_tries_and_ends_by_itself(
    latencies: list[float], seconds: float, error: RequestError
) -> None:
    calls: list[int] = []  # how many, by request, that were no probes
    probes: list[float] = []

    async def main() -> float:
        breaker, begin = CircuitBreaker("http://x/v1", 12 * HOUR), now()
        probing: set[int] = set()  # in the outage that lasts
        breaker.on_succeeded()

        async def carry(request: int, latency: float) -> None:
            calls.append(0)
            while True:
                probe = await breaker.admit(request)
                calls[request] += not probe
                if probe:
                    probes.append(now())
                    probing.add(request)
                assert len(probing) <= 1
                is_down = now() < begin + seconds
                await asyncio.sleep(latency)
                probing.discard(request)
                if not is_down:
                    probing.clear()
                    breaker.on_succeeded()
                    return
                assert breaker.stop_after_failure(request, error) is None
                breaker.on_released(request)

        await asyncio.gather(*(carry(*one) for one in enumerate(latencies)))
        return now() - begin

    took = run(main())
    longest = LONGEST_PAID_PROBE if error.outcome == "unknown" else LONGEST_PROBE
    assert took <= seconds + longest + 3 * max(latencies) + 1
    tries = 2 + max(latencies) / min(latencies)  # a quick one fails so often until the fifth other has failed once
    assert all(count <= tries for count in calls)
    assert len(probes) <= 8 + seconds / 60


def test_probes_that_may_be_billed_become_rarer_than_free_ones() -> None:
    async def main(error: RequestError) -> int:
        breaker = CircuitBreaker("http://x/v1", 12 * HOUR)
        breaker.on_succeeded()
        for request in range(FAILURES):
            breaker.stop_after_failure(request, error)
        moments, _ = await probe_until_stopped(breaker, error)
        return len(moments)

    free, paid = run(main(fault())), run(main(OutcomeUnknown("a gateway's", http_status=504)))
    assert 720 < free < 730
    assert 144 < paid < 155


def test_who_has_not_failed_yet_probes_before_who_has() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        for request in range(FAILURES):
            breaker.stop_after_failure(request, fault())
        failed = [asyncio.create_task(breaker.admit(request)) for request in range(FAILURES)]
        await asyncio.sleep(0)
        fresh = asyncio.create_task(breaker.admit(77))
        assert await fresh
        assert not any(task.done() for task in failed)
        breaker.stop_after_failure(77, fault())
        breaker.on_released(77)
        await asyncio.sleep(50)
        assert sum(task.done() for task in failed) == 1, "where all have failed, one of them probes"
        for task in failed:
            task.cancel()

    run(main())


def test_requests_that_fail_while_others_are_served_are_no_outage() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        for poisoned in range(FAILURES - 1):
            breaker.stop_after_failure(poisoned, fault())
        breaker.on_succeeded(50)
        for _ in range(3):
            for poisoned in range(FAILURES - 1):
                breaker.stop_after_failure(poisoned, fault())
            breaker.stop_after_failure(FAILURES, fault())
        assert breaker.open_since is None
        for other in range(60, 60 + FAILURES):
            breaker.stop_after_failure(other, fault())
        assert breaker.open_since is not None, "others that fail too still are one"

    run(main())


def test_a_request_that_is_served_after_all_is_no_suspect_any_more() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        breaker.stop_after_failure(1, fault())
        breaker.on_succeeded(2)
        breaker.on_succeeded(1)
        for request in range(1, FAILURES + 1):
            breaker.stop_after_failure(request, fault())
        assert breaker.open_since is not None

    run(main())


def test_after_an_outage_the_intervals_begin_anew() -> None:
    async def main() -> None:
        breaker = CircuitBreaker("http://x/v1", HOUR)
        for _ in range(2):
            begin = now()
            breaker.stop_after_failure(0, NotSent("refused"))
            assert await breaker.admit(1)
            assert now() - begin == pytest.approx(1, abs=0.01)
            breaker.stop_after_failure(1, NotSent("refused"))
            assert await breaker.admit(1)
            breaker.on_succeeded()

    run(main())

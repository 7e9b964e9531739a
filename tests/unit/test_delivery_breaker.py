"""When nothing more is bought because what is paid does not arrive, who probes, and what ends it; in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.delivery_breaker import OVERDUE, PROBES, DeliveryBreaker
from pipeline.errors import NotDelivered
from tests.support.virtual_time import run

if TYPE_CHECKING:
    from pipeline.errors import Stop

HOUR = 3600.0


def now() -> float:
    return asyncio.get_running_loop().time()


def broken(*requests: int, deterministic: bool = False, hours: float = 12) -> tuple[DeliveryBreaker, Stop | None]:
    """Return a breaker that was told of paid responses of these requests, and the last stop."""
    breaker, stop = DeliveryBreaker("lab", hours * HOUR), None
    for request in requests:
        stop = breaker.stop_after_overdue(
            request, "host unreachable", deterministic=deterministic, option="`picture_hosts`"
        )
    return breaker, stop


async def waits(breaker: DeliveryBreaker, request: int) -> float:
    """Return for how many seconds a request is held."""
    begin = now()
    await breaker.admit(request)
    return now() - begin


def test_fewer_paid_responses_than_the_bound_hold_nobody() -> None:
    async def main() -> None:
        breaker, stop = broken(*range(OVERDUE - 1))
        assert (breaker.is_open, stop, await waits(breaker, 9)) == (False, None, 0)

    run(main())


def test_one_request_counts_once_however_often_it_is_told() -> None:
    async def main() -> None:
        breaker, _ = broken(*[1] * (OVERDUE + 2))
        assert not breaker.is_open

    run(main())


def test_an_image_in_between_begins_the_count_again() -> None:
    async def main() -> None:
        breaker, _ = broken(*range(OVERDUE - 1))
        breaker.record_delivery()
        breaker.stop_after_overdue(7, "late", deterministic=False)
        assert not breaker.is_open

    run(main())


def test_what_time_cannot_help_stops_at_the_bound_with_its_cause_and_option() -> None:
    async def main() -> None:
        _, early = broken(*range(OVERDUE - 1), deterministic=True)
        _, stop = broken(*range(OVERDUE), deterministic=True)
        assert early is None
        assert isinstance(stop, NotDelivered)
        assert str(stop) == (
            "3 paid responses in a row brought no image, and nothing more is bought from `lab`: host unreachable;"
            " to allow it, set `picture_hosts`, then run `pipeline run`"
        )

    run(main())


def test_one_request_at_a_time_probes_after_growing_waits() -> None:
    async def main() -> None:
        breaker, _ = broken(*range(OVERDUE))
        assert await waits(breaker, 10) == pytest.approx(5)
        assert breaker.holds(11)
        assert not breaker.holds(10)
        second = asyncio.create_task(waits(breaker, 11))
        await asyncio.sleep(100)
        assert not second.done()
        breaker.stop_after_overdue(10, "host unreachable", deterministic=False)
        assert breaker.stop_after_probe(10) is None
        assert await second == pytest.approx(110)

    run(main())


def test_nobody_probes_while_a_paid_image_is_being_downloaded() -> None:
    async def main() -> None:
        breaker, _ = broken(*range(OVERDUE))
        with breaker.downloading():
            probe = asyncio.create_task(waits(breaker, 10))
            await asyncio.sleep(HOUR)
            assert not probe.done()
        assert await probe == pytest.approx(HOUR)

    run(main())


def test_probes_without_an_image_stop_the_provider() -> None:
    async def main() -> None:
        breaker, stop = broken(*range(OVERDUE))
        for request in range(10, 10 + PROBES):
            assert stop is None
            await breaker.admit(request)
            breaker.stop_after_overdue(request, "host unreachable", deterministic=False)
            stop = breaker.stop_after_probe(request)
        assert isinstance(stop, NotDelivered)

    run(main())


def test_the_first_probe_after_the_longest_outage_is_the_last() -> None:
    async def main() -> None:
        breaker, _ = broken(*range(OVERDUE), hours=1)
        await asyncio.sleep(2 * HOUR)
        await breaker.admit(10)
        breaker.stop_after_overdue(10, "host unreachable", deterministic=False)
        assert isinstance(breaker.stop_after_probe(10), NotDelivered)

    run(main())


def test_an_image_admits_all_that_wait_at_once() -> None:
    async def main() -> None:
        breaker, _ = broken(*range(OVERDUE))
        await breaker.admit(10)
        others = [asyncio.create_task(waits(breaker, number)) for number in range(11, 14)]
        await asyncio.sleep(20)
        breaker.record_delivery()
        assert await asyncio.gather(*others) == pytest.approx([20] * 3)
        assert not breaker.is_open

    run(main())


def test_the_end_of_a_request_that_does_not_probe_means_nothing() -> None:
    async def main() -> None:
        breaker, _ = broken(*range(OVERDUE))
        assert [breaker.stop_after_probe(0) for _ in range(PROBES + 1)] == [None] * (PROBES + 1)

    run(main())

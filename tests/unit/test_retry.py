"""Which errors are tried again, after how long, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.backoff import Backoff
from pipeline.config.load import RetryRules
from pipeline.engine.retry import call_with_retries, retrying
from pipeline.errors import (
    Invalid,
    KeyRefused,
    Moderated,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    RequestError,
    ServerFault,
    Unusable,
    UrlLost,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenacity import AsyncRetrying


async def tried(
    errors: Sequence[RequestError], rules: RetryRules, *, probes: bool = False
) -> tuple[object, list[float]]:
    """Meet these errors in turn, then succeed; give what came of it, and the waits."""
    waits: list[float] = []
    said: list[float] = []
    left = list(errors)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def attempt() -> str:
        if left:
            raise left.pop(0)
        return "made"

    def controller() -> AsyncRetrying:
        return retrying(
            rules,
            sleep,
            counts=lambda error: error.counted and not probes,
            before_sleep=lambda state: said.append(state.upcoming_sleep),
        )

    outcome: object
    try:
        outcome = await call_with_retries(attempt, controller)
    except RequestError as error:
        outcome = error
    assert said == waits
    return outcome, waits


@pytest.mark.parametrize("kind", [ServerFault, OutcomeUnknown, Unusable, UrlLost])
async def test_the_tenth_error_that_counts_is_the_last_and_comes_out_as_it_is(kind: type[RequestError]) -> None:
    errors = [kind(f"number {number}") for number in range(1, 30)]
    outcome, waits = await tried(errors, RetryRules())
    assert outcome is errors[9]
    assert len(waits) == 9


@pytest.mark.parametrize("kind", [NotSent, RateLimited])
async def test_what_is_free_is_tried_as_often_as_it_takes_and_waits_elsewhere(kind: type[RequestError]) -> None:
    outcome, waits = await tried([kind("free", retry_after=5.0)] * 200, RetryRules(attempts=1))
    assert outcome == "made"
    assert waits == [0.0] * 200


async def test_probes_of_an_outage_do_not_count() -> None:
    outcome, _ = await tried([ServerFault("away")] * 200, RetryRules(attempts=2), probes=True)
    assert outcome == "made"


async def test_free_errors_between_do_not_use_up_the_attempts_nor_stretch_the_waits() -> None:
    outcome, waits = await tried(
        [*[RateLimited("slow")] * 50, ServerFault("a"), ServerFault("b")], RetryRules(attempts=3)
    )
    assert outcome == "made"
    assert 0.5 <= waits[-2] <= 1.0 <= waits[-1] <= 2.0


@pytest.mark.parametrize("kind", [Invalid, Moderated, KeyRefused])
async def test_what_gives_up_or_stops_is_never_tried_again(kind: type[RequestError]) -> None:
    error = kind("no")
    assert await tried([error], RetryRules()) == (error, [])


async def test_the_server_s_own_wait_comes_before_ours_and_above_the_cap() -> None:
    _, waits = await tried([ServerFault("busy", retry_after=3600.0)], RetryRules(max_wait_seconds=10))
    assert 3600.0 <= waits[0] <= 3600.0 * 1.05


async def test_our_own_waits_grow_are_random_and_stay_under_the_cap() -> None:
    _, waits = await tried([ServerFault("busy")] * 2000, RetryRules(attempts=3000, max_wait_seconds=20))
    for number, wait in enumerate(waits):
        longest = min(2.0 ** min(number, 10), 20)
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 2000


async def test_attempts_are_counted_over_a_whole_run_and_not_since_the_last_progress() -> None:
    async def sleep(_seconds: float) -> None:
        pass

    calls, images = 0, 0

    async def make_two_images() -> None:
        nonlocal calls, images
        while images < 2:
            calls += 1
            if calls % 3:
                raise ServerFault(f"number {calls}")
            images += 1

    rules = RetryRules(attempts=4)
    with pytest.raises(ServerFault, match="number 5"):
        await call_with_retries(
            make_two_images, lambda: retrying(rules, sleep, lambda error: error.counted, lambda _state: None)
        )
    assert images == 1


async def test_without_a_failure_no_controller_is_created() -> None:
    async def make() -> str:
        return "made"

    def controller() -> AsyncRetrying:
        raise AssertionError

    assert await call_with_retries(make, controller) == "made"


def test_a_backoff_doubles_up_to_its_longest_delay_and_starts_again_after_a_reset() -> None:
    backoff = Backoff(1.0, 60.0, jitter=(1.0, 1.0))
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [backoff.next(300.0) for _ in range(4)] == [60, 120, 240, 300]
    backoff.reset()
    assert backoff.next() == 1
    assert 0.25 <= Backoff(0.5, 60.0).next() <= 0.5

"""What our own calls do not explain is other people's: the pace is halved for a window, and taken back in steps."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pipeline.config.load import RateLimit
from pipeline.engine.call_limits import CallLimits
from pipeline.engine.shared_limit import ShareWatch
from tests.support.virtual_time import run
from tests.support.workbench import LAB

SHARED = replace(LAB, rate_limit=RateLimit(32, 60.0, 1.0), shared_limit=RateLimit(50, 60.0, 1.0))


def _watch() -> tuple[CallLimits, ShareWatch]:
    limits = CallLimits(SHARED.rate_limit, SHARED.share)
    return limits, ShareWatch(limits, SHARED)


def _images(limits: CallLimits) -> int:
    assert limits.throttle.limit is not None
    return limits.throttle.limit.images


def test_a_429_halves_the_pace_for_a_window_and_steps_take_it_back() -> None:
    async def main() -> None:
        limits, watch = _watch()
        assert watch.step() == ""
        watch.on_refused()
        watch.on_refused()  # of the same burst
        assert "others use this limit" in watch.step()
        assert watch.step() == "", "it is said once"
        seen = []
        for _ in range(9):
            await asyncio.sleep(15)
            watch.step()
            seen.append(_images(limits))
        assert seen == [16, 16, 16, 20, 24, 28, 32, 32, 32]

    run(main())


def test_a_sign_within_the_window_prolongs_it_and_one_after_it_halves_again() -> None:
    async def main() -> None:
        limits, watch = _watch()
        watch.on_refused()
        await asyncio.sleep(50)
        watch.on_refused()
        await asyncio.sleep(50)
        watch.step()
        assert _images(limits) == 16
        watch.on_refused()
        assert _images(limits) == 8
        for _ in range(9):
            await asyncio.sleep(61)
            watch.on_refused()
        assert _images(limits) == 1, "and never less"

    run(main())


async def test_fewer_images_left_than_our_calls_leave_are_a_sign() -> None:
    for remaining, used, expected in (
        (None, 0, 32),
        (40, 10, 32),
        (22, 10, 32),
        (21, 10, 16),
        (0, 31, 16),
        (0, 32, 32),
    ):
        limits, watch = _watch()
        watch.on_answered(remaining, used)
        assert _images(limits) == expected, (remaining, used)


async def test_without_a_share_nothing_is_watched() -> None:
    plain = replace(LAB, rate_limit=RateLimit(50, 60.0))
    limits = CallLimits(plain.rate_limit)
    watch = ShareWatch(limits, plain)
    watch.on_refused()
    watch.on_answered(0, 1)
    ShareWatch(CallLimits(None), LAB).on_answered(0, 1)
    assert (_images(limits), watch.step()) == (50, "")


async def test_of_a_limit_that_the_server_states_only_the_share_is_used() -> None:
    limits, _ = _watch()
    assert limits.lower(50, None) is None
    assert limits.lower(25, None) == RateLimit(16, 60.0, 1.0)

"""The lowest of the limits that config, people and the server set is in force."""

from __future__ import annotations

import pytest

from pipeline.config.load import RateLimit
from pipeline.engine.call_limits import CallLimits

LIMIT = RateLimit(50, 60.0)


@pytest.mark.parametrize(
    ("images", "per_seconds"), [(50, None), (51, None), (50, 60.0), (5, 1.0), (100, 120.0), (0, None), (0, 60.0)]
)
async def test_a_limit_that_is_not_lower_is_never_adopted(images: int, per_seconds: float | None) -> None:
    limits = CallLimits(LIMIT)
    assert limits.lower(images, per_seconds) is None
    assert limits.throttle.limit == LIMIT
    assert CallLimits(None).lower(5, 60.0) is None


@pytest.mark.parametrize(("images", "per_seconds"), [(49, None), (5, 60.0), (50, 61.0), (50, 300.0), (1, 2.0)])
async def test_a_lower_one_always_is_and_keeps_our_margin(images: int, per_seconds: float | None) -> None:
    limits = CallLimits(RateLimit(50, 60.0, margin=1.1))
    stated = RateLimit(images, per_seconds or 60.0, margin=1.1)
    assert limits.lower(images, per_seconds) == limits.stated == limits.throttle.limit == stated


async def test_the_lowest_of_all_is_in_force_whatever_comes_first() -> None:
    limits = CallLimits(LIMIT)
    for images, expected in ((10, 10), (70, 50), (None, 50), (20, 20)):
        limits.set_images(images)
        assert limits.throttle.limit == RateLimit(expected, 60.0)
    assert limits.lower(30, None) == RateLimit(30, 60.0), "it is known, for when people take theirs back"
    assert limits.throttle.limit == RateLimit(20, 60.0)
    limits.set_images(None)
    assert limits.throttle.limit == RateLimit(30, 60.0)
    nothing = CallLimits(None)
    nothing.set_images(5)
    assert nothing.throttle.limit is None


async def test_a_limit_of_one_model_holds_for_its_calls_alone() -> None:
    limits = CallLimits(LIMIT)
    assert limits.lower(3, None, "small") == RateLimit(3, 60.0)
    assert limits.lower(3, None, "small") is None, "it is told once"
    assert (limits.stated, limits.throttle.limit) == (None, LIMIT)
    assert [one.images for one in await limits.reserve("small", 10)] == [3, 3]
    assert [one.images for one in await limits.reserve("other", 10)] == [10]
    limits.close()

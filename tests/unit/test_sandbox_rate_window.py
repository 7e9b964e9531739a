"""The strict sliding window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sandbox.rate_window import RateLimit, SlidingWindow

ARRIVALS = st.lists(st.tuples(st.floats(0, 20), st.integers(1, 10)), max_size=60)


@given(ARRIVALS, st.integers(1, 12))
def test_no_window_ever_holds_more_than_the_limit(arrivals: list[tuple[float, int]], images: int) -> None:
    window = SlidingWindow(RateLimit(images, 10.0))
    accepted: list[tuple[float, int]] = []
    now = 0.0
    for pause, count in arrivals:
        now += pause
        if window.admit(now, count) is None:
            accepted.append((now, count))
    for start, _ in accepted:
        assert sum(count for at, count in accepted if start <= at < start + 10.0) <= images


@given(ARRIVALS)
def test_the_returned_wait_is_sufficient_and_not_longer_than_needed(arrivals: list[tuple[float, int]]) -> None:
    window = SlidingWindow(RateLimit(10, 10.0))
    now = 0.0
    for pause, count in arrivals:
        now += pause
        wait = window.admit(now, count)
        if wait is not None:
            assert 0 < wait < 10.000001
            assert window.admit(now + wait * 0.999, count) is not None
            now += wait + 1e-6
            assert window.admit(now, count) is None


def test_more_images_than_the_limit_never_pass() -> None:
    window = SlidingWindow(RateLimit(5, 60.0))
    assert window.admit(0.0, 6) == 60.0
    assert window.admit(1000.0, 6) == 60.0
    assert window.admit(1000.0, 5) is None

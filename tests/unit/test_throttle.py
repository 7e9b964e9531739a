"""The limit holds in every window, is reached, and everyone is served; all in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.load import RateLimit
from pipeline.engine.throttle import Throttle
from pipeline.engine.window import WindowScheduler
from tests.support.virtual_time import run, steps

LIMIT = RateLimit(images=50, per_seconds=60.0)


def now() -> float:
    return asyncio.get_running_loop().time()


def worst_window(stamps: list[tuple[float, int]], window: float) -> int:
    """Most images in any window that begins with a send; windows are half open."""
    return max(
        (sum(images for moment, images in stamps if start <= moment < start + window) for start, _ in stamps), default=0
    )


@dataclass(frozen=True)
class Caller:
    """One call: when it comes, for how many images, how long after its reservation it leaves, and how it ends."""

    arrives: float
    images: int
    delay: float
    unsent: bool
    patience: float | None


callers = st.lists(
    st.builds(
        Caller,
        arrives=st.floats(0, 40),
        images=st.integers(1, 6),
        delay=st.sampled_from([0.0, 0.0, 0.1, 1 / 3, 2.0, 15.0]),
        unsent=st.booleans(),
        patience=st.sampled_from([None, None, None, 0.0, 0.7, 5.0]),
    ),
    max_size=30,
)
limits = st.builds(
    RateLimit,
    images=st.integers(4, 12),
    per_seconds=st.sampled_from([1.0, 7.3, 10.0, 60.0]),
    margin=st.sampled_from([1.0, 1.005, 1.1]),
)
histories = st.lists(st.tuples(st.floats(0, 80), st.integers(1, 4)), max_size=6)


@dataclass
class Record:
    """What the calls of a run did."""

    stamps: list[tuple[float, int]] = field(default_factory=list)
    reservations: int = 0
    gone: int = 0


async def call(throttle: Throttle, caller: Caller, record: Record) -> None:
    try:
        async with asyncio.timeout(caller.patience):
            reservation = await throttle.reserve(caller.images)
    except TimeoutError:
        record.gone += 1
        return
    record.reservations += 1
    await asyncio.sleep(caller.delay)
    if caller.unsent:
        reservation.cancel()
    else:
        reservation.on_sent()
        reservation.cancel()  # as the runner does in its `finally`: without effect
        record.stamps.append((now(), reservation.images))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(limits, callers, histories, st.lists(st.floats(0, 12), max_size=2), st.floats(0, 1e6))
def test_no_window_ever_holds_more_than_the_limit_and_everyone_is_served(
    limit: RateLimit, calls: list[Caller], history: list[tuple[float, int]], pauses: list[float], start: float
) -> None:
    calls = sorted(calls, key=lambda one: one.arrives)
    record = Record()

    async def main() -> tuple[float, int]:
        throttle, begin = Throttle(limit), now()
        kept: list[tuple[float, int]] = []
        for ago, images in history:
            kept.append((ago, images))
            if worst_window([(-moment, count) for moment, count in kept], limit.window) > limit.images:
                kept.pop()  # no history of ours
        throttle.remember(kept)
        record.stamps += [(begin - ago, images) for ago, images in kept]
        async with asyncio.TaskGroup() as group:
            for at, seconds in zip((5, 20), pauses, strict=False):
                asyncio.get_running_loop().call_at(begin + at, throttle.pause, seconds)
            for caller in calls:
                await asyncio.sleep(max(0.0, begin + caller.arrives - now()))
                group.create_task(call(throttle, caller, record))
        return now() - begin, steps()

    seconds, taken = run(main(), start=start)
    assert worst_window(record.stamps, limit.window) <= limit.images
    assert record.reservations + record.gone == len(calls)
    images = sum(one.images for one in calls) + sum(count for _, count in history)
    assert seconds <= 40 + 15 + sum(pauses) + (2 + 2 * images / limit.images) * (limit.window + 15)
    assert taken <= 200 + 40 * (images + len(calls))


def saturate(costs: list[int], minutes: float, delay: float = 0.0) -> tuple[list[tuple[float, int]], int]:
    record = Record()

    async def main() -> int:
        throttle = Throttle(LIMIT)
        tasks = [
            asyncio.create_task(call(throttle, Caller(0, images, delay, unsent=False, patience=None), record))
            for images in costs
        ]
        await asyncio.sleep(60 * minutes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return steps()

    return record.stamps, run(main())


@pytest.mark.parametrize(("delay", "share"), [(0.0, 0.99), (0.05, 0.99), (1.0, 0.97)])
def test_a_full_queue_of_singles_uses_the_limit(delay: float, share: float) -> None:
    stamps, taken = saturate([1] * 700, 10, delay)
    assert worst_window(stamps, LIMIT.window) == 50
    assert len(stamps) >= share * 500
    assert taken < 20_000


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
def test_a_full_queue_of_mixed_calls_uses_nearly_all_of_the_limit(delay: float) -> None:
    draw = random.Random(5)
    stamps, taken = saturate([draw.randint(1, 10) for _ in range(300)], 10, delay)
    assert worst_window(stamps, LIMIT.window) <= 50
    assert sum(images for _, images in stamps) >= 0.95 * 500
    assert taken < 20_000


def test_sends_are_spaced_from_the_first_second_on() -> None:
    stamps, _ = saturate([1] * 100, 1)
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(stamps)]
    assert min(gaps) >= LIMIT.window / LIMIT.images - 1e-6


def test_a_quiet_while_or_a_pause_is_followed_by_no_burst() -> None:
    async def main() -> list[float]:
        throttle, moments = Throttle(LIMIT), []
        for number in range(20):
            await throttle.reserve(1)
            moments.append(now())
            if number == 7:
                await asyncio.sleep(300)
            if number == 13:
                throttle.pause(300)
        return moments

    moments = run(main())
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= LIMIT.window / LIMIT.images - 1e-3


def test_a_call_for_more_than_the_limit_is_given_leave_for_as_much_as_it_allows() -> None:
    async def main() -> None:
        throttle = Throttle(RateLimit(images=10, per_seconds=60.0))
        reservation = await throttle.reserve(11)
        assert reservation.images == 10

    run(main())


def test_a_lower_limit_holds_at_once_for_those_in_line_too() -> None:
    async def main() -> None:
        throttle, stamps = Throttle(LIMIT), []

        async def send(images: int) -> None:
            reservation = await throttle.reserve(images)
            reservation.on_sent()
            stamps.append((now(), reservation.images))

        waiting = [asyncio.create_task(send(10)) for _ in range(40)]
        await asyncio.sleep(30)
        told, before = now(), len(stamps)
        throttle.enforce(RateLimit(5, 60.0))
        assert throttle.limit == RateLimit(5, 60.0)
        await asyncio.gather(*waiting)
        after = stamps[before:]
        assert {images for _, images in after} == {5}
        assert after[0][0] >= told + 30, "what was sent before counts"
        assert worst_window(after, throttle.limit.window) == 5
        assert len(after) / (after[-1][0] - after[0][0]) >= 0.97 / 60

    run(main())


def test_a_lower_limit_has_its_own_pace() -> None:
    async def main() -> None:
        throttle, moments = Throttle(LIMIT), []
        (await throttle.reserve(1)).on_sent()
        await asyncio.sleep(100)
        throttle.enforce(RateLimit(5, 60.0))
        for _ in range(5):
            (await throttle.reserve(1)).on_sent()
            moments.append(now())
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        assert min(gaps) == pytest.approx(60 * 1.005 / 5, abs=0.01)

    run(main())


def test_a_higher_limit_holds_at_once_for_those_in_line_too() -> None:
    async def main() -> None:
        throttle, moments = Throttle(RateLimit(1, 600.0)), []

        async def send() -> None:
            (await throttle.reserve(1)).on_sent()
            moments.append(now())

        waiting = [asyncio.create_task(send()) for _ in range(5)]
        await asyncio.sleep(100)
        assert len(moments) == 1
        throttle.enforce(RateLimit(60, 60.0, margin=1.0))
        await asyncio.sleep(2.1)
        assert [round(moment - moments[0]) for moment in moments] == [0, 100, 101, 102]
        throttle.enforce(throttle.limit or LIMIT)
        await asyncio.gather(*waiting)
        Throttle(None).enforce(LIMIT)

    run(main())


def test_a_higher_priority_goes_first() -> None:
    async def main() -> None:
        throttle, went = Throttle(RateLimit(60, 60.0)), []

        async def send(priority: int) -> None:
            (await throttle.reserve(1, priority)).on_sent()
            went.append(priority)

        async with asyncio.TaskGroup() as group:
            for priority in (0, 0, 5, -3, 0, 7):
                group.create_task(send(priority))
        assert went == [7, 5, 0, 0, 0, -3]

    run(main())


@pytest.mark.parametrize("images", [1, 10])
def test_calls_that_are_called_off_cost_no_time(images: int) -> None:
    async def main() -> None:
        throttle, begin = Throttle(LIMIT), now()
        for _ in range(200):
            reservation = await throttle.reserve(images)
            await asyncio.sleep(0.001)
            reservation.cancel()
        (await throttle.reserve(images)).on_sent()
        assert now() - begin < 1
        await throttle.reserve(1)
        assert now() - begin >= images * LIMIT.window / LIMIT.images

    run(main())


def test_of_those_in_line_many_may_be_called_off_and_the_others_go_on() -> None:
    async def main() -> None:
        throttle, begin = Throttle(LIMIT), now()

        async def ask(number: int) -> None:
            reservation = await throttle.reserve(1)
            await asyncio.sleep(0.01)
            (reservation.on_sent if number % 20 == 0 else reservation.cancel)()

        await asyncio.gather(*(ask(number) for number in range(200)))
        assert 9 * LIMIT.window / LIMIT.images <= now() - begin < 14 * LIMIT.window / LIMIT.images
        assert throttle.used == 10

    run(main())


def test_a_throttle_that_is_closed_leaves_nobody_waiting() -> None:
    async def main() -> None:
        throttle = Throttle(LIMIT)
        throttle.close()
        await throttle.reserve(50)
        waiting = [asyncio.create_task(throttle.reserve(1)) for _ in range(3)]
        await asyncio.sleep(1)
        throttle.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 3
        assert throttle.used == 50

    run(main())


def test_a_bug_in_the_line_reaches_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(WindowScheduler, "grant", fall)

    async def main() -> None:
        throttle = Throttle(LIMIT)
        results = await asyncio.gather(throttle.reserve(1), throttle.reserve(2), return_exceptions=True)
        assert [type(result) for result in results] == [ZeroDivisionError] * 2
        assert throttle.used == 0

    run(main())


def test_small_calls_go_ahead_of_a_large_one_that_waits_and_do_not_delay_it() -> None:
    async def main() -> tuple[list[str], float]:
        throttle, begin, order = Throttle(RateLimit(images=10, per_seconds=10.0, margin=1.0)), now(), []

        async def send(name: str, images: int) -> None:
            (await throttle.reserve(images)).on_sent()
            order.append(name)
            if name == "large":
                order.append(f"{now() - begin:.2f}")

        await send("first", 3)
        await asyncio.sleep(3)
        await send("second", 3)
        calls = [("large", 6), ("small", 1), ("smaller", 1), ("too much", 3)]
        await asyncio.gather(*(send(name, images) for name, images in calls))
        return order, now() - begin

    order, _ = run(main())
    assert order == ["first", "second", "small", "large", "10.00", "smaller", "too much"]


def test_what_an_earlier_run_sent_counts_after_a_restart() -> None:
    async def main() -> None:
        throttle, begin = Throttle(LIMIT), now()
        throttle.remember([(10.0, 25), (20.0, 25), (-3.0, 0)])
        await throttle.reserve(1)
        assert now() - begin == pytest.approx(LIMIT.window - 20.0, abs=0.01)

    run(main())


def test_a_pause_holds_everyone_and_the_longer_one_wins() -> None:
    async def main() -> None:
        throttle, begin = Throttle(LIMIT), now()
        throttle.pause(30)
        throttle.pause(10)
        throttle.pause(-5)
        waiting = [asyncio.create_task(throttle.reserve(1)) for _ in range(3)]
        await asyncio.sleep(29)
        assert not any(task.done() for task in waiting)
        throttle.pause(21)  # while they wait
        await waiting[0]
        assert now() - begin == pytest.approx(50, abs=0.01)
        assert throttle.paused_for == 0
        await asyncio.gather(*waiting)

    run(main())


def test_a_pause_holds_where_there_is_no_limit_too() -> None:
    async def main() -> None:
        throttle, begin = Throttle(None), now()
        throttle.pause(7)
        await asyncio.gather(*(throttle.reserve(1000) for _ in range(5)))
        assert now() - begin == pytest.approx(7, abs=0.01)

    run(main())


def test_a_call_that_was_never_sent_gives_its_room_back() -> None:
    async def main() -> None:
        throttle = Throttle(RateLimit(images=4, per_seconds=60.0))
        first = await throttle.reserve(4)
        second = asyncio.create_task(throttle.reserve(4))
        await asyncio.sleep(100)
        assert not second.done()
        begin = now()
        first.cancel()
        await second
        assert now() - begin < 0.01

    run(main())


def test_the_window_begins_when_a_call_is_sent_and_not_at_its_turn() -> None:
    async def main() -> None:
        limit = RateLimit(images=1, per_seconds=10.0)
        throttle = Throttle(limit)
        reservation = await throttle.reserve(1)
        await asyncio.sleep(25)
        reservation.on_sent()
        begin = now()
        await throttle.reserve(1)
        assert now() - begin >= limit.window

    run(main())


def test_a_cancelled_head_lets_the_next_one_go() -> None:
    async def main() -> None:
        throttle = Throttle(RateLimit(images=10, per_seconds=10.0))
        (await throttle.reserve(6)).on_sent()
        large = asyncio.create_task(throttle.reserve(10))
        small = asyncio.create_task(throttle.reserve(1))
        await asyncio.sleep(7)
        begin = now()
        assert not small.done()
        large.cancel()
        await small
        assert now() - begin < 0.01

    run(main())

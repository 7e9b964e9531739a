"""Who may call next: the window, the reservation and the backfill as pure logic, against a plain reading of each."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.load import RateLimit
from pipeline.engine.dispatcher import LOOKAHEAD
from pipeline.engine.window import Ticket, WindowScheduler

LIMIT = RateLimit(images=50, per_seconds=60.0)


def worst_window(sends: list[tuple[float, int]], window: float) -> int:
    """Count the most images in any half-open window; the worst one begins with a send."""
    return max((sum(n for moment, n in sends if start <= moment < start + window) for start, _ in sends), default=0)


@dataclass
class Day:
    """A schedule that is driven by hand: calls leave `delay` after their grant, and the pace is a plain sum."""

    limit: RateLimit
    delay: float = 0.0
    credit: float = 0.15  # of the window, that the pace makes up for
    now: float = 0.0
    sends: list[tuple[float, int]] = field(default_factory=list)
    order: list[Ticket] = field(default_factory=list)
    at: dict[Ticket, float] = field(default_factory=dict)
    pace: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = WindowScheduler(self.limit)

    def step(self, until: float = math.inf) -> Ticket | None:
        """Let one call go, or move the clock to when it is worth looking again, at most to `until`."""
        self.now = max(self.now, self.pace)
        ticket = self.scheduler.grant(self.now)
        if ticket is None:
            self.now = max(self.now, min(self.scheduler.next_change(), self.now + 3600, until))
            return None
        self.pace = max(self.now - self.credit * self.limit.window, self.pace) + ticket.images * self.scheduler.spacing
        self.order.append(ticket)
        self.at[ticket] = self.now
        self.scheduler.on_sent(ticket, self.now + self.delay)
        self.sends.append((self.now + self.delay, ticket.images))
        return ticket


def saturate(costs: list[int], limit: RateLimit = LIMIT, lookahead: int = LOOKAHEAD, delay: float = 0.0) -> Day:
    """Work off a long queue, of which so many stand in line at once."""
    day, left = Day(limit, delay), list(costs)
    while left or day.scheduler.waiting:
        while left and day.scheduler.waiting < lookahead:
            day.scheduler.enqueue(left.pop(0))
        day.step()
    return day


def share(day: Day) -> float:
    """Give the share of the limit that was used from the first send to the last, which itself is not counted."""
    images = sum(n for _, n in day.sends[:-1])
    return images / (day.sends[-1][0] - day.sends[0][0]) * day.limit.per_seconds / day.limit.images


@pytest.mark.parametrize("n", [1, 2, 5, 10, 25])
@pytest.mark.parametrize("delay", [0.0, 0.05])
def test_calls_of_one_size_that_divides_the_limit_use_all_of_it(n: int, delay: float) -> None:
    day = saturate([n] * (500 // n), delay=delay)
    assert share(day) >= 0.99
    assert worst_window(day.sends, LIMIT.window) == 50


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**9))
def test_mixed_calls_use_nearly_all_of_it(seed: int) -> None:
    draw = random.Random(seed)
    day = saturate([draw.randint(1, 10) for _ in range(300)])
    assert share(day) >= 0.95
    assert worst_window(day.sends, LIMIT.window) <= 50


@pytest.mark.parametrize("mix", [(1, 4, 10), (1, 10), (1, 2, 3, 4), (3, 8), tuple(range(1, 11))])
def test_calls_that_alternate_use_nearly_all_of_it(mix: tuple[int, ...]) -> None:
    assert share(saturate(list(mix) * (1500 // sum(mix)))) >= 0.95


def test_large_calls_are_not_starved_by_small_ones_that_never_end() -> None:
    day = Day(LIMIT)
    large = day.scheduler.enqueue(50)
    while large not in day.at:
        while day.scheduler.waiting < 60:
            day.scheduler.enqueue(1)
        day.step()
        assert day.now < 1
    second = day.scheduler.enqueue(50)
    arrived, ahead = day.now, 60
    while second not in day.at:
        while day.scheduler.waiting < 60:
            day.scheduler.enqueue(1)
        day.step()
    assert day.at[second] - arrived <= 2 * LIMIT.window + ahead * day.scheduler.spacing


events = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(1, 12)),
        st.tuples(st.just("wait"), st.floats(0, 30)),
        st.tuples(st.just("next"), st.just(0)),
        st.tuples(st.just("send"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("lower"), st.integers(1, 12)),
    ),
    max_size=80,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.lists(st.tuples(st.floats(-40, 0), st.integers(1, 3)), max_size=4), events)
def test_no_window_ever_holds_more_than_the_limit_whatever_comes(
    images: int, history: list[tuple[float, int]], happenings: list[tuple[str, float]]
) -> None:
    """Every window that ends with a send, or with a call that may leave any moment, is counted by hand."""
    scheduler, now = WindowScheduler(RateLimit(images, 10.0)), 0.0
    for moment, n in history:
        scheduler.remember(moment, n)
    sends, tickets, granted = list(history), [], []
    for what, value in happenings:
        if what == "join":
            tickets.append(scheduler.enqueue(int(value)))
            assert tickets[-1].images <= scheduler.limit.images
        elif what == "wait":
            now += value
        elif what == "next" and (ticket := scheduler.grant(now)):
            granted.append(ticket)
            window = scheduler.limit.window
            run_lock = sum(one.images for one in granted) + sum(n for moment, n in sends if moment + window > now)
            assert run_lock <= scheduler.limit.images
        elif what == "send" and value < len(granted):
            ticket = granted.pop(int(value))
            scheduler.on_sent(ticket, now)
            scheduler.on_sent(ticket, now)
            scheduler.withdraw(ticket)  # as the worker does at last: without effect
            sends.append((now, ticket.images))
        elif what == "leave" and value < len(tickets):
            ticket = tickets.pop(int(value))
            scheduler.withdraw(ticket)
            if ticket in granted:
                granted.remove(ticket)
        elif what == "lower" and value <= scheduler.limit.images:
            scheduler.enforce(RateLimit(int(value), 10.0))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(4, 20),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.01]),
)
def test_a_call_that_goes_first_never_puts_the_head_off(
    images: int, arrivals: list[tuple[float, int]], delay: float
) -> None:
    """The head's place, worked out from the log alone when it became the head, holds whoever comes after it."""
    day = Day(RateLimit(images, 10.0), delay, credit=0.0)
    window = day.limit.window
    left, arrived, head, promised = list(arrivals), 0.0, None, math.inf
    due: dict[Ticket, float] = {}
    while left or day.scheduler.waiting:
        while left and arrived + left[0][0] <= day.now:
            wait, n = left.pop(0)
            arrived += wait
            day.scheduler.enqueue(n)
        if not day.scheduler.waiting:
            day.now = arrived + left[0][0]
            continue
        first = next(iter(day.scheduler._queue))
        if first is not head:
            head = first
            expiries = sorted({day.now, day.pace, *(moment + window for moment, _ in day.sends)})
            promised = min(
                when
                for when in expiries
                if when >= max(day.now, day.pace)
                and head.images + sum(n for moment, n in day.sends if moment + window > when) <= images
            )
            due[head] = promised
        day.step(arrived + left[0][0] if left else math.inf)
    assert all(day.at[ticket] <= when + 1e-6 for ticket, when in due.items())
    assert worst_window(day.sends, window) <= images


def test_a_cancelled_head_leaves_its_reservation_to_the_next() -> None:
    day = Day(RateLimit(10, 10.0))
    day.scheduler.enqueue(9)
    assert day.step() is not None
    head, small = day.scheduler.enqueue(10), day.scheduler.enqueue(1)
    day.now = day.pace
    assert day.scheduler.grant(day.now) is None, "the small one would take the head's room when the window ends"
    day.scheduler.withdraw(head)
    assert day.scheduler.grant(day.now) is small


def test_a_granted_call_that_is_not_sent_gives_its_room_back_and_one_that_was_sent_does_not() -> None:
    scheduler = WindowScheduler(RateLimit(4, 10.0))
    scheduler.enqueue(4)
    second = scheduler.enqueue(4)
    first = scheduler.grant(0.0)
    assert first is not None
    assert scheduler.grant(1000.0) is None, "it holds its room however long it takes to leave"
    assert scheduler.next_change() == math.inf
    scheduler.withdraw(first)
    assert scheduler.grant(1000.0) is second
    scheduler.on_sent(second, 1001.0)
    scheduler.withdraw(second)
    scheduler.enqueue(1)
    assert scheduler.grant(1001.0 + 10.0) is None
    assert scheduler.next_change() == pytest.approx(1001.0 + 10.05)
    assert scheduler.grant(scheduler.next_change()) is not None


def test_a_lower_limit_holds_for_those_in_line_too() -> None:
    scheduler = WindowScheduler(LIMIT)
    tickets = [scheduler.enqueue(n) for n in (10, 3, 60)]
    assert [ticket.images for ticket in tickets] == [10, 3, 50]
    scheduler.enforce(RateLimit(5, 60.0))
    assert [ticket.images for ticket in tickets] == [5, 3, 5]
    assert scheduler.grant(0.0) is tickets[0]
    assert scheduler.grant(0.0) is None

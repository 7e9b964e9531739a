"""Which events get a line of their own, and which are only counted."""

from __future__ import annotations

from pipeline.engine.events import (
    CallSent,
    Paused,
    ProviderDown,
    ProviderUp,
    PurchasesHeld,
    PurchasesResumed,
    Retrying,
    Stopped,
    Stopping,
)
from pipeline.errors import QuotaSpent, ServerFault
from pipeline.progress.announcements import Announcements
from pipeline.progress.from_events import EventTotals
from pipeline.progress.view import provider_facts

DOWN, UP = ProviderDown("lab", "gone"), ProviderUp("lab", 4.0)


def test_short_pauses_get_no_line_and_of_the_longer_ones_the_first_does() -> None:
    seen = Announcements()
    assert [seen.of(Paused("lab", 0.1, "slow"), 0.0) for _ in range(50)] == [[]] * 50
    first, again, long = (Paused("lab", seconds, "slow") for seconds in (8.0, 9.0, 60.0))
    assert [seen.of(one, 1.0) for one in (first, again, long, long)] == [[first], [], [long], [long]]
    other = Paused("other", 8.0, "slow")
    assert seen.of(other, 2.0) == [other]


def test_an_outage_gets_a_line_once_it_has_lasted() -> None:
    seen = Announcements()
    assert (seen.of(DOWN, 10.0), seen.due(14.9), seen.of(UP, 14.9)) == ([], [], [])
    assert seen.of(DOWN, 20.0) == []
    assert (seen.due(25.0), seen.due(26.0), seen.of(UP, 30.0)) == ([DOWN], [], [UP])
    assert (seen.of(DOWN, 40.0), seen.of(UP, 50.0)) == ([], [DOWN, UP]), "nobody looked in between"


def test_a_hold_of_purchases_that_is_over_at_once_gets_no_line() -> None:
    seen = Announcements()
    held, resumed = PurchasesHeld("lab", "no image"), PurchasesResumed("lab", 0.4)
    assert (seen.of(held, 0.0), seen.of(UP, 0.1), seen.of(resumed, 0.4), seen.due(9.0)) == ([], [UP], [], [])
    assert (seen.of(held, 10.0), seen.due(15.0), seen.of(resumed, 16.0)) == ([], [held], [resumed])


def test_long_waits_and_what_a_person_acts_on_get_a_line() -> None:
    seen = Announcements()
    short, long = (Retrying("j", "a", seconds, ServerFault("busy")) for seconds in (3.0, 7200.0))
    assert (seen.of(short, 0.0), seen.of(long, 0.0)) == ([], [long])
    assert seen.of(Stopping("SIGINT"), 0.0) == [Stopping("SIGINT")]
    assert seen.of(CallSent("j", "a", "lab", 1), 0.0) == []


def test_what_got_no_line_is_counted_in_that_of_the_provider() -> None:
    totals = EventTotals()
    for _ in range(12):
        totals.count(Paused("lab", 0.1, "slow"), 0.0)
    totals.count(DOWN, 0.0)
    totals.count(UP, 0.0)
    (provider,) = totals.view(1.0).providers
    assert provider_facts(provider, 1.0)[-2:] == ["12 pauses", "1 outage"]


def test_a_stop_gets_a_line_if_the_run_goes_on_and_is_left_to_the_summary_if_it_ends() -> None:
    seen = Announcements()
    stop = Stopped("job `night`", QuotaSpent("no money"))
    assert seen.of(stop, 0.0) == []
    assert seen.due(4.9) == []
    assert seen.due(5.0) == [stop]
    assert seen.due(99.0) == []

"""A view from events and the ledger: how far, how fast, which bottleneck, and when it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.events import (
    CallEnded,
    CallSent,
    ImageStored,
    ProviderDown,
    ProviderPace,
    ProviderUp,
    RequestEnded,
    RunStarted,
    Stopping,
)
from pipeline.ledger.batch_queries import InBatches, RecordedBatch
from pipeline.ledger.job_summary import STATUSES, JobSummary
from pipeline.progress.from_events import EventTotals, ImageRate
from pipeline.progress.view import job_facts, provider_facts
from pipeline.reports.facts import clock

if TYPE_CHECKING:
    from pipeline.progress.view import JobView, View

NIGHT = 1_790_000_000.0
AT_THE_LIMIT = ProviderPace("lab", "limit", None, 50, 60.0, 0, None)


def summary(
    name: str = "lounge", pending: int = 100, *, provider: str = "lab", cost: float | None = None
) -> JobSummary:
    """Return the summary of a job whose requests each want one image for a cent."""
    counts = {**dict.fromkeys(STATUSES, 0), "pending": pending}
    return JobSummary(name, provider, False, counts, 0, pending, cost, pending * 0.01, 0)


def totals(*summaries: JobSummary) -> EventTotals:
    """Return the totals of a run that has started on these jobs."""
    made = EventTotals()
    made.count(RunStarted(tuple(one.name for one in summaries)), NIGHT)
    made.about_to_read()
    made.read(summaries)
    return made


def make(made: EventTotals, job: str, moment: float, *, status: str = "succeeded", provider: str = "lab") -> None:
    """Emit the events of one successful request."""
    made.count(CallSent(job, "x", provider, 1), moment)
    made.count(CallEnded(job, "x", provider, 1.0, 0.01, None), moment)
    if status == "succeeded":
        made.count(ImageStored(job, "x", "x-1.png"), moment)
    made.count(RequestEnded(job, "x", status, None), moment)


def job(view: View, name: str = "lounge") -> JobView:
    """Return one job of a view."""
    return next(one for one in view.jobs if one.name == name)


def test_events_are_added_to_what_the_ledger_said() -> None:
    made = totals(summary(cost=1.0))
    make(made, "lounge", NIGHT + 1)
    make(made, "lounge", NIGHT + 2, status="failed")
    made.count(CallSent("lounge", "y", "lab", 1), NIGHT + 3)
    view = made.view(NIGHT + 3)
    lounge = job(view)
    assert (lounge.done, lounge.failed, lounge.left, lounge.missing) == (1, 1, 98, 99)
    assert lounge.cost_usd == pytest.approx(1.02)
    assert lounge.expected_usd == pytest.approx(0.99)
    assert view.providers[0].in_flight == 1


def test_what_was_counted_before_a_reading_is_in_it_and_is_not_added_again() -> None:
    made = totals(summary())
    make(made, "lounge", NIGHT + 1)
    made.about_to_read()
    make(made, "lounge", NIGHT + 2)
    made.read([replace(summary(pending=99), counts={**summary().counts, "pending": 99, "succeeded": 1})])
    assert (job(made.view(NIGHT + 3)).done, job(made.view(NIGHT + 3)).left) == (2, 98)


def test_a_job_that_was_submitted_meanwhile_is_a_stranger_until_the_ledger_is_read() -> None:
    made = totals(summary())
    make(made, "lounge", NIGHT)
    assert not made.has_unknown_job()
    make(made, "later", NIGHT)
    assert made.has_unknown_job()
    made.about_to_read()
    made.read([summary(), summary("later"), summary("not mine")])
    assert [one.name for one in made.view(NIGHT).jobs] == ["lounge", "later"]
    assert not made.has_unknown_job()


def test_at_the_limit_the_end_is_reckoned_by_it_job_after_job() -> None:
    made = totals(summary(), summary("birds", 50))
    made.count(AT_THE_LIMIT, NIGHT)
    view = made.view(NIGHT)
    assert job(view).ends_at == NIGHT + 120
    assert job(view, "birds").ends_at == view.total.ends_at == NIGHT + 180


def test_where_the_provider_binds_the_end_is_reckoned_by_what_came_lately() -> None:
    made = totals(summary())
    made.count(replace(AT_THE_LIMIT, bottleneck="provider"), NIGHT)
    for second in range(21):
        make(made, "lounge", NIGHT + 3 * second)
    view = made.view(NIGHT + 60)
    assert view.providers[0].per_minute == pytest.approx(20)
    assert job(view).ends_at == pytest.approx(NIGHT + 60 + 79 * 3)


def test_a_pause_puts_the_end_off_and_what_came_before_it_is_no_measure_after_it() -> None:
    made = totals(summary())
    make(made, "lounge", NIGHT)
    make(made, "lounge", NIGHT + 1)
    made.count(replace(AT_THE_LIMIT, bottleneck="paused", until=NIGHT + 600), NIGHT + 2)
    view = made.view(NIGHT + 10)
    assert job(view).ends_at == pytest.approx(NIGHT + 600 + 98 / 50 * 60)
    assert (view.providers[0].bottleneck, view.providers[0].until) == ("paused", NIGHT + 600)
    made.count(AT_THE_LIMIT, NIGHT + 600)
    assert made.view(NIGHT + 606).providers[0].per_minute is None


def test_while_a_provider_is_away_nobody_knows_the_end() -> None:
    made = totals(summary())
    made.count(AT_THE_LIMIT, NIGHT)
    made.count(ProviderDown("lab", "no way", None, NIGHT + 600), NIGHT + 1)
    (lab,) = made.view(NIGHT + 2).providers
    assert (lab.down_since, lab.given_up_at) == (NIGHT + 1, NIGHT + 600)
    assert made.view(NIGHT + 2).total.ends_at is None
    made.count(ProviderUp("lab", 9.0), NIGHT + 10)
    assert made.view(NIGHT + 11).total.ends_at is not None


def test_a_provider_whose_jobs_have_ended_is_shown_no_more() -> None:
    made = totals(summary(pending=1), summary("birds", 5, provider="other"))
    make(made, "lounge", NIGHT)
    make(made, "birds", NIGHT, provider="other")
    assert [one.name for one in made.view(NIGHT + 1).providers] == ["other"]


def test_a_stop_shows() -> None:
    made = totals(summary())
    made.count(Stopping("SIGINT"), NIGHT)
    assert made.view(NIGHT).stopping


def test_the_first_image_starts_the_count_and_a_moment_is_too_little_to_say() -> None:
    rate = ImageRate()
    assert rate.per_minute(NIGHT, 60) is None
    for second in range(10):
        rate.count(NIGHT + second)
    assert rate.per_minute(NIGHT + 4, 60) is None
    assert rate.per_minute(NIGHT + 9, 60) == pytest.approx(60)
    assert rate.per_minute(NIGHT + 9, 60, least=10) is None
    assert rate.per_minute(NIGHT + 600, 60) == 0


def test_the_count_of_a_fast_run_stays_small() -> None:
    rate = ImageRate()
    for number in range(100_000):
        rate.count(NIGHT + number / 100)
    assert len(rate._seconds) < 310
    assert rate.per_minute(NIGHT + 1000, 60) == pytest.approx(6000, rel=0.05)


def in_batches(name: str = "lounge", *, pending: int = 0, mode: str = "batch", made: int = 84) -> JobSummary:
    """Return the summary of a job with a hundred requests in a batch, and others pending."""
    batch = RecordedBatch("batch_1", "lab", "m", "in_progress", 100, made, 1, NIGHT, NIGHT + 86_400, None)
    counts = {**dict.fromkeys(STATUSES, 0), "pending": pending, "running": 100}
    made_before = replace(summary(name, pending + 100), counts=counts, mode=mode)
    return replace(made_before, batches=(batch,), in_batches=InBatches(100, 100))


def test_what_is_in_batches_is_no_call_and_no_limit_tells_its_end() -> None:
    made = totals(in_batches())
    view = made.view(NIGHT + 1)
    (provider,) = view.providers
    assert (provider.name, provider.in_flight, provider.bottleneck) == ("lab", 0, "batch")
    assert provider_facts(provider, NIGHT) == [
        f"waits for 1 batch, which expires {clock(NIGHT + 86_400, NIGHT)} at the latest",
    ]
    lounge = job(view)
    assert job_facts(lounge) == ["0 done", "100 left", "in batch 84/100"]
    assert (lounge.missing, lounge.ends_at, view.total.ends_at) == (0, None, None)
    made.count(AT_THE_LIMIT, NIGHT + 2)
    made.count(CallSent("lounge", "x", "lab", 1), NIGHT + 2)
    assert made.view(NIGHT + 3).providers[0].bottleneck == "limit", "a job may have both"
    assert job(made.view(NIGHT + 3)).ends_at is None


def test_a_job_beside_one_in_batches_does_not_wait_for_it() -> None:
    made = totals(in_batches("night", pending=50), in_batches("auto", pending=10, mode="auto"), summary("day", 100))
    made.count(AT_THE_LIMIT, NIGHT)
    view = made.view(NIGHT)
    assert job(view, "day").ends_at == NIGHT + 110 / 50 * 60, "after the ten of the other job that are made by calls"
    assert (job(view, "night").ends_at, job(view, "auto").ends_at) == (None, None)
    assert view.total.out.requests == 200


def test_images_of_a_batch_say_nothing_of_the_speed_of_calls() -> None:
    made = totals(in_batches())
    for second in range(60):
        made.count(ImageStored("lounge", "x", "x-1.png"), NIGHT + second)
    assert made.view(NIGHT + 60).providers[0].per_minute is None


def test_a_job_at_a_route_ends_by_the_speed_of_all_its_members() -> None:
    made = totals(replace(summary(provider="night"), members=("a", "b")))
    for second in range(1, 21):
        for name in ("a", "b"):
            made.count(CallSent("lounge", "x", name, 1), NIGHT + second)
            made.count(CallEnded("lounge", "x", name, 1.0, 0.01, None), NIGHT + second)
            made.count(ImageStored("lounge", "x", "x-1.png", name), NIGHT + second)
            made.count(RequestEnded("lounge", "x", "succeeded", None), NIGHT + second)
    view = made.view(NIGHT + 20)
    assert {one.name: one.per_minute for one in view.providers} == {"a": pytest.approx(60), "b": pytest.approx(60)}
    (shown,) = view.jobs
    assert shown.left == 60
    assert shown.ends_at == pytest.approx(NIGHT + 20 + 30, abs=2)

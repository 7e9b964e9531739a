"""A view as lines of text, written when something has changed."""

from __future__ import annotations

import time
from dataclasses import replace

from pipeline.ledger.batch_queries import RecordedBatch
from pipeline.progress.plain import MOST_JOBS, ChangedLines, view_lines
from pipeline.progress.view import JobView, ProviderView, View
from pipeline.reports.facts import clock

NOW = time.mktime((2026, 11, 22, 23, 5, 0, 0, 0, -1))  # a Sunday evening
LOUNGE = JobView("lounge", "lab", 612, 3, 1017, 1017, 9.79, 16.27, rehearsal=False, ends_at=NOW + 7 * 3600)
LAB = ProviderView("lab", 48.31, 50.0, 67, "limit")


def view(*jobs: JobView, lab: ProviderView = LAB, later: float = 0.0, stopping: bool = False) -> View:
    """Return a view of these jobs."""
    return View(NOW + later, jobs or (LOUNGE,), (lab,), stopping)


def test_a_view_in_words() -> None:
    assert list(view_lines(view())) == [
        "lounge: 612 done · 3 failed · 1,017 left · $9.79 of about $26.06 · done about Mon 06:05",
        "lab: 48.3 of 50 images a minute · 67 calls in flight · waiting for the limit",
    ]


def test_what_holds_a_provider_is_said_with_its_moment() -> None:
    def said(**more: object) -> str:
        return list(view_lines(view(lab=replace(LAB, **more))))[1].split(" · ", 2)[2]  # type: ignore[arg-type]

    assert said(bottleneck="paused", until=NOW + 61) == "paused until 23:06:01"
    assert said(bottleneck="paused", until=NOW - 1) == "paused", "a moment that is over says nothing"
    assert said(bottleneck="provider") == "waiting for responses"
    assert said(bottleneck="provider", down_since=NOW - 600) == "provider down since 22:55"
    down = said(bottleneck="provider", down_since=NOW - 600, given_up_at=NOW + 600)
    assert down == "provider down since 22:55, tried again until 23:15"
    assert (
        said(bottleneck="downloads", expires_at=NOW + 600)
        == "waiting for downloads · download before 23:15 (when the next link expires)"
    )
    assert said(bottleneck="disk") == "waiting for the disk"


def test_an_unknown_price_a_rehearsal_and_an_end_are_said() -> None:
    def said(**more: object) -> str:
        return next(view_lines(view(replace(LOUNGE, **more))))  # type: ignore[arg-type]

    assert "$9.79, to come unknown" in said(expected_usd=None)
    assert "$9.79 of about $26.06 (rehearsal, not charged)" in said(rehearsal=True)
    assert said(left=0, failed=0, ends_at=None) == "lounge: 612 done · $9.79"


def test_only_what_has_changed_is_said_again() -> None:
    news = ChangedLines()
    assert len(list(news.of(view()))) == 2
    assert list(news.of(view(later=5, lab=replace(LAB, per_minute=47.0)))) == []
    (line,) = news.of(view(replace(LOUNGE, done=613, left=1016), later=10))
    assert line.startswith("23:05:10 lounge: 613 done")
    (line,) = news.of(view(replace(LOUNGE, done=613, left=1016), later=15, lab=replace(LAB, bottleneck="provider")))
    assert line.startswith("23:05:15 lab: ")


def test_of_many_jobs_those_at_work_are_named_and_all_are_summed() -> None:
    ended = [replace(LOUNGE, name=f"old-{k}", left=0, missing=0, ends_at=None) for k in range(100)]
    working = [replace(LOUNGE, name=f"new-{k}") for k in range(100)]
    lines = list(view_lines(view(*ended, *working)))
    assert len(lines) == MOST_JOBS + 2
    assert lines[0].startswith("200 jobs: 122,400 done · 600 failed · 101,700 left")
    assert lines[1].startswith("new-0: ")


def test_a_moment_of_another_day_says_its_day() -> None:
    assert clock(NOW + 60, NOW) == "23:06"
    assert clock(NOW + 7 * 3600, NOW) == "Mon 06:05"
    assert clock(NOW + 20 * 86400, NOW) == "12 Dec 23:05"


def test_what_is_in_batches_has_a_fact_of_its_own_and_its_progress_is_news() -> None:
    batch = RecordedBatch("batch_1", "lab", None, "in_progress", 1200, 840, 0, NOW, NOW + 86_400, None)
    night = replace(LOUNGE, batches=(batch,), ends_at=None)
    waiting = replace(LAB, in_flight=0, bottleneck="batch", out=night.out)
    assert list(view_lines(view(night, lab=waiting))) == [
        "lounge: 612 done · 3 failed · 1,017 left · in batch 840/1,200 · $9.79 of about $26.06",
        (
            "lab: 48.3 of 50 images a minute · 0 calls in flight · waits for 1 batch, which expires Mon 23:05 at the"
            " latest"
        ),
    ]
    news = ChangedLines()
    assert len(list(news.of(view(night, lab=waiting)))) == 2
    (line,) = news.of(view(replace(night, batches=(replace(batch, completed=841),)), lab=waiting))
    assert "in batch 841/1,200" in line

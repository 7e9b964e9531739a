"""A view from the ledger alone: how fast a run is, its bottleneck, and when it ends."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import Config, RateLimit
from pipeline.config.opening_hours import DailySpan, OpeningHours
from pipeline.engine.hold import Hold
from pipeline.errors import BadInput
from pipeline.ledger import attempts
from pipeline.ledger.lock import run_lock
from pipeline.ledger.outages import Outage, clear_outages, record_outage
from pipeline.progress.from_ledger import read_view
from pipeline.progress.view import ProviderView, View
from tests.support.workbench import LAB, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.workbench import Bench

NOW = 1_790_000_000.0
LIMITED = dataclasses.replace(LAB, rate_limit=RateLimit(50, 60))


def look(bench: Bench, job: str | None = None) -> View:
    """Return the view from the ledger."""
    return read_view(Config(None, bench.folder, None, {"lab": LIMITED}), job, NOW).view


def lab(bench: Bench) -> ProviderView:
    """Return the only provider of the view."""
    (provider,) = look(bench).providers
    return provider


def call(
    bench: Bench, ago: float, outcome: str | None = None, *, took: float = 1.0, n: int = 1, stored: int = 0
) -> int:
    """Record a call that was sent some seconds ago and whose images are `stored`; it is open if it has no outcome."""
    ended = None if outcome is None else NOW - ago + took
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES (1, 'lab', ?, ?, ?, ?)",
        *(n, NOW - ago, ended, outcome),
    )
    attempt = int(bench.one("SELECT max(pk) FROM attempt"))
    for number in range(1, stored + 1):
        bench.set(
            "INSERT INTO image (request, attempt, job, number, state, file, sha256, bytes)"
            " VALUES (1, ?1, 1, ?2, 'stored', ?1 || '-' || ?2, printf('%064d', 0), 1)",
            *(attempt, number),
        )
    return attempt


@pytest.fixture
def owner(bench: Bench) -> Iterator[None]:
    """A run that holds the lock, since long ago."""
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        bench.set("UPDATE holder SET started_at = ?", NOW - 10_000)
        yield


def test_where_nothing_was_submitted_there_is_nothing(tmp_path: Path) -> None:
    assert read_view(Config(None, tmp_path, None, {}), None, NOW).view == View(NOW, [], [])


def test_images_per_minute_are_those_on_disk_of_the_calls_answered_in_the_last_minute(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    for k in range(100):
        call(bench, 3.0 * k + 1, "answered", n=10, stored=2)
    call(bench, 5, "refused")
    assert lab(bench).per_minute == 40, "what was asked for and did not come is no speed"
    assert lab(bench).limit == 50


def test_first_calls_are_measured_by_the_seconds_since_the_first(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    assert lab(bench).per_minute is None
    for _ in range(5):
        call(bench, 10, "answered", stored=1)
    assert lab(bench).per_minute == pytest.approx(30)


def test_a_young_run_is_measured_by_its_own_seconds_though_calls_of_an_older_one_are_here(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    call(bench, 5000, "answered", stored=1)
    for _ in range(5):
        call(bench, 8, "answered", stored=1)
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        bench.set("UPDATE holder SET started_at = ?", NOW - 10)
        assert lab(bench).per_minute == pytest.approx(30)


@pytest.mark.usefixtures("owner")
def test_calls_in_flight_are_the_open_ones_however_old(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    call(bench, 3)
    call(bench, 5000)
    assert (lab(bench).in_flight, lab(bench).bottleneck) == (2, "provider")


def test_without_a_run_at_work_nothing_is_in_flight_though_a_dead_one_left_open_calls(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    call(bench, 3)
    assert (lab(bench).in_flight, lab(bench).bottleneck) == (0, "")


def test_without_a_run_at_work_nothing_ends_and_nothing_binds(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    for k in range(5):
        call(bench, 10 * k, "answered", n=9)
    assert lab(bench).bottleneck == ""
    assert look(bench).total.ends_at is None


@pytest.mark.usefixtures("owner")
def test_a_window_that_is_full_is_bound_by_the_limit_and_reckons_with_it(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    for k in range(5):
        call(bench, 10 * k, n=9)
    assert lab(bench).bottleneck == "limit"
    assert look(bench).total.ends_at == NOW + 120


@pytest.mark.usefixtures("owner")
def test_a_young_run_that_keeps_the_limit_s_pace_is_bound_by_it_and_a_slower_one_is_not(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    for k in range(10):
        call(bench, 1.2 * k)
    assert lab(bench).bottleneck == "limit"
    bench.set("UPDATE attempt SET sent_at = ? - 2 * (? - sent_at)", NOW, NOW)
    assert lab(bench).bottleneck == "provider"


@pytest.mark.usefixtures("owner")
def test_a_pause_is_said_with_its_end_and_a_past_one_is_not(bench: Bench) -> None:
    bench.submit(request(1, n=50))
    attempts.record_pause(bench.connection, "lab", NOW - 1)
    assert lab(bench).bottleneck == ""
    attempts.record_pause(bench.connection, "lab", NOW + 600)
    assert (lab(bench).bottleneck, lab(bench).until) == ("paused", NOW + 600)
    assert look(bench).total.ends_at == NOW + 660


def test_a_provider_that_is_down_is_said_with_no_end_while_a_run_is_at_work(bench: Bench) -> None:
    bench.submit(request(1, n=50))
    record_outage(bench.connection, "lab", Outage(NOW - 600, NOW + 600, "no way"))
    assert (lab(bench).down_since, lab(bench).given_up_at) == (None, None), "no run is at work: it is stale"
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        assert (lab(bench).down_since, lab(bench).given_up_at) == (NOW - 600, NOW + 600)
        assert look(bench).total.ends_at is None
        clear_outages(bench.connection, "lab")
        assert lab(bench).down_since is None
        assert look(bench).total.ends_at is not None


@pytest.mark.usefixtures("owner")
def test_outside_its_opening_hours_a_provider_is_held_as_the_run_at_work_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    bench.submit(request(1, n=50))
    minute = int(NOW // 60) % 1440
    for start, end, is_closed in ((minute + 5, minute + 60, True), (minute - 5, minute + 60, False)):
        hours = OpeningHours((DailySpan(start % 1440, end % 1440, "UTC"),))
        provider = dataclasses.replace(LIMITED, window=hours)
        (shown,) = read_view(Config(None, bench.folder, None, {"lab": provider}), None, NOW).view.providers
        opens = NOW // 60 * 60 + 300 if is_closed else None
        assert (shown.bottleneck, shown.until) == ("held" if is_closed else "", opens)
        assert Hold(hours).is_closed is is_closed


@pytest.mark.usefixtures("owner")
def test_paid_urls_bind_where_they_are_more_than_the_calls_and_the_nearest_death_is_said(bench: Bench) -> None:
    bench.submit(request(1, n=100))
    attempt = call(bench, 5, "answered")
    for number in (1, 2):
        bench.set(
            "INSERT INTO image (request, attempt, job, number, state, url, expires_at)"
            " VALUES (1, ?, 1, ?, 'paid', 'u', ?)",
            *(attempt, number, NOW + 1000 * number),
        )
    call(bench, 1)
    assert (lab(bench).bottleneck, lab(bench).expires_at) == ("downloads", NOW + 1000)


def test_a_job_alone_can_be_looked_at_and_an_unknown_one_is_refused(bench: Bench) -> None:
    bench.submit(request(1))
    bench.submit(request(2), name="other")
    assert [one.name for one in look(bench, "OTHER").jobs] == ["other"]
    with pytest.raises(BadInput, match="known are job, other"):
        look(bench, "nothing")


def test_providers_without_work_and_those_that_left_the_config_do_no_harm(bench: Bench) -> None:
    bench.submit(request(1), provider=dataclasses.replace(LAB, name="gone"))
    bench.submit(request(2), name="ended")
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE prompt = 'prompt 2'")
    (provider,) = look(bench).providers
    assert (provider.name, provider.limit) == ("gone", None)
    assert look(bench).total.ends_at is None


@pytest.mark.usefixtures("owner")
def test_lines_of_batches_are_no_calls_and_do_not_keep_the_limit_s_pace(bench: Bench) -> None:
    bench.submit(*map(request, range(60)))
    bench.send_batch(*range(1, 51), completed=7, sent_at=NOW - 30, expires_at=NOW + 86_400)
    shown = lab(bench)
    assert (shown.in_flight, shown.bottleneck, shown.per_minute) == (0, "batch", None)
    assert shown.out.requests == 50
    assert look(bench).jobs[0].missing == 10
    assert look(bench).jobs[0].ends_at is None
    call(bench, 5.0)
    assert (lab(bench).in_flight, lab(bench).bottleneck) == (1, "provider")


def test_without_a_run_at_work_nobody_waits_for_batches_and_they_are_shown(bench: Bench) -> None:
    bench.submit(request(1))
    bench.send_batch(1, sent_at=NOW - 30, expires_at=NOW + 86_400)
    assert (lab(bench).bottleneck, lab(bench).out.batches) == ("", 1)

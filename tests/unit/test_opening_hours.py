"""A window is where the clock of its zone shows its hours, also on days on which clocks change."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.load import Provider, RateLimit
from pipeline.config.opening_hours import DailySpan, OpeningHours
from tests.unit.test_config import provider, read, refusal

if TYPE_CHECKING:
    from pathlib import Path

BERLIN = "Europe/Berlin"
NIGHT = OpeningHours((DailySpan(22 * 60, 7 * 60, BERLIN),))


def at(text: str, *, fold: int = 0, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def shown(moment: float, zone: str = BERLIN) -> str:
    return datetime.fromtimestamp(moment, ZoneInfo(zone)).isoformat(" ", "minutes")


def test_an_edge_belongs_to_what_follows_it() -> None:
    assert not NIGHT.is_open(at("2026-11-28 21:59:59.999"))
    assert NIGHT.is_open(at("2026-11-28 22:00"))
    assert NIGHT.is_open(at("2026-11-29 06:59:59.999"))
    assert not NIGHT.is_open(at("2026-11-29 07:00"))
    assert NIGHT.next_change(at("2026-11-28 21:59:59.999")) == at("2026-11-28 22:00")
    assert NIGHT.next_change(at("2026-11-28 22:00")) == at("2026-11-29 07:00")


@pytest.mark.parametrize(("evening", "hours"), [("2026-03-28", 8), ("2026-10-24", 10), ("2026-11-28", 9)])
def test_the_night_on_which_clocks_change_is_shorter_or_longer(evening: str, hours: int) -> None:
    start = at(f"{evening} 22:00")
    end = NIGHT.next_change(start)
    assert (end - start) / 3600 == hours
    assert shown(end)[11:16] == "07:00"


def test_hours_that_the_clock_skips_do_not_open_and_those_that_it_shows_twice_open_twice() -> None:
    narrow = OpeningHours((DailySpan(2 * 60 + 15, 2 * 60 + 45, BERLIN),))
    assert shown(narrow.next_change(at("2026-03-28 12:00"))) == "2026-03-30 02:15+02:00"
    begun = OpeningHours((DailySpan(2 * 60 + 30, 4 * 60, BERLIN),))
    assert shown(begun.next_change(at("2026-03-28 12:00"))) == "2026-03-29 03:00+02:00"
    moment, changes = at("2026-10-24 12:00"), []
    for _ in range(4):
        moment = narrow.next_change(moment)
        changes.append(shown(moment))
    assert changes == [
        "2026-10-25 02:15+02:00",
        "2026-10-25 02:45+02:00",
        "2026-10-25 02:15+01:00",
        "2026-10-25 02:45+01:00",
    ]


@pytest.mark.parametrize("zone", [BERLIN, "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "UTC"])
@given(start=st.integers(0, 1439), end=st.integers(0, 1440), days=st.floats(0, 730))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_between_two_changes_it_is_open_or_closed_at_every_moment(zone: str, start: int, end: int, days: float) -> None:
    if start == end or (start, end) == (0, 1440):
        return
    hours = OpeningHours((DailySpan(start, end, zone),))
    moment = at("2026-01-01 00:00", zone="UTC") + days * 86400
    change, state = hours.next_change(moment), hours.is_open(moment)
    assert moment < change < moment + 3 * 86400
    assert hours.is_open(change) != state
    assert hours.is_open(change - 0.01) == state
    steps = [moment + (change - moment) * part / 97 for part in range(97)]
    assert all(hours.is_open(step) == state for step in steps)


def test_several_spans_are_open_in_any_and_without_a_gap_for_ever() -> None:
    both = OpeningHours((DailySpan(0, 6 * 60, "UTC"), DailySpan(5 * 60, 12 * 60, "UTC")))
    assert both.next_change(at("2026-11-28 00:00", zone="UTC")) == at("2026-11-28 12:00", zone="UTC")
    day = OpeningHours((DailySpan(0, 720, "UTC"), DailySpan(720, 1440, "UTC")))
    assert day.next_change(0.0) == math.inf
    assert day.after(1000.0, 10**7) == 1000.0 + 10**7


def test_work_goes_on_in_open_hours_only() -> None:
    assert NIGHT.after(at("2026-11-28 23:00"), 3600) == at("2026-11-29 00:00")
    assert NIGHT.after(at("2026-11-28 12:00"), 10 * 3600) == at("2026-11-29 23:00")
    assert NIGHT.after(at("2026-11-28 12:00"), 0) == at("2026-11-28 12:00")
    years = (NIGHT.after(at("2026-11-28 22:00"), 9 * 3600 * 1000) - at("2026-11-28 22:00")) / 86400
    assert years == pytest.approx(1000, abs=20), "a long time is estimated from the first months"


def test_a_window_is_read_with_its_zone_and_shown_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = provider(tmp_path, f"{{base_url: 'http://x/v1', window: ['22:00-07:00 {BERLIN}', 9:30-24:00]}}")
    assert lab.window == OpeningHours((DailySpan(1320, 420, BERLIN), DailySpan(570, 1440)))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        moment = at("2026-11-28 12:00")
        assert lab.window.describe(moment) == ("22:00-07:00 Europe/Berlin, 09:30-24:00 local time, JST (UTC+0900)")
        local = OpeningHours((DailySpan(22 * 60, 7 * 60),))
        assert local.is_open(at("2026-11-28 22:30", zone="Asia/Tokyo"))
        assert not local.is_open(at("2026-11-28 23:30"))
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("'22-7'", "`22-7` is not a part of the day; write it like"),
        ("'22:00-22:00'", "is no part of the day"),
        ("'00:00-24:00'", "leave `window` out for the whole day"),
        ("'24:00-07:00'", "is no part of the day"),
        ("'22:60-07:00'", "has a time that no clock shows"),
        ("'22:00-25:00'", "has a time that no clock shows"),
        (
            "'22:00-07:00 Europe/Berlim'",
            "`Europe/Berlim` is no time zone that this machine knows; did you mean `Europe/Berl",
        ),
        ("'22:00-07:00 ../x'", "is no time zone"),
        ("[]", "is not a part of the day"),
        ("[7]", "`7` is not a part of the day"),
        ("true", "`True` is not a part of the day"),
    ],
)
def test_what_is_no_window_is_refused_with_what_to_write(tmp_path: Path, value: str, said: str) -> None:
    found = refusal(tmp_path, f"providers:\n  lab:\n    base_url: http://x/v1\n    window: {value}\n")
    assert found.startswith("config.yaml, line 4, providers.lab.window: ")
    assert said in found


def test_a_share_is_a_part_of_the_limit_and_at_least_one_image(tmp_path: Path) -> None:
    for share, images in ((0.6, 30), (0.59, 29), (0.001, 1), (1, 50), (0.58, 29)):
        lab = provider(tmp_path, f"{{base_url: 'http://x/v1', share: {share}}}")
        assert (lab.rate_limit, lab.shared_limit) == (RateLimit(images, 60.0), RateLimit(50, 60.0))
        assert lab.share == images / 50
    assert read(tmp_path, "providers: {lab: {base_url: 'http://x/v1'}}").providers["lab"].shared_limit is None
    assert Provider("lab", None).share == 1.0
    faults = {"0": "above 0 and up to 1, not 0", "1.5": "not 1.5", "x": "must be a number", ".nan": ""}
    for wrong, said in faults.items():
        assert said in refusal(tmp_path, f"providers: {{lab: {{base_url: 'http://x/v1', share: {wrong}}}}}")
    free = "providers: {lab: {base_url: 'http://x/v1', share: 0.6, rate_limit: null}}"
    assert "is a part of a limit, and there is none" in refusal(tmp_path, free)

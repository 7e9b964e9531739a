"""Modes and deadlines as people write them; a time of day is the next one of the local clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from pipeline.planning.mode import find_deadline_fault, find_mode_fault, read_deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the local time zone."""

    def choose(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield choose
    monkeypatch.undo()
    time.tzset()


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@pytest.mark.parametrize(
    ("name", "now", "written", "expected"),
    [
        ("UTC", "2026-11-28T22:00Z", "07:00", "2026-11-29T07:00:00+00:00"),
        ("UTC", "2026-11-28T06:59:59Z", "07:00", "2026-11-28T07:00:00+00:00"),
        ("UTC", "2026-11-28T07:00Z", "07:00", "2026-11-29T07:00:00+00:00"),
        ("UTC", "2026-11-28T07:00:01Z", "7:00", "2026-11-29T07:00:00+00:00"),
        ("UTC", "2026-12-31T23:59:59Z", "00:00", "2027-01-01T00:00:00+00:00"),
        (BERLIN, "2026-11-28T22:00+01:00", "07:00", "2026-11-29T06:00:00+00:00"),
        (BERLIN, "2026-11-28T23:30Z", "07:00", "2026-11-29T06:00:00+00:00"),  # the local day is the next one already
        (NEW_YORK, "2026-11-29T01:00Z", "23:59", "2026-11-29T04:59:00+00:00"),
        # The night in which the clock is put forward or back is an hour shorter or longer.
        (BERLIN, "2026-03-28T22:00+01:00", "07:00", "2026-03-29T05:00:00+00:00"),
        (BERLIN, "2026-10-24T22:00+02:00", "07:00", "2026-10-25T06:00:00+00:00"),
        # 02:30 does not exist on 29 March: it counts as half an hour after the jump.
        (BERLIN, "2026-03-28T22:00+01:00", "02:30", "2026-03-29T01:30:00+00:00"),
        (BERLIN, "2026-03-29T03:10+02:00", "02:30", "2026-03-29T01:30:00+00:00"),
        (BERLIN, "2026-03-29T03:40+02:00", "02:30", "2026-03-30T00:30:00+00:00"),
        # 02:30 comes twice on 25 October.
        (BERLIN, "2026-10-24T22:00+02:00", "02:30", "2026-10-25T00:30:00+00:00"),
        (BERLIN, "2026-10-25T02:40+02:00", "02:30", "2026-10-25T01:30:00+00:00"),
        (BERLIN, "2026-10-25T02:40+01:00", "02:30", "2026-10-26T01:30:00+00:00"),
    ],
)
def test_a_time_of_day_is_the_next_one_of_the_local_clock(
    zone: Callable[[str], None], name: str, now: str, written: str, expected: str
) -> None:
    zone(name)
    assert shown(read_deadline(written, at(now))) == expected


@pytest.mark.parametrize(
    "written",
    ["2026-11-29T07:00+01:00", "2026-11-29T06:00Z", "2026-11-29 06:00:00+00:00", " 2026-11-29T06:00:00.000Z "],
)
def test_a_moment_with_its_offset_is_itself_wherever_one_is(zone: Callable[[str], None], written: str) -> None:
    zone(NEW_YORK)
    assert shown(read_deadline(written, 1e10)) == "2026-11-29T06:00:00+00:00"


@pytest.mark.parametrize(
    "written",
    [
        *("", "soon", "24:00", "7", "07:60", "07.00", "7pm", "0700", "07:00:00", "07:00+01:00", "25:00", "-7:00"),
        *("2026-11-29", "2026-W48-7T07:00Z", "20261129T0700Z", "2026-02-30T07:00Z", "2026-11-29T07:00 CET", "tomorrow"),
        *(420, 7.0, True, None, ["07:00"], "\u0660\u0667:\u0660\u0660"),
    ],
)
def test_any_other_form_is_refused_with_what_to_write(written: object) -> None:
    said = find_deadline_fault(written)
    assert said is not None
    assert said.endswith('write a time of day as "07:00", or a moment with its offset as "2026-11-29T07:00+01:00"')


def test_a_moment_without_an_offset_is_refused_for_that() -> None:
    assert "`2026-11-29T07:00` has no offset from UTC" in (find_deadline_fault("2026-11-29T07:00") or "")


@pytest.mark.parametrize("written", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "1969-12-31T00:00Z"])
def test_a_moment_beyond_what_a_clock_counts_is_refused(written: str) -> None:
    assert "is out of range" in (find_deadline_fault(written) or "")


def test_a_mode_is_one_of_three() -> None:
    assert [find_mode_fault(one) for one in ("realtime", "batch", "auto")] == [None] * 3
    assert find_mode_fault("fast") == "must be one of realtime, batch, auto, not `fast`"
    assert find_mode_fault(["batch"]) is not None

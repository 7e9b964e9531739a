"""Controls are facts in the ledger: what is set is read again, by any process, until it is ended."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import Config, RateLimit, Route
from pipeline.config.opening_hours import DailySpan, OpeningHours
from pipeline.controls import MAX_PRIORITY, FolderControls
from pipeline.errors import BadInput
from pipeline.ledger.controls import JobPriority, ProviderControl
from pipeline.ledger.database import open_ledger
from pipeline.ledger.submit import submit
from pipeline.reports.controls import images_seconds
from pipeline.reports.next_command import WITHOUT_OPTIONS
from tests.support.workbench import LAB, plan, request

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.provider import Provider

LIMITED = replace(LAB, name="limited", rate_limit=RateLimit(50, 60.0))


def _controls(folder: Path) -> FolderControls:
    providers = {"lab": LAB, "limited": LIMITED}
    return FolderControls(Config(None, folder, None, providers, routes={"night": Route("night", ("lab", "limited"))}))


def test_a_pause_holds_until_it_is_ended(tmp_path: Path) -> None:
    controls = _controls(tmp_path / "new")
    assert controls.pause("lab") == ["lab"], "also where nothing was submitted yet"
    assert controls.pause("lab") == []
    assert controls.pause() == ["limited"], "all: those that are not paused already"
    since = controls.read().facts.of("lab").held_since
    assert since is not None
    assert controls.unpause("lab") == ["lab"]
    assert controls.unpause("lab") == []
    assert controls.unpause() == ["limited"]
    assert controls.read().facts.providers == {}


def test_a_provider_that_has_left_the_config_can_be_unpaused(tmp_path: Path) -> None:
    _controls(tmp_path).pause("lab")
    later = FolderControls(Config(None, tmp_path, None, {"limited": LIMITED}))
    assert later.unpause("lab") == ["lab"]
    with pytest.raises(BadInput, match="has no provider `lab`"):
        later.unpause("lab")


def test_a_route_is_refused_with_the_names_of_its_members(tmp_path: Path) -> None:
    controls = _controls(tmp_path / "new")
    for what in (controls.pause, controls.unpause, lambda name: controls.throttle(name, 5)):
        with pytest.raises(BadInput, match=r"`night` is a route; .* one by one: `lab`, `limited`"):
            what("night")
    with pytest.raises(BadInput, match="did you mean `limited`"):
        controls.pause("limitd")
    assert not (tmp_path / "new").exists(), "nothing was changed"


def test_a_throttle_only_lowers_a_limit_that_there_is(tmp_path: Path) -> None:
    controls = _controls(tmp_path)
    for images, what in ((0, "at least 1"), (-3, "at least 1"), (51, "and 51 is more"), (True, "whole")):
        with pytest.raises(BadInput, match=what):
            controls.throttle("limited", images)
    with pytest.raises(BadInput, match="`rate_limit` is null"):
        controls.throttle("lab", 5)
    controls.throttle("limited", 50)
    controls.throttle("limited", 5)
    found = controls.read()
    assert found.facts.providers == {"limited": ProviderControl(None, 5)}
    assert found.at_work(LIMITED).rate_limit == RateLimit(5, 60.0)
    assert found.at_work(replace(LIMITED, rate_limit=RateLimit(4, 60.0))).rate_limit == RateLimit(4, 60.0)
    controls.throttle("limited", None)
    assert controls.read().at_work(LIMITED) is LIMITED


def test_a_priority_belongs_to_its_job_over_all_submits(tmp_path: Path) -> None:
    with contextlib.closing(open_ledger(tmp_path)) as connection:
        submit(connection, plan(request(1)))
        controls = _controls(tmp_path)
        controls.prioritise("JOB", -7)
        submit(connection, plan(request(2)))
        assert controls.read().facts.priorities == (JobPriority(1, "job", -7, is_waiting=True),)
        connection.execute("UPDATE request SET status = 'failed'")
    assert not controls.read().facts.priorities[0].is_waiting
    controls.prioritise("job", 0)
    assert controls.read().facts.priorities == ()
    for number in (MAX_PRIORITY + 1, -MAX_PRIORITY - 1):
        with pytest.raises(BadInput, match="a whole number from -1,000,000 to 1,000,000"):
            controls.prioritise("job", number)
    with pytest.raises(BadInput, match="there is no job `jib`"):
        controls.prioritise("jib", 1)


def test_all_that_is_set_is_said_with_what_ends_it(tmp_path: Path) -> None:
    with contextlib.closing(open_ledger(tmp_path)) as connection:
        submit(connection, plan(request(1)))
    controls = _controls(tmp_path)
    assert list(controls.read().lines(WITHOUT_OPTIONS)) == []
    controls.pause()
    controls.throttle("limited", 5)
    controls.prioritise("job", 3)
    found = controls.read()
    lines = list(found.lines(WITHOUT_OPTIONS))
    assert [line.partition("; ")[2] for line in lines] == [
        "to end that: pipeline unpause lab",
        "to end that: pipeline unpause limited",
        "to end that: pipeline throttle limited --reset",
        "",
    ]
    assert "throttled to 5 images per 60 s (configured: 50)" in lines[2]
    assert lines[3] == "job `job` has priority 3"
    assert list(found.lines(WITHOUT_OPTIONS, {"lab"})) == [lines[0], lines[3]]
    lab, limited = found.json()
    assert (lab["name"], lab["paused"], lab["throttle"], lab["limit"]) == ("lab", True, None, None)
    assert (limited["throttle"], limited["limit"]) == (5, {"images": 5, "per_seconds": 60.0})
    assert str(limited["paused_since"]).endswith("Z")


LAB_50 = replace(LAB, rate_limit=RateLimit(50, 60.0, 1.0))
NIGHT_ONLY = replace(LAB_50, window=OpeningHours((DailySpan(180, 300, "UTC"),)))  # from 3 to 5 o'clock


@pytest.mark.parametrize(
    ("members", "images", "hours"),
    [
        ([LAB_50], 3000, 1),
        ([LAB_50, LAB_50], 3000, 0.5),
        ([NIGHT_ONLY], 3000, 4),
        ([NIGHT_ONLY], 9000, 28),
        ([LAB_50, NIGHT_ONLY], 3000, 1),  # the other one makes all before it opens
        ([LAB_50, NIGHT_ONLY], 12_000, 3.5),
        ([NIGHT_ONLY, NIGHT_ONLY], 12_000, 5),
        ([NIGHT_ONLY], 3000 * 2 * 100, 99 * 24 + 5),
        ([LAB_50, LAB], 3000, None),
        ([LAB_50], 0, 0),
    ],
)
def test_the_time_of_a_route_counts_the_open_hours_of_each_member(
    members: list[Provider], images: int, hours: float | None
) -> None:
    seconds = images_seconds(members, images, 0.0)
    assert seconds == (None if hours is None else pytest.approx(hours * 3600, rel=0.02))

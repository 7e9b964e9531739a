"""Events become lines for people, a log, and JSON for scripts."""

from __future__ import annotations

import contextlib
import json
import time
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from pipeline import progress
from pipeline.engine.events import (
    CallEnded,
    CallSent,
    Event,
    ImageStored,
    LimitLowered,
    NotBackedUp,
    Paused,
    ProviderAway,
    ProviderBack,
    RequestEnded,
    Retrying,
    Stopped,
    Stopping,
)
from pipeline.errors import DiskFull, QuotaSpent, ServerFault
from pipeline.progress import Log, Progress, Tally, describe, event_json

BUSY = ServerFault("the server\n is busy", http_status=503)
EVENTS: list[Event] = [
    CallSent("lounge", "pool", "lab", 3),
    CallEnded("lounge", "pool", "lab", 1.25, 0.5, None),
    CallEnded("lounge", "pool", "lab", 1.25, None, BUSY),
    ImageStored("lounge", "pool", "lounge/images/pool-1.png"),
    Retrying("lounge", "pool", 2.0, BUSY),
    RequestEnded("lounge", "pool", "succeeded", None),
    RequestEnded("lounge", "pool", "failed", BUSY),
    Paused("lab", 3.0, "slow down"),
    LimitLowered("lab", 5, 60.0, "Limit: 5/1min"),
    ProviderAway("lab", "no way"),
    ProviderBack("lab", 61.0),
    Stopping("SIGINT"),
    NotBackedUp(DiskFull("no room left")),
    Stopped("provider `lab`", QuotaSpent("no money", http_status=429, code="insufficient_quota")),
]


def test_every_event_has_a_line_of_its_own() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    lines = [describe(event) for event in EVENTS]
    assert lines == [
        "→ lounge/pool: 3 asked of lab",
        "← lounge/pool: answered in 1.2 s",
        "! lounge/pool: 503 ServerFault: the server is busy after 1.2 s",
        "• lounge/images/pool-1.png",
        "↻ lounge/pool: again in 2.0 s: 503 ServerFault: the server is busy",
        "✓ lounge/pool: succeeded",
        "✗ lounge/pool: failed: 503 ServerFault: the server is busy",
        "‖ lab asks everyone to wait 3.0 s: slow down",
        "▼ lab allows 5 images per 60 s, no more: Limit: 5/1min",
        "‖ lab is away; waiting and probing: no way",
        "▶ lab is back after 61 s",
        "■ SIGINT: no further calls; those in flight finish, a second signal ends at once",
        "! the ledger could not be copied: DiskFull: no room left",
        "■ no further calls for provider `lab`: 429 insufficient_quota: no money",
    ]


def test_every_event_is_one_line_of_json() -> None:
    documents = [json.loads(event_json(event)) for event in EVENTS]
    assert documents[0] == {"event": "call_sent", "job": "lounge", "id": "pool", "provider": "lab", "images": 3}
    assert documents[2]["error"] == {
        "http_status": 503,
        "type": None,
        "code": None,
        "message": "the server\n is busy",
    }
    assert all("\n" not in event_json(event) for event in EVENTS)


def test_the_tally_adds_up() -> None:
    tally = Tally()
    for event in EVENTS[:10]:
        tally.count(event)
    assert (tally.images, tally.ended, tally.failed, tally.in_flight, tally.cost_usd) == (1, 2, 1, -1, 0.5)
    assert tally.binds == "waiting for `lab` to come back"
    tally.count(EVENTS[10])
    assert tally.binds == ""


def test_elsewhere_than_on_a_terminal_plain_lines_come_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    with Progress(lambda: (7, 0.5), verbose=False) as shown:
        shown(EVENTS[3])
        shown(EVENTS[7])
    said = capsys.readouterr()
    assert said.out == ""
    assert "1 images" in said.err
    assert "7 to come" in said.err
    assert "about $0.50 to come" in said.err
    assert describe(EVENTS[7]) in said.err


def test_quiet_events_are_said_only_to_those_who_want_all(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with Progress(lambda: (0, 0.0), verbose=verbose) as shown:
            shown(EVENTS[0])
        assert (describe(EVENTS[0]) in capsys.readouterr().err) == verbose


def test_a_ledger_that_is_slow_to_count_is_asked_seldom_and_the_number_goes_down_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    asked = 0

    def left() -> tuple[int, float | None]:
        nonlocal asked
        asked += 1
        time.sleep(0.05)
        return 1000, None

    with Progress(left, verbose=False) as shown:
        for _ in range(10):
            shown(EVENTS[3])
    assert asked == 1
    assert "991 to come" in capsys.readouterr().err


def test_the_log_is_made_at_the_first_event_and_takes_what_matters(tmp_path: Path) -> None:
    with closing(Log(tmp_path, verbose=False)) as log:
        assert not (tmp_path / "run.log").exists()
        for event in EVENTS:
            log(event)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == len(EVENTS) - 2
    assert lines[0].endswith(describe(EVENTS[1]))


def test_a_verbose_log_takes_all_and_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = progress._RotatingFile
    monkeypatch.setattr(progress, "_RotatingFile", lambda path, **more: handler(path, **{**more, "maxBytes": 2000}))
    with closing(Log(tmp_path, verbose=True)) as log:
        for _ in range(10):
            for event in EVENTS:
                log(event)
    assert {path.name for path in tmp_path.iterdir()} == {"run.log", "run.log.1", "run.log.2", "run.log.3"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device here")
def test_a_log_for_which_there_is_no_room_costs_no_word_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").symlink_to("/dev/full")
    with closing(Log(tmp_path, verbose=False)) as log:
        for event in EVENTS:
            with contextlib.suppress(OSError):
                log(event)
    assert capsys.readouterr().err == ""

"""A run on its terminal: a screen if it can be drawn, else plain lines, and a clean terminal at any end."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.engine.events import BatchSent, CallSent, ImageStored, Paused, RequestEnded, Retrying, RunStarted
from pipeline.errors import LedgerError, ServerFault
from pipeline.progress import display
from pipeline.progress.display import Progress
from tests.support.stage import finish
from tests.support.terminal import terminal
from tests.unit.test_from_events import AT_THE_LIMIT, NIGHT, summary

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.ledger.job_summary import JobSummary
    from tests.support.stage import Stage

pytestmark = pytest.mark.processes

HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"  # the cursor


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """A display that only the test ticks."""
    monkeypatch.setattr(display, "PLAIN_SECONDS", threading.TIMEOUT_MAX)
    return Progress(lambda: [summary(cost=0.5)], verbose=False, now=lambda: NIGHT)


def test_elsewhere_than_on_a_terminal_lines_say_what_is_new(
    shown: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown:
        shown.tick()
        assert capsys.readouterr().err == "", "nothing has begun"
        for event in (RunStarted(("lounge",)), AT_THE_LIMIT, CallSent("lounge", "x", "lab", 1)):
            shown(event)
        shown.tick()
        said = capsys.readouterr()
        assert said.out == ""
        assert "lounge: 0 done · 100 left · $0.50 of about $1.50" in said.err
        assert "lab: measuring… (limit 50 images a minute) · 1 call in flight · waiting for the limit" in said.err
        shown.tick()
        assert capsys.readouterr().err == "", "nothing is new"
        shown(Paused("lab", 30.0, "slow down"))
        assert "lab asks for a pause of 30.0 s" in capsys.readouterr().err, "said at once"


def test_a_ledger_that_is_slow_to_read_is_read_seldom_and_the_numbers_move_all_the_same(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "PLAIN_SECONDS", threading.TIMEOUT_MAX)
    asked = 0

    def read() -> list[JobSummary]:
        nonlocal asked
        asked += 1
        time.sleep(0.05)
        return [summary()]

    with Progress(read, verbose=False, now=lambda: NIGHT) as shown:
        shown(RunStarted(("lounge",)))
        for _ in range(10):
            shown(ImageStored("lounge", "x", "x"))
            shown(RequestEnded("lounge", "x", "succeeded", None))
            shown.tick()
    assert asked <= 2, "once at the start, and once for the job that was unknown until then"
    assert "9 done · 91 left" in capsys.readouterr().err


def test_a_ledger_in_trouble_is_the_run_s_to_tell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "PLAIN_SECONDS", threading.TIMEOUT_MAX)

    def read() -> list[JobSummary]:
        raise LedgerError("is held")

    with Progress(read, verbose=False) as shown:
        shown(RunStarted(("lounge",)))
        shown(AT_THE_LIMIT)
        shown.tick()
    assert "held" not in capsys.readouterr().err


def test_batches_of_which_nothing_was_said_yet_are_told_at_the_end(
    shown: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown:
        shown(RunStarted(("lounge",)))
        for number in range(12):
            shown(BatchSent(f"batch_{number}", "lab", "gpt-image-2", 100, 100))
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "→ 12 batches: 1,200 requests for 1,200 images sent to lab\n"


def test_quiet_events_are_said_only_to_those_who_want_all(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with Progress(list, verbose=verbose) as shown:
            shown(CallSent("lounge", "pool", "lab", 3))
        assert ("→ lounge/pool: 3 requested from lab" in capsys.readouterr().err) == verbose


def test_only_a_long_wait_of_one_request_is_told_with_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(list, verbose=False) as shown:
        shown(Retrying("j", "p1", 3.0, ServerFault("busy", http_status=503)))
        shown(Retrying("j", "p2", 7200.0, ServerFault("Scheduled maintenance", http_status=503)))
    line = capsys.readouterr().err
    assert re.fullmatch(r"↻ j/p2: retry at \d\d:\d\d:\d\d: 503 ServerFault: Scheduled maintenance\n", line)


def test_a_hundred_thousand_events_cost_little(shown: Progress) -> None:
    event = ImageStored("lounge", "x", "x")
    shown(CallSent("lounge", "x", "lab", 1))
    began = time.process_time()
    for _ in range(100_000):
        shown(event)
    assert time.process_time() - began < 5, "at 1,000 events a second a twentieth of the time would be felt"


def _slow_jobs(stage: Stage, count: int = 30) -> list[Path]:
    stage.provider("lab", stage.serve(rate_limit=None, latency_seconds=[0.4, 0.6]), concurrency=3)
    return [stage.prompts("lounge", count), stage.job("birds", [{"prompt": "forbidden bird"}, {"prompt": "bird"}])]


def test_a_terminal_shows_a_bar_for_each_job_and_is_left_clean(stage: Stage) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage, 12)) as seen:
        seen.read_until(lambda: "3 calls in flight · waiting for responses" in seen.text)
        job = next(line for line in seen.lines if line.startswith("lounge"))
        assert "─" in job
        assert job.endswith("left")
        assert any(line.startswith("birds") for line in seen.lines)
        assert "of about $" in seen.text
        assert seen.cursor_is_hidden()
        assert seen.read_to_the_end() == 1
    assert "─" not in seen.text
    assert "calls in flight" not in seen.text, "what was drawn is gone"
    assert not seen.cursor_is_hidden()
    assert seen.text.replace("\n", "").endswith("birds/report.html")
    said = " ".join(seen.text.split())
    sentence = "change the prompt or the image in the job file and run it with `pipeline run` (the content policy would"
    assert sentence in said, "lines end between words"
    assert any(line.startswith("    pipeline run /") for line in seen.lines), "a command is not broken up"


def test_ctrl_c_in_a_terminal_lets_calls_finish_and_leaves_it_clean(stage: Stage) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage)) as seen:
        seen.read_until(lambda: "3 calls in flight" in seen.text)
        seen.press_ctrl_c()
        seen.read_until(lambda: "SIGINT: no further calls" in seen.text)
        assert seen.read_to_the_end() == 130
    assert not seen.cursor_is_hidden()
    assert "calls in flight" not in seen.lines[-1]
    assert stage.standing("lounge")["counts"]["running"] == 0


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_terminal_clean_too(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None, latency_seconds=[100, 100]), concurrency=3)
    with terminal(stage.folder, "run", stage.prompts("lounge", 5)) as seen:
        seen.read_until(lambda: "3 calls in flight" in seen.text)
        seen.press_ctrl_c()
        seen.read_until(lambda: "SIGINT: no further calls" in seen.text)
        seen.press_ctrl_c()
        assert seen.read_to_the_end() == 130
    assert not seen.cursor_is_hidden()
    assert seen.raw.rindex(SHOWN) > seen.raw.rindex(HIDDEN)
    assert "\\x1b" not in seen.text, "what shows the cursor is no text"


@pytest.mark.parametrize("columns", [30, 100, 120])
def test_any_width_is_used_and_none_is_crossed_and_nothing_is_left_out(stage: Stage, columns: int) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage), columns=columns) as seen:
        seen.read_until(lambda: "3 calls in flight" in seen.text and " of about $" in " ".join(seen.text.split()))
        job = next(number for number, line in enumerate(seen.lines) if line.startswith("lounge"))
        if columns == 30:
            assert seen.lines[job + 1].startswith("  ")
            assert seen.lines[job + 1].endswith("left")
        elif columns == 120:
            assert "of about $" in seen.lines[job]


def test_no_color_draws_without_colours(stage: Stage) -> None:
    coloured = (b"\x1b[31m", b"\x1b[32m", b"\x1b[38;5")
    with terminal(stage.folder, "run", *_slow_jobs(stage, 8), NO_COLOR="1") as seen:
        seen.read_until(lambda: "1 failed" in seen.text and " in flight" in seen.text)
        assert not any(colour in seen.raw for colour in coloured)
    stage.run("resume", "birds", exit_code=1)
    with terminal(stage.folder, "run", stage.prompts("more", 8)) as seen:
        seen.read_until(lambda: "━" in seen.text)
        assert any(colour in seen.raw for colour in coloured)


def test_quiet_shows_nothing_on_a_terminal(stage: Stage) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage, 3), "--quiet") as seen:
        assert seen.read_to_the_end() == 1
    assert b"\x1b" not in seen.raw
    assert seen.text.replace("\n", "").count("manifest.jsonl") == 2
    assert "done" not in seen.text


def test_events_on_the_same_terminal_are_lines_and_nothing_is_drawn_among_them(stage: Stage) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage, 3), "--json") as seen:
        assert seen.read_to_the_end() == 1
    assert b"\x1b" not in seen.raw
    lines = seen.raw.decode().splitlines()
    assert json.loads(next(line for line in lines if "run_started" in line))["jobs"] == ["lounge", "birds"]


def test_a_terminal_that_can_do_nothing_gets_plain_lines(stage: Stage) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage, 3), TERM="dumb") as seen:
        assert seen.read_to_the_end() == 1
    assert b"\x1b" not in seen.raw


def test_a_pipe_gets_events_each_of_which_is_json_and_lines_on_stderr(stage: Stage) -> None:
    ended = stage.run("run", *_slow_jobs(stage, 16), "--json", exit_code=1)
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert events[0] == {"event": "run_started", "at": events[0]["at"], "jobs": ["lounge", "birds"]}
    assert events[-1]["event"] == "summary"
    paces = [event for event in events if event["event"] == "provider_pace"]
    assert {"provider": "lab", "bottleneck": "provider", "images": None}.items() <= paces[1].items()
    assert paces[-1]["bottleneck"] == ""
    assert "\x1b" not in ended.stderr


def test_a_terminal_that_goes_away_does_not_change_how_the_run_ends(stage: Stage) -> None:
    with terminal(stage.folder, "run", *_slow_jobs(stage), stdout=subprocess.DEVNULL) as seen:
        seen.read_until(lambda: "3 calls in flight" in seen.text)
        os.close(seen.ours)  # which is a SIGHUP to all in it
        seen.ours = os.open(os.devnull, os.O_RDONLY)
        assert seen.process.wait() == 129
    assert stage.standing("lounge")["counts"]["running"] == 0


def test_rich_is_imported_only_where_it_draws(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 2)
    code = (
        "import sys\nfrom pipeline.cli.main import _main\nassert _main(sys.argv[1:]) == 0\n"
        "print([name for name in ('rich', 'aiohttp') if name in sys.modules])"
    )

    def imported(*arguments: object) -> str:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=stage.folder,
            env={**os.environ, "STAGE_KEY": "x"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return finish(process).stdout.splitlines()[-1]

    assert imported("run", job) == "['aiohttp']"
    assert imported("status") == imported("--help") == "[]"

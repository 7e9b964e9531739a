"""`status --watch`: the same facts from another terminal, until Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.stage import finish
from tests.support.terminal import terminal

if TYPE_CHECKING:
    from tests.support.stage import Stage

pytestmark = pytest.mark.processes


def test_beside_a_run_another_terminal_shows_the_same_and_ends_clean_on_ctrl_c(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None, latency_seconds=[0.5, 0.5]), concurrency=3)
    run = stage.start("run", stage.prompts("lounge", 200))
    with terminal(stage.folder, "status", "--watch", "0.2") as seen:

        def is_at_work() -> bool:
            """Return whether some are done; between two calls nothing is in flight."""
            done = re.search(r" (\d+) done", seen.text)
            return done is not None and int(done[1]) >= 6 and "waiting for responses" in seen.text

        seen.read_until(lambda: "3 calls in flight" in seen.text)
        seen.read_until(is_at_work)
        assert re.fullmatch(rf"working since \d\d:\d\d \(process {run.pid} on .*\)", seen.lines[0])
        assert seen.lines[1].startswith("lounge ")
        assert seen.lines[1].endswith("left")
        assert "of about $3.20" in seen.text
        assert seen.cursor_is_hidden()
        seen.press_ctrl_c()
        assert seen.read_to_the_end() == 130
    assert not seen.cursor_is_hidden()
    assert run.poll() is None, "the run does not notice"


def test_sigterm_leaves_a_clean_terminal_too(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("lounge", 2))
    with terminal(stage.folder, "status", "--watch", "--keep") as seen:
        seen.read_until(lambda: "2 left" in seen.text)
        seen.process.terminate()
        assert seen.read_to_the_end() == 143
    assert not seen.cursor_is_hidden()


def test_without_a_terminal_it_prints_a_block_each_time(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("lounge", 2))
    process = stage.start("status", "lounge", "--watch", "0.1", "--keep")
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip() for _ in range(10)]
    assert lines[1::5] == ["no run is at work; to continue, run: pipeline run"] * 2
    assert lines[2::5] == ["lounge: 0 done · 2 left · $0.00 of about $0.032"] * 2
    assert lines[3::5] == ["lab: idle · 0 calls in flight"] * 2
    assert lines[4::5] == ["", ""]
    process.send_signal(signal.SIGINT)
    assert finish(process).exit_code == 130


def test_with_json_it_prints_one_document_a_line(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1", rate_limit={"images": 50, "per_seconds": 60})
    stage.run("submit", stage.prompts("lounge", 2))
    process = stage.start("status", "--json", "--watch", "0.1", "--keep")
    assert process.stdout is not None
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    process.send_signal(signal.SIGINT)
    assert finish(process).exit_code == 130
    assert first["at"] < second["at"]
    assert first["jobs"] == json.loads(stage.run("status", "--json").stdout)["jobs"]
    assert first["providers"] == [
        {
            "name": "lab",
            "paused": False,
            "paused_since": None,
            "throttle": None,
            "limit": {"images": 50, "per_seconds": 60},
            "window": None,
            "open": True,
            "changes_at": None,
            "down_since": None,
            "down_until": None,
            "down_reason": None,
            "images_per_minute": None,
            "limit_per_minute": 50,
            "in_flight": 0,
            "bottleneck": "",
            "until": None,
            "expires_at": None,
        }
    ]
    assert (first["ends_at"], first["run"], first["stops"]) == (None, None, []), "nothing is at work"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--watch", "lounge"], "is not a number of seconds; write a job's name before the option"),
        (["--watch", "0"], "from 0.1 to 86400"),
        (["nothing", "--watch"], "there is no job `nothing`"),
    ],
)
def test_what_is_no_time_or_no_job_is_exit_2(stage: Stage, arguments: list[str], said: str) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("lounge", 2))
    assert said in stage.run("status", *arguments, exit_code=2).stderr


def test_before_anything_is_submitted_it_waits(stage: Stage) -> None:
    process = stage.start("status", "--watch", "0.1")
    assert process.stdout is not None
    process.stdout.readline()
    assert "pipeline run JOB.yaml" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert finish(process).exit_code == 130


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_it_ends_if_no_run_is_at_work(stage: Stage, arguments: tuple[str, ...]) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("lounge", 2))
    ended = stage.run("status", "--watch", *arguments)
    assert ("no run is at work; to continue, run: pipeline run" in ended.stdout) != bool(arguments)


def test_on_a_terminal_it_ends_with_the_run_and_leaves_the_status(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 0.3])
    stage.provider("lab", server, concurrency=1)
    run = stage.start("run", stage.prompts("lounge", 8))
    while not server.books():
        assert run.poll() is None
    with terminal(stage.folder, "status", "--watch", "0.1") as seen:
        seen.read_until(lambda: "working since " in seen.text)
        assert seen.read_to_the_end() == 0
    assert "lounge (lab)" in seen.text
    assert "  8 succeeded" in seen.text

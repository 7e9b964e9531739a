"""`--mode` and `--deadline` as people type them: on each command, beside a run, and mistakes that change nothing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage

GPT = {"model": "gpt-image-2", "size": "1024x1024", "quality": "low"}
NOWHERE = "http://127.0.0.1:9/v1"
MODES = "SELECT name, mode, deadline FROM job ORDER BY pk"
HELP = 'write a time of day as "07:00", or a moment with its offset as "2026-11-29T07:00+01:00"'


def night(stage: Stage, name: str = "night", **more: Any) -> Path:
    """Write a job of three requests that can go by batch, at a provider that has batches and cannot be reached."""
    if not stage.providers:
        stage.provider("lab", NOWHERE, batch={})
    requests = [{"prompt": f"{name} {number}"} for number in range(3)]
    return stage.job(name, requests, **{"defaults": GPT, **more})


def change(stage: Stage, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(stage.output / "ledger.sqlite3")) as connection, connection:
        connection.execute(statement)


def soon(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")


def moment(written: str) -> float:
    return datetime.fromisoformat(written).timestamp()


# --- plan and submit


def test_plan_says_both_prices_and_both_durations(stage: Stage) -> None:
    stage.provider("lab", NOWHERE, batch={}, rate_limit={"images": 50, "per_seconds": 60})
    job = night(stage)
    plain = stage.run("plan", job).stdout
    assert "  realtime: $0.0177, about 4 s; by batch: $0.0088, within 24 h, in 1 batch" in plain
    assert "  cost: $0.0177" in plain
    assert "  cost: $0.0088" in stage.run("plan", job, "--mode", "batch").stdout
    view = json.loads(stage.run("plan", job, "--json", "--mode", "auto", "--deadline", soon(9)).stdout)
    assert (view["mode"], view["in_force"], view["modes"]["batch"]["batches"]) == ("auto", "batch", 1)
    late = stage.run("plan", job, "--mode", "auto", "--deadline", soon(0.1)).stdout
    assert ", is too near for batches: all is made in realtime" in late
    assert "  cost: $0.0177" in late


def test_plan_names_what_auto_makes_in_realtime(stage: Stage) -> None:
    stage.provider("lab", NOWHERE, batch={})
    job = stage.job("night", [{"prompt": "a", **GPT}, {"id": "old", "prompt": "b"}], mode="auto")
    assert "  warning: `old` is made in realtime: `dall-e-2` cannot go by batch" in stage.run("plan", job).stdout


def test_a_submit_remembers_the_mode_and_says_that_the_job_goes_by_batch(stage: Stage) -> None:
    job = night(stage, mode="auto", deadline="07:00")
    ended = stage.run("submit", job)
    assert "night: goes by batch, at 50 % of the price; what is late for the deadline, " in ended.stderr
    ((_, mode, deadline),) = stage.ask(MODES)
    assert (mode, time.localtime(deadline)[3:5]) == ("auto", (7, 0))
    assert stage.run("submit", job, "--quiet").stderr == ""
    assert "by batch" not in stage.run("submit", job, "--mode", "realtime").stderr
    assert stage.ask(MODES) == [("night", "realtime", None)]


def test_a_deadline_without_quotes_is_the_same(stage: Stage) -> None:
    path = night(stage)
    path.write_text(f"mode: auto\ndeadline: 07:00\n{path.read_text()}")
    stage.run("submit", path)
    ((_, mode, deadline),) = stage.ask(MODES)
    assert (mode, time.localtime(deadline)[3:5]) == ("auto", (7, 0))


def test_a_new_deadline_ends_the_switch_to_realtime_and_the_same_one_does_not(stage: Stage) -> None:
    job, deadline = night(stage, mode="auto"), soon(9)
    since = "SELECT realtime_since FROM job"
    stage.run("submit", job, "--deadline", deadline)
    change(stage, "UPDATE job SET realtime_since = 7")
    stage.run("submit", job, "--deadline", deadline)
    assert stage.ask(since) == [(7.0,)]
    stage.run("submit", job, "--deadline", soon(10))
    assert stage.ask(since) == [(None,)]


# --- run and resume change what the ledger remembers


def test_run_without_a_job_changes_the_mode_of_all_that_is_queued(stage: Stage) -> None:
    stage.settings["retry"] = {"start_minutes": 0}
    stage.run("submit", night(stage, "a"), night(stage, "b"), night(stage, "done"))
    change(stage, "UPDATE request SET status = 'succeeded' WHERE job = 3")
    with FileLock(stage.output / "run.lock"):
        ended = stage.run("run", "--mode", "batch", exit_code=3)
    assert "changed: the mode of `a`, `b`, also for the run at work (" in ended.stderr
    assert "error" not in ended.stderr
    assert stage.ask(MODES) == [("a", "batch", None), ("b", "batch", None), ("done", "realtime", None)]


def test_run_of_a_job_changes_the_mode_of_no_other(stage: Stage) -> None:
    job = night(stage)
    stage.run("submit", stage.job("old", [{"prompt": "a"}]))  # DALL-E 2
    with FileLock(stage.output / "run.lock"):
        ended = stage.run("run", job, "--mode", "batch", exit_code=3)
    assert "queued: night, 3 requests; the run at work (" in ended.stderr
    assert stage.ask(MODES) == [("old", "realtime", None), ("night", "batch", None)]


def test_run_without_a_job_and_without_a_mode_says_that_another_run_is_at_work(stage: Stage) -> None:
    stage.run("submit", night(stage))
    with FileLock(stage.output / "run.lock"):
        assert "changed: " not in stage.run("run", exit_code=3).stderr
    assert stage.ask(MODES) == [("night", "realtime", None)]


def test_resume_beside_a_run_changes_the_mode_of_what_it_puts_back(stage: Stage) -> None:
    stage.run("submit", night(stage, "a"), night(stage, "b"))
    stage.run("cancel", "a")
    deadline = soon(9)
    with FileLock(stage.output / "run.lock"):
        ended = stage.run("resume", "a", "--mode", "auto", "--deadline", deadline, exit_code=3)
    assert "queued: a, 3 requests; the run at work (" in ended.stderr
    assert stage.ask(MODES) == [("a", "auto", moment(deadline)), ("b", "realtime", None)]
    with FileLock(stage.output / "run.lock"):
        ended = stage.run("resume", "a", "--mode", "batch", exit_code=3)
    assert "changed: the mode of `a`, also for the run at work (" in ended.stderr
    assert stage.ask(MODES)[0] == ("a", "batch", None)


def test_a_run_and_a_resume_change_the_mode_before_they_work(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None), batch={})
    stage.run("submit", night(stage, "a", mode="batch"), night(stage, "b", mode="auto"))
    change(stage, "UPDATE request SET status = 'failed'")
    stage.run("resume", "a", "--mode", "realtime", "--no-wait")
    assert stage.standing("a")["counts"]["succeeded"] == 3
    change(stage, "UPDATE request SET status = 'pending' WHERE job = 2")
    stage.run("run", "--mode", "realtime", "--no-wait")
    assert stage.standing("b")["counts"]["succeeded"] == 3
    assert stage.ask(MODES) == [("a", "realtime", None), ("b", "realtime", None)]


@pytest.mark.parametrize("words", [["run"], ["resume", "night"]])
def test_a_deadline_that_has_passed_is_a_warning(stage: Stage, words: list[str]) -> None:
    stage.run("submit", night(stage, mode="auto"))
    asked = soon(-1)
    with FileLock(stage.output / "run.lock"):
        ended = stage.run(*words, "--deadline", asked, exit_code=3)
        assert "warning: " not in stage.run(*words, "--deadline", asked, "--quiet", exit_code=3).stderr
    assert ended.stderr.startswith("warning: the deadline, ")
    assert ", has passed: everything is made in realtime" in ended.stderr
    assert stage.ask(MODES) == [("night", "auto", moment(asked))]


# --- Mistakes


@pytest.mark.parametrize(
    ("head", "line"),
    [
        ("mode: fast", "1, mode: must be one of realtime, batch, auto, not `fast`"),
        ("mode: auto\ndeadline: soon", f"2, deadline: `soon` is no deadline; {HELP}"),
        ("mode: auto\ndeadline: 2026-11-29T07:00", f"2, deadline: `2026-11-29T07:00` has no offset from UTC; {HELP}"),
        (
            "provider: lab\nmode: batch\ndeadline: 07:00",
            "3, deadline: is for mode auto only: write `mode: auto`, or leave it out",
        ),
        ("deadline: 07:00", "1, deadline: is for mode auto only: write `mode: auto`, or leave it out"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "submit", "run"])
def test_a_mistake_in_the_file_is_named_with_its_line_and_changes_nothing(
    stage: Stage, command: str, head: str, line: str
) -> None:
    path = night(stage)
    path.write_text(f"{head}\n{path.read_text()}")
    ended = stage.run(command, path.name, exit_code=2)
    assert ended.stderr.splitlines() == [f"error: night.yaml, line {line}"]
    assert not stage.output.exists()


@pytest.mark.parametrize("command", ["plan", "submit", "run"])
def test_what_cannot_go_by_batch_is_named_with_its_line_and_what_to_write(stage: Stage, command: str) -> None:
    stage.provider("lab", NOWHERE, batch={})
    requests = [{"prompt": "a", **GPT}, {"prompt": "b"}]
    path = stage.job("night", requests)
    ended = stage.run(command, path.name, "--mode", "batch", exit_code=2)
    place = "error: night.yaml, line 2, defaults.model: "
    said = "`dall-e-2` cannot go by batch; use gpt-image-2.6-flare, or write `mode: auto`, which makes it in realtime"
    assert ended.stderr.splitlines() == [place + said]
    assert not stage.output.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "fast"], "'fast' is not one of 'realtime', 'batch', 'auto'"),
        (["--deadline", "soon"], f"'--deadline': `soon` is no deadline; {HELP}"),
        (["--mode", "batch", "--deadline", "07:00"], "deadline: is for mode auto only, not for mode batch"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "submit", "run", "resume"])
def test_an_option_that_is_wrong_changes_nothing(stage: Stage, command: str, options: list[str], said: str) -> None:
    job = night(stage)
    stage.run("submit", job)
    before = stage.ask(MODES)
    assert said in stage.run(command, "night" if command == "resume" else job, *options, exit_code=2).stderr
    assert stage.ask(MODES) == before


@pytest.mark.parametrize("words", [["run"], ["resume"], ["resume", "night"]])
def test_a_deadline_alone_for_a_job_that_is_not_in_auto_changes_nothing(stage: Stage, words: list[str]) -> None:
    stage.run("submit", night(stage, mode="auto"), night(stage, "other"))
    stage.run("submit", night(stage, mode="batch"))
    before = stage.ask(MODES)
    ended = stage.run(*words, "--deadline", "07:00", exit_code=2)
    said = "error: job `night`: the mode is batch, and a deadline is for mode auto only; add --mode auto"
    assert said in ended.stderr.splitlines()
    assert stage.ask(MODES) == before


def test_resume_by_batch_of_what_cannot_names_it_and_changes_nothing(stage: Stage) -> None:
    stage.provider("lab", NOWHERE, batch={})
    stage.run("submit", stage.job("old", [{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}]))
    stage.run("cancel", "old")
    ended = stage.run("resume", "old", "--mode", "batch", exit_code=2)
    assert "error: job `old`, request `a`: `dall-e-2` cannot go by batch; use --mode auto, which" in ended.stderr
    assert stage.ask("SELECT DISTINCT mode, r.status FROM job j JOIN request r ON r.job = j.pk") == [
        ("realtime", "cancelled")
    ]


@pytest.mark.parametrize("words", [["run"], ["resume", "night"]])
def test_a_provider_without_a_batch_api_takes_no_batch(stage: Stage, words: list[str]) -> None:
    stage.provider("lab", NOWHERE)
    stage.run("submit", night(stage))
    ended = stage.run(*words, "--mode", "batch", exit_code=2)
    assert "error: job `night`: provider `lab` has no Batch API; write `mode: auto`" in ended.stderr
    assert stage.ask(MODES) == [("night", "realtime", None)]

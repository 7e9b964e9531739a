"""What the last lines of a command tell to type, typed."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.stage import HOME, KEY, finish

if TYPE_CHECKING:
    from tests.support.stage import Ended, Stage


def _typed(stage: Stage, line: str) -> Ended:
    """Type a line that the summary gave."""
    program, *words = shlex.split(line)
    assert program == "pipeline"
    return finish(
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            cwd=stage.folder,
            env={"STAGE_KEY": KEY, "PYTHONPATH": str(HOME)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


def _command(stderr: str, word: str) -> str:
    return next(line.strip() for line in stderr.splitlines() if line.startswith("    pipeline") and word in line)


def test_the_commands_it_names_do_what_it_says(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.settings["retry"] = {"attempts": 1}
    stage.write_config()
    config = (stage.folder / "config.yaml").rename(stage.folder / "my config.yaml")
    broken = stage.serve(rate_limit=None, faults={"http_500": 1.0})
    job = stage.prompts("many", 3)
    text = config.read_text()
    config.write_text(text.replace(server.base_url, broken.base_url))
    options = ("--config", config, "--output", stage.folder / "my outputs")
    ended = stage.run(*options, "run", job, exit_code=1)
    assert "3 × 500 " in ended.stderr  # noqa: RUF001
    config.write_text(text)
    assert _typed(stage, _command(ended.stderr, "resume")).exit_code == 0
    assert len(list((stage.folder / "my outputs" / "many" / "images").iterdir())) == 3


def test_a_stop_says_what_stopped_it_what_is_left_and_how_to_go_on(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 5)
    stage.run("submit", stage.prompts("before", 2))
    ended = stage.run("run", job, "--limit", 4, "--budget", "0.04", "--output", "there", exit_code=3)
    assert "stopped: the next call of job `many` may cost" in ended.stderr
    assert "still queued: 3 requests for 3 images; to continue, run:" in ended.stderr
    command = _command(ended.stderr, "run")
    assert command == f"pipeline run {job} --limit 4 --budget 0.08 --output there", "which is enough"
    assert _typed(stage, command).exit_code == 0


def test_a_budget_in_the_job_file_is_raised_by_the_command_that_continues(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 4)
    job.write_text(f"budget_usd: 0.04\n{job.read_text()}")
    ended = stage.run("run", job, exit_code=3)
    command = _command(ended.stderr, "run")
    assert command == f"pipeline run {job} --budget 0.07"
    assert command in stage.run("status").stdout, "the same command"
    assert _typed(stage, command).exit_code == 0


def test_a_job_that_its_budget_did_not_stop_gets_no_budget(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.provider("wrong", stage.serve(rate_limit=None), base_url=f"{stage.providers['lab']['base_url']}/wrong")
    dear, other = stage.prompts("dear", 4), stage.prompts("other", 2)
    dear.write_text(f"budget_usd: 0.04\n{dear.read_text()}")
    other.write_text(f"provider: wrong\n{other.read_text()}")
    ended = stage.run("run", dear, other, exit_code=3)
    assert _command(ended.stderr, "run") == f"pipeline run {dear} {other}"


def test_a_budget_of_nothing_is_a_budget(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    job = stage.prompts("many", 1)
    ended = stage.run("run", job, "--budget", "0", exit_code=3)
    assert _command(ended.stderr, "run") == f"pipeline run {job} --budget 0.02"


def test_a_signal_says_how_to_go_on(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 0.3])
    stage.provider("lab", server, concurrency=1)
    stage.run("submit", stage.prompts("many", 20))
    process = stage.start("resume", "many")
    while not server.books():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    ended = finish(process)
    assert ended.exit_code == 143
    assert "to continue, run:\n    pipeline run\n" in ended.stderr


def test_stopped_at_once_it_names_the_command_too(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[100, 100])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("--output", "there", "run", stage.prompts("many", 2))
    assert process.stderr is not None
    while not stage.ask("SELECT * FROM attempt", "there"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    while "SIGINT" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.exit_code == 130
    assert "run `pipeline run --output there` to recover and continue" in ended.stderr

"""What people read last: what is here, what failed and why, what is left, and what to type."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from pipeline.cli.summary import closing_lines
from pipeline.config.load import RateLimit
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.result import Result
from tests.support.stage import finish
from tests.support.workbench import request
from tests.unit.test_failures import BUSY, POLICY, fail

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Ended, Stage
    from tests.support.workbench import Bench


def lines(bench: Bench, *again: str, **lowered: RateLimit) -> list[str]:
    """Write the summary of everything in the ledger."""
    result = Result(bench.folder, read_job_summaries(bench.connection), (), None, (), lowered)
    return list(closing_lines(result, ["pipeline"], again or ["run"]))


def test_causes_of_all_jobs_are_grouped_the_most_frequent_first(bench: Bench, tmp_path: Path) -> None:
    for name in ("one", "two"):
        bench.submit(*(request(k, id=f"cat-{k}") for k in range(4)), name=name, file=tmp_path / f"{name} job.yaml")
        fail(bench, 0, BUSY, name)
        fail(bench, 1, POLICY, name)
        fail(bench, 2, POLICY, name)
    said = lines(bench)
    begin = said.index("failed: 6 requests")
    assert said[begin + 1 : begin + 8] == [
        "  4 × 400 content_policy_violation, such as one/cat-1: the policy refused it",  # noqa: RUF001
        "    change the prompt or the picture, since what the policy refused it refuses again:",
        f"    pipeline run '{tmp_path}/one job.yaml'",
        f"    pipeline run '{tmp_path}/two job.yaml'",
        "  2 × 500 ServerFault, such as one/cat-0: busy",  # noqa: RUF001
        "    the server blames itself: try again later:",
        "    pipeline resume one two",
    ]
    assert said[begin + 8 :] == [
        "still queued: 2 requests for 2 images; this goes on with them:",
        "    pipeline run",
    ]


def test_hundreds_of_jobs_and_causes_do_not_flood_the_terminal(bench: Bench) -> None:
    for job in range(30):
        bench.submit(request(1), name=f"job-{job}")
        fail(bench, 1, type(BUSY)("busy", http_status=500 + job), f"job-{job}")
    said = lines(bench)
    assert len(said) < 50
    assert "20 more jobs: 0 images; 20 failed" in said
    assert "  and 22 causes more; the manifests name them" in said
    bench.set("UPDATE request SET error = (SELECT error FROM request LIMIT 1)")
    assert "    pipeline resume" in lines(bench), "thirty names are for no command line: all that failed"


def test_a_limit_that_was_lowered_and_calls_that_may_have_been_paid_are_said(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET status = 'succeeded', received = 1, cost_usd = 0.25, maybe_paid = 2")
    assert lines(bench, lab=RateLimit(5, 60)) == [
        "lab allowed 5 images per 60 s only",
        "job: 1 images; 1 succeeded; $0.25; 2 calls may have been paid besides",
    ]


def _typed(stage: Stage, line: str) -> Ended:
    """Type a line that the summary gave."""
    program, *words = shlex.split(line)
    assert program == "pipeline"
    return finish(
        subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words],
            cwd=stage.folder,
            env={"STAGE_KEY": "sk-stage-0123456789"},
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
    assert "still queued: 2 requests for 2 images; this goes on with them:" in ended.stderr
    command = _command(ended.stderr, "run")
    assert command == f"pipeline --output there run {job} --limit 4 --budget 0.04"
    assert _typed(stage, command.replace("0.04", "1")).exit_code == 0


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
    assert "this goes on with them:\n    pipeline run\n" in ended.stderr


def test_stopped_at_once_it_names_the_command_too(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[100, 100])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("--output", "there", "run", stage.prompts("many", 2))
    assert process.stderr is not None
    while not (stage.folder / "there" / "many").exists() and not (stage.folder / "there" / "run.log").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    while "SIGINT" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    ended = finish(process)
    assert ended.exit_code == 130
    assert "`pipeline --output there run` mends and goes on" in ended.stderr

"""What a death costs: the process is killed, and the next run goes on from the ledger."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.audit import audit
from tests.support.stage import finish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.stage import RunningCommand, Stage


def _until(stage: Stage, process: RunningCommand, question: str) -> Iterator[Any]:
    """Ask the ledger again and again until the process has ended; yield what it says."""
    while process.poll() is None:
        yield (stage.ask(question) or [[0]])[0][0]
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("requests", "kills", "answer"),
    [
        pytest.param(40, 4, "url", id="short url"),
        pytest.param(40, 4, "b64_json", id="short base64"),
        pytest.param(600, 100, "url", id="long url", marks=pytest.mark.long),
        pytest.param(600, 100, "b64_json", id="long base64", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(1800)
def test_kill_9_again_and_again_loses_nothing_and_pays_only_calls_in_flight_again(
    stage: Stage, requests: int, kills: int, answer: str
) -> None:
    draw = random.Random(42)
    server = stage.serve(rate_limit=None, latency_seconds=[0.05, 0.3], seed=2, faults={"cut_download": 0.1})
    stage.provider("lab", server, concurrency=8)
    job = stage.prompts("many", requests, response_format=answer, n=2)
    stage.run("submit", job)
    in_flight: set[Any] = set()  # a kill may come before what an earlier one left is mended
    for kill in range(kills):
        process = stage.start("run")
        goal = 2 * requests * (kill + 1) // (kills + 1)
        for received in _until(stage, process, "SELECT total(received) FROM request"):
            if received >= goal:
                break
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        finish(process)
        in_flight.update(stage.ask("SELECT pk FROM attempt WHERE outcome IS NULL"))
    stage.run("run")
    found = audit(stage, server.books())
    assert (found.pictures, found.lost, found.maybe_paid) == (2 * requests, 0, len(in_flight))
    assert found.paid_again <= 2 * len(in_flight)


def test_a_url_that_was_known_at_a_kill_is_downloaded_and_not_paid_again(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, faults={"cut_download": 1.0})
    stage.provider("lab", server)
    process = stage.start("run", stage.prompts("many", 5))
    for paid in _until(stage, process, "SELECT count(*) FROM image WHERE state = 'paid'"):
        if paid == 5:
            break
    process.kill()
    finish(process)
    server.stop()
    again = stage.serve(rate_limit=None, port=server.port)
    stage.run("run")
    assert audit(stage, server.books()).pictures == 5
    assert again.books() == []
    assert all(entry["maybe_paid"] == 0 and entry["attempts"] == 1 for entry in stage.manifest("many"))


def test_after_a_kill_within_the_window_a_strict_server_says_no_429(stage: Stage) -> None:
    limit = {"images": 10, "per_seconds": 3}
    server = stage.serve(rate_limit=limit)
    stage.provider("lab", server, rate_limit={**limit, "margin": 1.1})
    process = stage.start("run", stage.prompts("many", 16))
    for sent in _until(stage, process, "SELECT count(*) FROM attempt"):
        if sent >= 8:
            break
    process.kill()
    finish(process)
    stage.run("run")
    assert audit(stage, server.books(), limit=(10, 3)).pictures == 16
    assert {call["status"] for call in server.books()} - {None} == {200}, "None: its client was killed meanwhile"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_lets_calls_in_flight_finish_and_leaves_nothing_running(
    stage: Stage, number: signal.Signals
) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.4, 0.6])
    stage.provider("lab", server, concurrency=3)
    process = stage.start("run", stage.prompts("many", 12))
    answered = "EXISTS (SELECT 1 FROM attempt WHERE outcome = 'answered')"  # those sent with it are in flight by then
    for is_full in _until(stage, process, f"SELECT count(*) = 3 AND {answered} FROM attempt WHERE outcome IS NULL"):
        if is_full:
            break
    process.send_signal(number)
    ended = finish(process)
    assert ended.exit_code == 128 + number, ended.stderr
    assert "pipeline run" in ended.stderr
    standing = stage.standing("many")
    assert standing["counts"]["running"] == 0
    assert standing["images"] == standing["counts"]["succeeded"] == server.charged() >= 3
    assert audit(stage, server.books()).pictures == server.charged()
    stage.run("run")
    found = audit(stage, server.books())
    assert (found.pictures, found.charged, found.maybe_paid) == (12, 12, 0)


def test_the_second_signal_ends_at_once_and_the_next_run_mends(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[3, 3])
    stage.provider("lab", server, concurrency=3)
    process = stage.start("run", stage.prompts("many", 3))
    for running in _until(stage, process, "SELECT count(*) FROM attempt WHERE outcome IS NULL"):
        if running == 3:
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "finish" not in process.stderr.readline():  # it says that it heard the first
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process).exit_code == 130
    assert time.monotonic() - began < 2.5
    server.stop()
    again = stage.serve(rate_limit=None)
    stage.provider("lab", again)
    stage.run("run")
    found = audit(stage, server.books() + again.books())
    assert (found.pictures, found.maybe_paid) == (3, 3)


def _stuck_run(stage: Stage) -> RunningCommand:
    """A run whose image is in C code, which no signal interrupts, and which heard one signal."""
    stage.provider("lab", stage.serve(rate_limit=None))
    process = stage.start("run", stage.prompts("many", 1, response_format="b64_json"), sabotage="stuck")
    assert process.stderr is not None
    while "stuck" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    while "finish" not in process.stderr.readline():
        assert process.poll() is None
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_ends_a_process_whose_threads_cannot_be_interrupted(
    stage: Stage, number: signal.Signals
) -> None:
    process = _stuck_run(stage)
    began = time.monotonic()
    process.send_signal(number)
    ended = finish(process)
    assert time.monotonic() - began < 1.5
    assert ended.exit_code == 128 + number
    assert ended.stderr.count("stopped at once; run `pipeline run`") == 1
    assert stage.standing("many")["maybe_paid"] == 1, "its call is in flight until its image is on disk"
    stage.run("run")
    assert (stage.check_files("many"), stage.standing("many")["maybe_paid"]) == (1, 1)


def test_a_third_signal_does_not_wait(stage: Stage) -> None:
    process = _stuck_run(stage)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert finish(process).exit_code in {130, 143}


def test_waiting_for_the_throttle_ends_at_the_first_signal(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server, rate_limit={"images": 1, "per_seconds": 60})
    process = stage.start("run", stage.prompts("many", 3))
    for received in _until(stage, process, "SELECT total(received) FROM request"):
        if received == 1:
            break
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert finish(process).exit_code == 130
    assert time.monotonic() - began < 10
    assert audit(stage, server.books()).pictures == 1
    assert stage.standing("many")["counts"]["pending"] == 2


def test_a_sandbox_dies_with_a_run_that_is_killed_and_its_urls_survive(stage: Stage) -> None:
    stage.providers["sandbox"] = {
        "sandbox": {"rate_limit": None, "faults": {"cut_download": 0.5}, "seed": 4},
        "rate_limit": None,
    }
    stage.write_config()
    process = stage.start("run", stage.prompts("many", 5))
    for answered in _until(stage, process, "SELECT count(*) FROM attempt WHERE outcome = 'answered'"):
        if answered == 5:
            break
    process.kill()
    finish(process)
    stage.run("run")
    assert stage.check_files("many") == 5
    assert all(entry["maybe_paid"] == 0 for entry in stage.manifest("many"))

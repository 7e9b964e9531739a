"""A run that is stopped like a suspended machine, and runs that are killed right after somebody has set something."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit
from tests.support.stage import finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.stage import Server, Stage

LIMIT = {"images": 6, "per_seconds": 1}


@pytest.mark.parametrize(
    ("requests", "stops", "seconds"),
    [
        pytest.param(24, 1, 2.5, id="short"),
        pytest.param(90, 6, 4.0, id="long", marks=pytest.mark.long),
    ],
)
def test_a_process_that_slept_keeps_the_limit_and_loses_no_url(
    stage: Stage, requests: int, stops: int, seconds: float
) -> None:
    """It sleeps longer than the window and than a call may take, while calls and downloads are under way."""
    server = stage.serve(rate_limit=LIMIT, latency_seconds=[0.1, 0.8], faults={"cut_download": 0.3}, url_ttl_seconds=9)
    stage.provider("lab", server, rate_limit={**LIMIT, "margin": 1.2}, timeout_seconds=2)
    process = stage.start("run", stage.prompts("many", requests))
    for number in range(stops):
        _until_calls(server, len(server.books()) + 8)
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds + number / 10)
        process.send_signal(signal.SIGCONT)
    ended = finish(process)
    assert ended.exit_code == 0, ended.stderr
    found = audit(stage, server.books(), limit=(6, 1.0))
    assert (found.pictures, found.charged, found.lost) == (requests, requests, 0)
    assert {call["status"] for call in server.books()} == {200}, "a strict server has refused nothing"
    assert found.maybe_paid == 0, "what lay in the sockets was read"


def test_what_is_set_is_in_force_after_a_kill_that_follows_at_once(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.1, 0.1])
    stage.provider("lab", server, rate_limit={"images": 20, "per_seconds": 2})
    for name in ("first", "second"):
        stage.run("submit", stage.prompts(name, 16))

    _kill_after(stage, "priority", "second", 5)
    _kill_after(stage, "throttle", "lab", 3)
    _kill_after(stage, "pause", "lab")
    sent = len(server.books())
    ended = stage.run("run", "--no-wait", exit_code=3)
    assert "provider `lab` is paused" in ended.stderr
    assert len(server.books()) == sent, "no call is sent"

    stage.run("unpause", "lab")
    time.sleep(2.5)  # the window of all calls so far
    process, began = stage.start("run"), len(server.books())
    _until_calls(server, began + 5)
    process.kill()
    finish(process)
    later = server.books()[began:]
    assert _most_within(later, 2.0) <= 3
    last = "SELECT request FROM attempt ORDER BY pk DESC LIMIT 5"
    jobs = stage.ask(f"SELECT DISTINCT j.name FROM job j JOIN request r ON r.job = j.pk WHERE r.pk IN ({last})")
    assert jobs == [("second",)]

    stage.run("throttle", "lab", "--reset")
    stage.run("priority", "second", 0)
    stage.run("run")
    assert audit(stage, server.books(), limit=(20, 2.0)).pictures == 32


def _kill_after(stage: Stage, *words: object) -> None:
    """Kill a run at work at the moment at which a command has ended."""
    process = stage.start("run")
    before = len(stage.ask("SELECT 1 FROM attempt"))
    _until(lambda: len(stage.ask("SELECT 1 FROM attempt")) > before)
    stage.run(*words)
    process.kill()
    finish(process)
    time.sleep(0.5)  # until the server has answered what was in flight


def _most_within(calls: list[dict[str, float]], seconds: float) -> int:
    moments = [call["mono"] for call in calls]
    return max(sum(one <= other < one + seconds for other in moments) for one in moments)


def _until_calls(server: Server, count: int) -> None:
    _until(lambda: len(server.books()) >= count)


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)

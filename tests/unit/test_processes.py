"""Which processes live, and since when."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pipeline.ledger import processes


@pytest.mark.parametrize("source", ["_from_proc", "_from_ps"])
def test_the_start_of_a_process_is_known_to_a_second_or_two(source: str) -> None:
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert before - 2 < getattr(processes, source)(child.pid) < time.time() + 2
        assert processes.is_alive(child.pid)
        assert getattr(processes, source)(os.getppid()) < before + 2


def test_an_elapsed_time_of_less_than_nothing_is_a_start_now(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = subprocess.CompletedProcess([], 0, "S    441077234-00:18:40\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_kwargs: printed)
    before = time.time()
    assert before <= (processes._from_ps(1) or 0) <= time.time()


@pytest.mark.parametrize("source", ["_from_proc", "_from_ps"])
def test_a_process_that_has_ended_has_no_start_though_its_parent_has_not_noticed(source: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # until it ends
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(0.001)
    assert getattr(processes, source)(child.pid) is None
    assert processes.started_at(child.pid) is None
    child.stdout.close()
    child.wait()
    assert processes.started_at(child.pid) is None
    assert not processes.is_alive(child.pid)


@pytest.mark.parametrize(("said", "seconds"), [("S 00:07", 7), ("Ss 01:02:03", 3723), ("R+ 2-01:00:00", 176_400)])
def test_the_elapsed_time_of_ps_is_read(said: str, seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = subprocess.CompletedProcess([], 0, f" {said}\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: found)
    assert time.time() - processes._from_ps(1) == pytest.approx(seconds, abs=1)  # type: ignore[operator]

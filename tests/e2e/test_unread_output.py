"""A reader that stops reading, or goes away, halts no run: what is bought is stored, and the end is bounded."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.stage import HOME, KEY
from tests.support.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stage import Stage

pytestmark = pytest.mark.processes

IMAGES = 40
PIPE = 4096  # bytes that it takes: the events of so many images are more


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Look until this holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def many(stage: Stage) -> Path:
    """Return a job whose events fill a pipe."""
    stage.provider("lab", stage.serve(rate_limit=None))
    return stage.prompts("many", IMAGES)


def stored(stage: Stage) -> int:
    """Count what is in the ledger."""
    rows = stage.ask("SELECT count(*) FROM image")
    return int(rows[0][0]) if rows else 0


def start(stage: Stage, *words: object) -> subprocess.Popen[bytes]:
    """Start the command with pipes that only the test reads."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *map(str, words)],
        cwd=stage.folder,
        env={**os.environ, "STAGE_KEY": KEY, "PYTHONPATH": str(HOME)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE)
    stage.stack.callback(process.kill)
    return process


def test_events_that_nobody_reads_do_not_halt_a_run_and_a_late_reader_gets_all(stage: Stage) -> None:
    with start(stage, "run", many(stage), "--json", "--quiet") as process:
        until((stage.output / "many" / "report.html").exists)
        assert stored(stage) == IMAGES
        assert process.poll() is None, "it waits for its reader"
        out, err = process.communicate(timeout=60)
    events = [json.loads(line) for line in out.splitlines()]
    assert (process.returncode, err) == (0, b"")
    assert sum(one["event"] == "image_stored" for one in events) == IMAGES
    assert events[-1]["event"] == "summary"


def test_a_signal_ends_the_wait_for_a_reader(stage: Stage) -> None:
    with start(stage, "run", many(stage), "--json", "--quiet") as process:
        until((stage.output / "many" / "report.html").exists)
        until(lambda: stage.standing("many")["counts"]["running"] == 0)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130, "within a second on an idle machine; without a signal after 30 s"
        process.communicate()
    assert stored(stage) == IMAGES


def test_a_run_that_a_signal_has_stopped_does_not_wait_for_its_reader(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None), rate_limit={"images": 8, "per_seconds": 1})
    with start(stage, "run", stage.prompts("many", IMAGES), "--json", "--quiet") as process:
        until(lambda: stored(stage) >= 16)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143, "its end waits for readers of other runs for 30 s"
        process.communicate()
    assert stage.standing("many")["counts"]["running"] == 0


def test_a_reader_that_goes_away_does_not_change_how_the_run_ends(stage: Stage) -> None:
    with start(stage, "run", many(stage), "--json", "--quiet") as process:
        assert process.stdout is not None
        assert b"run_started" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert stage.standing("many")["counts"]["succeeded"] == IMAGES


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_terminal_that_is_stopped_does_not_halt_a_run(stage: Stage, term: str) -> None:
    job = many(stage)
    with terminal(stage.folder, "run", job, "--verbose", TERM=term) as seen:
        seen.read_until(lambda: "many" in seen.text)
        os.write(seen.ours, b"\x13")  # Ctrl-S
        until((stage.output / "many" / "report.html").exists)
        assert stored(stage) == IMAGES
        assert seen.process.poll() is None
        os.write(seen.ours, b"\x11")  # Ctrl-Q
        assert seen.read_to_the_end() == 0
        assert "40 succeeded" in seen.text

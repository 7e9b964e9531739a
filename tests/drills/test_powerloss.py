"""What a power cut costs: every order in which writes reach the disk leaves a folder from which a run goes on."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit
from tests.support.powerloss import cuts, lay, read_steps, recorder
from tests.support.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.powerloss import Step


def _can_trace() -> bool:
    strace = shutil.which("strace")
    if strace is None:
        return False
    return subprocess.run([strace, "-o", "/dev/null", sys.executable, "-c", ""], check=False).returncode == 0


def _job(stage: Stage, requests: int) -> Path:
    """Write a job with a picture to upload, answers of both kinds, and requests of several pictures."""
    from PIL import Image

    Image.new("RGB", (256, 256), "#3a7ca5").save(stage.folder / "lounge.png")
    (stage.folder / "many.txt").write_text("".join(f"prompt number {number}\n" for number in range(requests)))
    every = {"prompt": "{{ prompt }}", "rows": "many.txt", "n": 2}
    return stage.job(
        "many",
        [
            {"operation": "variation", "image": "lounge.png"},
            {**every, "response_format": "b64_json"},
            {**every, "prompt": "another {{ prompt }}", "response_format": "url"},
        ],
    )


@pytest.mark.skipif(not _can_trace(), reason="needs strace, and the right to trace")
@pytest.mark.parametrize(
    ("requests", "number"),
    [pytest.param(6, 5, id="short"), pytest.param(25, 600, id="long", marks=pytest.mark.long)],
)
@pytest.mark.timeout(3600)
def test_after_a_power_cut_at_any_write_a_run_loses_nothing_that_was_paid(
    stage: Stage, requests: int, number: int
) -> None:
    draw = random.Random(7)
    server = stage.serve(rate_limit=None, latency_seconds=[0.02, 0.1], seed=2)
    stage.provider("lab", server, concurrency=4)
    job = _job(stage, requests)
    trace = stage.folder / "trace"
    stage.run("run", job, under=recorder(trace))
    steps = read_steps(trace, stage.folder)
    assert {step.name for step in steps} >= {"write", "pwrite64", "fsync", "fdatasync", "rename", "mkdir"}
    moments = _moments(steps, number, draw)
    before = server.books()
    for count, (step, choice, tree) in enumerate(cuts(steps, moments, draw)):
        with contextlib.ExitStack() as stack:
            again = Stage(stage.folder / f"cut-{count}", stack)
            _set_up(stage, again, job)
            lay(tree, again.folder)
            known = len(server.books())
            again.run("run", job)
            made = [call for call in before if call["at"] < step.moment]
            found = audit(again, made + server.books()[known:])
            assert found.pictures == 1 + 4 * requests, (step, choice)
            in_flight = 4 * 2
            assert found.paid_again <= in_flight
        shutil.rmtree(again.folder)


def _moments(steps: list[Step], number: int, draw: random.Random) -> list[int]:
    """Choose after which steps the power is cut: half of them anywhere, half where the ledger has just been written."""
    ledger = [place for place, step in enumerate(steps) if step.paths[0].endswith("-wal")]
    anywhere = draw.sample(range(len(steps)), min(number // 2, len(steps)))
    return sorted({*anywhere, *draw.sample(ledger, min(number - number // 2, len(ledger)))})


def _set_up(first: Stage, again: Stage, job: Path) -> None:
    again.folder.mkdir()
    for name in ("config.yaml", job.name, "many.txt", "lounge.png"):
        shutil.copy(first.folder / name, again.folder / name)

"""Thousands of requests with faults: memory, open files and tasks stay what they were after the first hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.soak import WARM

if TYPE_CHECKING:
    from tests.support.stage import Stage

STORM = {
    **dict.fromkeys(["http_429", "http_500", "http_503", "html_502", "drop_before", "drop_after"], 0.04),
    **dict.fromkeys(["broken_json", "empty", "cut_download", "wrong_download"], 0.04),
}
CONCURRENCY = 16
MORE_BYTES = 10 * 2**20
"""What memory may grow by: the allocator's own play, far less than the pictures that come meanwhile."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")


@pytest.mark.parametrize(
    "requests",
    [250, pytest.param(6000, marks=[pytest.mark.long, pytest.mark.timeout(1200)])],
)
def test_memory_files_and_tasks_stay_flat_in_a_storm(stage: Stage, requests: int) -> None:
    server = stage.serve(rate_limit=None, seed=11, faults=STORM)
    stage.settings["retry"] = {"attempts": 50, "unknown": 50, "max_wait_seconds": 0.02}
    stage.provider("lab", server, concurrency=CONCURRENCY)
    job = stage.prompts("storm", requests)
    command = [sys.executable, "-m", "tests.support.soak", str(stage.folder / "config.yaml"), str(job), str(requests)]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"STAGE_KEY": "sk-soak", "PATH": ""}, timeout=1100
    )
    said = json.loads(ended.stdout.splitlines()[-1])
    assert said["exit"] == 0, ended.stderr
    warm = next(sample for sample in said["samples"] if sample["ended"] == WARM)
    *during, after = [sample for sample in said["samples"] if sample["ended"] > WARM]
    assert after["ended"] == requests
    assert max(sample["rss"] for sample in during) - warm["rss"] < MORE_BYTES, said
    assert max(sample["files"] for sample in during) <= warm["files"] + 2 * CONCURRENCY, said
    assert max(sample["tasks"] for sample in during) <= 3 * CONCURRENCY, said
    assert after["files"] <= warm["files"], said
    assert stage.check_files("storm") == requests

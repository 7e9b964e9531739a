"""Several processes on one folder: one works, and what the others bring is worked too, once."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.audit import audit
from tests.support.stage import finish

if TYPE_CHECKING:
    from tests.support.stage import Stage


@pytest.mark.parametrize(
    ("processes", "same"),
    [
        pytest.param(2, True, id="two with one job"),
        pytest.param(5, False, id="five with a job each"),
        *(pytest.param(12, same, id=f"long twelve {same}", marks=pytest.mark.long) for same in (True, False)),
    ],
)
def test_of_several_runs_at_once_one_works_and_everything_is_paid_once(
    stage: Stage, processes: int, same: bool
) -> None:
    server = stage.serve(rate_limit={"images": 30, "per_seconds": 1}, latency_seconds=[0.1, 0.2])
    stage.provider("lab", server, rate_limit={"images": 30, "per_seconds": 1, "margin": 1.5})
    jobs = [stage.prompts("many" if same else f"many-{number}", 24) for number in range(processes)]
    running = [stage.start("run", job) for job in jobs]
    ended = [finish(process) for process in running]
    assert sorted({one.exit_code for one in ended}) == [0, 3], [one.stderr for one in ended]
    for one in ended:
        assert "Traceback" not in one.stderr
        assert one.exit_code == 0 or re.search(r"the run at work \(process \d+ on ", one.stderr)
    stage.run("run")
    found = audit(stage, server.books(), limit=(30, 1.0))
    number = 24 if same else 24 * processes
    assert (found.pictures, found.charged, found.maybe_paid) == (number, number, 0)


def test_a_job_that_is_submitted_while_another_runs_is_taken_up_and_both_are_whole(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.1, 0.2])
    stage.provider("lab", server, concurrency=3)
    process = stage.start("run", stage.prompts("first", 40))
    while len(server.books()) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    stage.run("submit", stage.prompts("second", 20))
    assert process.poll() is None
    assert finish(process).exit_code == 0
    found = audit(stage, server.books())
    assert (found.pictures, found.charged) == (60, 60)


def test_beside_a_run_the_other_commands_work_and_disturb_nothing(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.1, 0.2])
    stage.provider("lab", server, concurrency=2)
    first, second = stage.prompts("first", 50), stage.prompts("second", 20)
    stage.run("submit", second)
    process = stage.start("run", first)
    while len(server.books()) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    stage.run("status")
    stage.run("manifest", "first")
    stage.run("verify")
    stage.run("cancel", "second")
    assert process.poll() is None
    assert finish(process).exit_code == 0
    stage.run("run")  # which writes the manifest of the second, too
    assert audit(stage, server.books()).charged == 50
    assert stage.standing("second")["counts"]["cancelled"] == 20

"""What is at work on a running request, and what to type."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pipeline.config.load import Config
from pipeline.ledger import attempts
from pipeline.ledger.lock import run_lock
from pipeline.reports.show import read_shown
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench


def standing(bench: Bench, request_id: str, *, beside_a_run: bool) -> tuple[str, list[tuple[str, ...]]]:
    """Return why a request stands where it stands, and what to type."""
    with contextlib.ExitStack() as stack:
        if beside_a_run:
            stack.enter_context(run_lock(bench.folder, bench.images, bench.connection, lambda: None))
        (shown,) = read_shown(Config(None, bench.folder, None, {}), "job", request_id)
    return shown.reason, list(shown.commands)


def test_a_request_in_realtime_is_not_said_to_be_in_a_batch_and_needs_no_command_beside_a_run(bench: Bench) -> None:
    bench.submit(request(1, id="pool"))
    attempts.begin(bench.connection, 1, "lab", "http://127.0.0.1:9/v1", 1, None, 1.0)
    reason, commands = standing(bench, "pool", beside_a_run=True)
    assert reason.startswith("a run is at work on it (process ")
    assert commands == []
    reason, commands = standing(bench, "pool", beside_a_run=False)
    assert reason == "the run that was at work on it has died; the next one continues"
    assert commands == [("run",)]


def test_a_request_in_a_batch_is_said_with_its_batch_and_who_collects_it(bench: Bench) -> None:
    bench.submit(request(1, id="pool"), request(2, id="lake"))
    bench.send_batch(1, sent_at=5.0)
    bench.send_batch(2, id=None)
    assert standing(bench, "pool", beside_a_run=True) == ("it is in batch batch_1; the run at work collects it", [])
    assert standing(bench, "pool", beside_a_run=False) == (
        "it is in batch batch_1; the next run collects it",
        [("run",)],
    )
    reason, _ = standing(bench, "lake", beside_a_run=False)
    assert reason == "it is in a batch that is being sent; the next run collects it"

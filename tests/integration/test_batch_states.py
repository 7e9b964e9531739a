"""Every command that reads a ledger works on one that has batches in every state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger.backup import back_up
from pipeline.ledger.database import FILE_NAME
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.stage import Stage
    from tests.support.workbench import Bench

STATES = (
    *(None, "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"),
    "a word that nobody knows",
)


@pytest.fixture
def states(bench: Bench) -> Bench:
    """A job with a living batch of every status and an ended one, and a moment or an id that is missing."""
    bench.submit(*map(request, range(2 * len(STATES))))
    for number, status in enumerate(STATES):
        known = status is not None
        sent_at = 1.79e9 + number if known else None
        for pk, is_living in ((1 + number, True), (1 + number + len(STATES), False)):
            name = f"batch_{pk}" if known else None
            expires_at = None if sent_at is None else sent_at + 86_400
            more = {"failed": number % 2}
            batch = bench.send_batch(pk, id=name, status=status, sent_at=sent_at, expires_at=expires_at, **more)
            if not is_living:
                bench.set("UPDATE batch SET ended_at = 1.79e9 WHERE pk = ?", batch)
                bench.set("UPDATE attempt SET outcome = 'not_sent', ended_at = 1 WHERE batch = ?", batch)
                bench.set("UPDATE request SET status = 'pending' WHERE pk = ?", pk)
    bench.set("UPDATE job SET mode = 'auto', deadline = 1.79e9, cancel_since = 5")
    return bench


def test_every_command_that_reads_works(states: Bench, stage: Stage) -> None:
    output = ("--output", states.folder)
    before = states.ask("SELECT * FROM batch"), states.ask("SELECT * FROM attempt"), states.statuses()
    (job,) = json.loads(stage.run("status", "--json", *output).stdout)["jobs"]
    assert [one["status"] for one in job["batches"] if one["id"] is None] == ["sending"]
    assert len(job["batches"]) == 2 * len(STATES) - 1, "one was never sent"
    assert job["counts"]["running"] == len(STATES)
    text = stage.run("status", *output).stdout
    assert text.count("\n") <= 6
    assert f"{len(STATES)} in batch" in text
    assert "being cancelled; 10 batches out: 0 of 10 lines made, 5 failed" in text
    assert stage.run("status", "--verbose", *output).stdout.count("batch_") == 2 * len(STATES) - 2
    watched = json.loads(stage.run("status", "--watch", "--json", *output).stdout)
    assert (watched["jobs"][0]["batches"], watched["providers"][0]["in_flight"]) == (job["batches"], 0)
    stage.run("status", "--watch", *output)
    stage.run("manifest", "job", *output)
    entries = [json.loads(line) for line in (states.folder / "job" / "manifest.jsonl").read_text().splitlines()]
    assert {(one["mode"], one["batch_id"]) for one in entries} == {(None, None)}
    stage.run("report", "job", *output)
    stage.run("verify", *output)
    stage.run("verify", "--repair", *output)
    stage.run("rename", "job", "night", *output)
    refused = stage.run("forget", "night", "--yes", *output, exit_code=2).stderr
    assert f"{len(STATES)} batches are out for job `night`" in refused
    assert (states.ask("SELECT * FROM batch"), states.ask("SELECT * FROM attempt"), states.statuses("night")) == before


def test_a_copy_of_the_ledger_has_the_batches(states: Bench) -> None:
    from contextlib import closing

    from pipeline.ledger.database import open_ledger

    back_up(states.connection, states.folder)
    other = states.folder / "restored"
    other.mkdir()
    (states.folder / "ledger.backup.sqlite3").rename(other / FILE_NAME)
    with closing(open_ledger(other)) as restored:
        assert [tuple(row) for row in restored.execute("SELECT * FROM batch")] == states.ask("SELECT * FROM batch")

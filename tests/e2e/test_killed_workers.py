"""After a run on other machines was killed, no command calls before its workers can send nothing any more."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.config.environment import ADMIN_KEY

if TYPE_CHECKING:
    from tests.support.stage import Stage


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["redo", "night", "--id", "one", "--yes"],
        ["doctor", "--canary"],
        ["reconcile", "lab", "--apply"],
    ],
    ids=lambda words: words[0],
)
def test_workers_of_a_killed_run_are_waited_for(
    stage: Stage, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADMIN_KEY, "sk-admin-0123456789")
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("run", stage.job("night", [{"id": "one", "prompt": "a cat"}]))
    stage.run("submit", stage.job("later", [{"id": "two", "prompt": "a dog", "size": "512x512"}]))
    until = time.time() + 0.8
    with contextlib.closing(sqlite3.connect(stage.output / "ledger.sqlite3")) as connection:
        connection.execute("INSERT INTO worker_lease VALUES (?)", (until,))
        connection.commit()
    stage.run(*words, exit_code=None)
    assert time.time() >= until
    assert all(call["at"] >= until for call in server.books()[1:])
    assert bool(server.books()[1:]) == (words[0] != "reconcile")
    assert stage.ask("SELECT * FROM worker_lease") == []

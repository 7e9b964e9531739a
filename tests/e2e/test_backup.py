"""The ledger has a copy from before and after each run, and a damaged one says how to go on with it."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import DiskFull, LedgerError
from pipeline.ledger.backup import back_up
from pipeline.ledger.database import BACKUP_NAME, FILE_NAME
from tests.support.workbench import request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage
    from tests.support.workbench import Bench


def _requests(ledger: Path) -> int:
    with closing(sqlite3.connect(ledger)) as connection:
        return int(connection.execute("SELECT count(*) FROM request").fetchone()[0])


def _damage(ledger: Path) -> None:
    """Overwrite all pages but the first, as a failing disk may."""
    content = bytearray(ledger.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    ledger.write_bytes(content)


def test_a_copy_is_one_whole_file_also_of_what_is_still_in_the_wal(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    assert (bench.folder / f"{FILE_NAME}-wal").stat().st_size > 0
    back_up(bench.connection, bench.folder)
    assert _requests(bench.folder / BACKUP_NAME) == 2
    assert not list(bench.folder.glob(f"*{BACKUP_NAME}*-*"))
    assert not list(bench.folder.glob(".*"))


def test_a_damaged_ledger_does_not_take_the_place_of_a_good_copy(bench: Bench) -> None:
    bench.submit(*(request(number) for number in range(200)))
    back_up(bench.connection, bench.folder)
    bench.set("PRAGMA wal_checkpoint(TRUNCATE)")
    bench.connection.close()
    _damage(bench.folder / FILE_NAME)
    with closing(sqlite3.connect(bench.folder / FILE_NAME)) as damaged, pytest.raises(LedgerError, match="damaged"):
        back_up(damaged, bench.folder)
    assert _requests(bench.folder / BACKUP_NAME) == 200


def test_a_copy_that_cannot_be_written_leaves_the_last_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(request(1))
    back_up(bench.connection, bench.folder)
    bench.submit(request(1), request(2))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="no room"):
        back_up(bench.connection, bench.folder)
    assert _requests(bench.folder / BACKUP_NAME) == 1
    assert not list(bench.folder.glob(".*"))


def test_the_ledger_is_backed_up_when_a_run_begins_and_when_it_ends(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    stage.run("submit", stage.prompts("one", 2))
    stage.run("run")
    with closing(sqlite3.connect(stage.output / BACKUP_NAME)) as copy:
        assert copy.execute("SELECT status FROM request").fetchall() == [("succeeded",)] * 2
    stage.run("submit", stage.prompts("two", 3))
    server.stop()
    process = stage.start("run", "--verbose")
    assert process.stderr is not None
    for line in process.stderr:  # the first call is made: the run has begun, and will not end
        if "two/" in line:
            break
    assert _requests(stage.output / BACKUP_NAME) == 5


def test_a_damaged_ledger_names_its_copy_and_the_command_that_takes_it(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.prompts("job", 3)
    stage.run("run", job)
    _damage(stage.output / FILE_NAME)
    for command in (("run",), ("status",), ("submit", job), ("verify",), ("resume",), ("plan", job)):
        ended = stage.run(*command, exit_code=2)
        assert "damaged" in ended.stderr
        assert BACKUP_NAME in ended.stderr
    assert server.charged() == 3
    command_line = re.search(r"restore it with: (.+)$", ended.stderr, re.MULTILINE)
    assert command_line is not None
    subprocess.run(command_line[1], shell=True, check=True)  # noqa: S602 - what a person would paste
    stage.run("run", job)
    assert stage.standing("job")["counts"]["succeeded"] == 3
    assert server.charged() == 3


def test_without_a_copy_a_damaged_ledger_says_so(bench: Bench) -> None:
    bench.connection.close()
    (bench.folder / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"\xa5" * 8000)
    damaged = closing(sqlite3.connect(bench.folder / FILE_NAME))
    with damaged as connection, pytest.raises(LedgerError, match="there is no copy of it"):
        back_up(connection, bench.folder)

"""The ledger is opened, migrated and recovered, and its constraints refuse invalid states."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NoReturn

import pytest

from pipeline import ledger
from pipeline.errors import BadInput, DiskFull, LedgerError
from pipeline.ledger import database
from pipeline.ledger.backup import back_up
from pipeline.ledger.database import (
    BACKUP_NAME,
    FILE_NAME,
    change_counter,
    open_for_reading,
    open_ledger,
    read_transaction,
    transaction,
    translated_errors,
)
from pipeline.ledger.error_kind import kind_of_json
from pipeline.ledger.failure_queries import read_lost_calls
from pipeline.ledger.migrations import MIGRATIONS
from pipeline.ledger.queries import read_requests
from pipeline.ledger.recovery import recover
from tests.support.workbench import request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench


def test_a_new_ledger_is_durable_and_of_the_newest_version(tmp_path: Path) -> None:
    with contextlib.closing(open_ledger(tmp_path / "deep" / "down")) as connection:
        pragmas = ("user_version", "journal_mode", "synchronous", "foreign_keys")
        values = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]
    assert values == [len(MIGRATIONS), "wal", 2, 1]


def test_processes_that_open_a_new_folder_at_once_all_get_the_ledger(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(30):  # SQLite refuses one of them at the moment of another's first look, now and then
            folder = tmp_path / str(number)
            opened = list(threads.map(lambda _, folder=folder: open_ledger(folder), range(8)))
            for connection in opened:
                assert connection.execute("SELECT count(*) FROM job").fetchone()[0] == 0
                connection.close()


def test_a_reader_makes_no_ledger_and_takes_an_empty_file_for_none(tmp_path: Path) -> None:
    assert open_for_reading(tmp_path) is None
    assert not (tmp_path / FILE_NAME).exists()
    (tmp_path / FILE_NAME).touch()
    assert open_for_reading(tmp_path) is None


def test_a_reader_cannot_write(bench: Bench) -> None:
    reader = open_for_reading(bench.folder)
    assert reader is not None
    with contextlib.closing(reader), pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM job")


@pytest.mark.parametrize("reading", [False, True])
def test_an_older_ledger_is_migrated_and_keeps_what_it_has(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reading: bool
) -> None:
    bench.submit(request(1))
    more = [*MIGRATIONS, lambda connection: connection.execute("ALTER TABLE job ADD COLUMN colour TEXT")]
    monkeypatch.setattr(database, "MIGRATIONS", more)
    opened = open_for_reading(bench.folder) if reading else open_ledger(bench.folder)
    assert opened is not None
    with contextlib.closing(opened):
        assert opened.execute("PRAGMA user_version").fetchone()[0] == len(more)
        assert tuple(opened.execute("SELECT name, colour FROM job").fetchone()) == ("job", None)


def test_a_ledger_of_the_first_version_is_taken_with_all_it_has(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as old:
        MIGRATIONS[0](old)
        old.execute("PRAGMA user_version = 1")
        old.execute("INSERT INTO job VALUES (1, 'job', NULL, 'lab', 0, NULL, 1, 5.0)")
        old.execute(
            "INSERT INTO request (job, key, stated, position, id, operation, served_by, params, variables, inputs, n,"
            " created_at) VALUES (1, ?, 1, 0, 'one', 'generation', 'generation', '{}', '{}', '[]', 1, 5.0)",
            ("a" * 64,),
        )
        old.commit()
    with contextlib.closing(open_ledger(tmp_path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
        assert tuple(connection.execute("SELECT id, status, wait_until FROM request").fetchone()) == (
            "one",
            "pending",
            None,
        )


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_a_ledger_that_is_gone_beside_its_copy_is_not_begun_anew(bench: Bench, left: str) -> None:
    bench.submit(request(1))
    back_up(bench.connection, bench.folder)
    bench.connection.close()
    for path in bench.folder.glob(f"{FILE_NAME}*"):
        path.unlink()
    if left == "an empty file":
        (bench.folder / FILE_NAME).touch()
    with pytest.raises(LedgerError, match=f"{BACKUP_NAME}.*restore it with.*to start over"):
        open_ledger(bench.folder)


def test_a_migration_that_fails_leaves_the_ledger_as_it_was(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE job ADD COLUMN colour TEXT")
        connection.execute("this is no SQL")

    monkeypatch.setattr(database, "MIGRATIONS", [*MIGRATIONS, half])
    with pytest.raises(LedgerError):
        open_ledger(bench.folder)
    assert bench.one("PRAGMA user_version") == len(MIGRATIONS)
    assert "colour" not in {row[1] for row in bench.ask("PRAGMA table_info(job)")}


@pytest.mark.parametrize("opener", [open_ledger, open_for_reading])
def test_a_newer_ledger_is_refused_with_what_to_do(bench: Bench, opener: object) -> None:
    bench.set(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    assert callable(opener)
    with pytest.raises(LedgerError, match=r"newer version of this program.*update"):
        opener(bench.folder)


@pytest.mark.parametrize("opener", [open_ledger, open_for_reading])
def test_a_file_that_is_no_ledger_is_named_and_not_touched(tmp_path: Path, opener: object) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database at all " * 200)
    before = (tmp_path / FILE_NAME).read_bytes()
    assert callable(opener)
    with pytest.raises(LedgerError, match="damaged"):
        opener(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot be created"):
        open_ledger(tmp_path / "file" / "outputs")


ATTEMPT = "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES"
TWICE = (
    "INSERT INTO request (job, key, stated, position, id, operation, served_by, params, variables, inputs, n,"
    " created_at)"
    " SELECT job, key, stated, position, id, operation, served_by, params, variables, inputs, n, created_at"
    " FROM request"
)
IMAGE = "INSERT INTO image (request, attempt, job, number, state, url, file, sha256, bytes) VALUES (1, 1, 1,"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE request SET status = 'lost'",
        "UPDATE request SET n = 0",
        "UPDATE request SET received = -1",
        "UPDATE request SET attempts = -1",
        "UPDATE request SET maybe_paid = -1",
        "UPDATE request SET id = ''",
        "UPDATE request SET key = 'short'",
        "UPDATE request SET params = '{'",
        "UPDATE request SET error = 'no JSON'",
        "UPDATE request SET operation = 'dream'",
        "UPDATE request SET stated = 0",
        "UPDATE request SET n = 'many'",
        TWICE,
        "INSERT INTO job (name, provider, rehearsal, submitted_at) VALUES ('JOB', 'lab', 0, 0)",
        "UPDATE job SET budget_usd = -1",
        f"{ATTEMPT} (1, 'lab', 0, 1, NULL, NULL)",
        f"{ATTEMPT} (1, 'lab', 1, 1, NULL, 'answered')",
        f"{ATTEMPT} (1, 'lab', 1, 1, 2, NULL)",
        f"{ATTEMPT} (1, 'lab', 1, 1, 2, 'perhaps')",
        f"{ATTEMPT} (77, 'lab', 1, 1, NULL, NULL)",
        f"{IMAGE} 2, 'paid', NULL, NULL, NULL, NULL)",
        f"{IMAGE} 2, 'lost', 'http://x', NULL, NULL, NULL)",
        f"{IMAGE} 2, 'stored', NULL, 'images/b-1.png', NULL, 5)",
        f"{IMAGE} 2, 'stored', NULL, NULL, '{'0' * 64}', 5)",
        f"{IMAGE} 2, 'stored', NULL, 'images/b-1.png', '{'0' * 64}', 0)",
        f"{IMAGE} 0, 'paid', 'http://x', NULL, NULL, NULL)",
        f"{IMAGE} 2, 'stored', NULL, 'images/A-1.PNG', '{'0' * 64}', 5)",
        "DELETE FROM request",
        "INSERT INTO holder VALUES (2, 1, 'here', 0)",
    ],
)
def test_the_ledger_itself_refuses_what_should_never_be(bench: Bench, statement: str) -> None:
    bench.submit(request(1))
    bench.set(f"{ATTEMPT} (1, 'lab', 1, 1, 2, 'answered')")
    bench.set(f"{IMAGE} 1, 'stored', NULL, 'images/a-1.png', '{'0' * 64}', 5)")
    with pytest.raises(sqlite3.IntegrityError):
        bench.set(statement)


def test_a_statement_that_the_ledger_refuses_is_a_bug_and_not_called_damage(bench: Bench) -> None:
    with pytest.raises(sqlite3.IntegrityError), translated_errors("ledger"):
        bench.set("INSERT INTO holder VALUES (2, 1, 'here', 0)")


def test_a_transaction_writes_all_or_nothing(bench: Bench) -> None:
    def fail() -> NoReturn:
        with transaction(bench.connection):
            bench.set("INSERT INTO holder VALUES (1, 1, 'here', 0)")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert bench.one("SELECT count(*) FROM holder") == 0
    assert not bench.connection.in_transaction


def test_a_full_disk_is_named_and_leaves_no_transaction_open(bench: Bench) -> None:
    bench.set("CREATE TABLE ballast (content BLOB)")
    bench.set(f"PRAGMA max_page_count = {bench.one('PRAGMA page_count')}")
    with pytest.raises(DiskFull, match="free some space"), translated_errors("ledger"), transaction(bench.connection):
        bench.set("INSERT INTO ballast VALUES (zeroblob(1000000))")
    assert not bench.connection.in_transaction


def test_recover_counts_calls_without_an_end_as_unknown_and_sent_a_little_later(bench: Bench) -> None:
    bench.submit(request(1), request(2), request(3))
    bench.set("UPDATE request SET status = 'running' WHERE pk < 3")
    for values in ("1, 'lab', 1, 100, NULL, NULL", "1, 'lab', 1, 200, NULL, NULL", "2, 'lab', 1, 90, 95, 'refused'"):
        bench.set(f"{ATTEMPT} ({values})")
    assert recover(bench.connection, 200.4) == 2
    assert bench.ask("SELECT outcome, sent_at, ended_at FROM attempt ORDER BY pk") == [
        ("unknown", 101, 200.4),
        ("unknown", 200.4, 200.4),
        ("refused", 90, 95),
    ]
    assert bench.ask("SELECT status FROM request") == [("pending",)] * 3
    assert bench.ask("SELECT maybe_paid FROM request ORDER BY pk") == [(2,), (0,), (0,)]
    error = bench.one("SELECT error FROM attempt")
    assert json.loads(error)["type"] == "interrupted"
    old = json.dumps({**json.loads(error), "kind": None})  # as it was recorded before classes were
    assert [kind_of_json(one) for one in (error, old)] == ["OutcomeUnknown"] * 2, "it may be paid"
    assert read_lost_calls(bench.connection, "job") == [], "no gateway cut it"
    assert recover(bench.connection, 300) == 0
    assert bench.one("SELECT total(maybe_paid) FROM request") == 2


def test_after_a_clock_that_went_back_recover_moves_no_call_into_the_past(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set(f"{ATTEMPT} (1, 'lab', 1, 500, NULL, NULL)")
    recover(bench.connection, 100)
    assert bench.one("SELECT sent_at FROM attempt") == 500


def test_where_there_is_no_ledger_an_empty_one_is_read_and_none_is_made(tmp_path: Path) -> None:
    with ledger.reading(tmp_path / "outputs") as connection:
        assert connection.execute("SELECT count(*) FROM request").fetchone()[0] == 0
    unknown = pytest.raises(BadInput, match="there is no job `lounge`; nothing has been submitted to")
    with unknown, ledger.reading(tmp_path / "outputs", "lounge"):
        pass
    assert not (tmp_path / "outputs").exists()


def test_a_ledger_that_is_read_cannot_be_changed_and_its_errors_name_it(bench: Bench) -> None:
    with pytest.raises(LedgerError, match=f"{bench.folder}.*cannot be written"), ledger.reading(bench.folder) as found:
        found.execute("DELETE FROM job")


def test_a_read_transaction_sees_one_state_of_the_ledger(bench: Bench) -> None:
    bench.submit(request(1))
    with ledger.reading(bench.folder) as connection:
        before = change_counter(connection)
        with read_transaction(connection):
            assert len(list(read_requests(connection, "job"))) == 1
            bench.submit(request(1), request(2))
            assert len(list(read_requests(connection, "job"))) == 1
        assert len(list(read_requests(connection, "job"))) == 2
        assert change_counter(connection) != before

"""One run at a time locks a folder; a file system without locks is named, and a dead owner holds nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
import time
import warnings
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from pipeline.errors import ConfigError, DiskFull, FolderBusy, LedgerError
from pipeline.ledger import database
from pipeline.ledger.database import open_ledger, translate_error
from pipeline.ledger.lock import exclusive, find_owner, run_lock
from pipeline.storage import RUN_LOCK_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

NETWORK = "seems to lie on a network drive or a file system without locks; choose an `output` on a local disk"


@pytest.fixture(autouse=True)
def _no_warning() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def refuse_locks(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Make every lock fail as a file system without locks does."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)


def dead_pid() -> int:
    """Return the id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def mark(bench: Bench, pid: int, host: str, marker: str | None = None) -> None:
    """Leave what a run without locks leaves when it is killed."""
    (bench.folder / RUN_LOCK_FILE).write_text(f"{pid}\n{host}\n" if marker is None else marker)
    record(bench, pid, host, 1.0)


def record(bench: Bench, pid: int, host: str, started_at: float) -> None:
    """Record an owner of the folder."""
    with database.transaction(bench.connection):
        bench.connection.execute("INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?)", (pid, host, started_at))


def hold(bench: Bench, sentences: list[str] | None = None) -> None:
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None, (sentences or []).append):
        owner = find_owner(bench.folder, bench.connection)
        assert owner is not None
        assert owner.who == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_run_that_starts_sweeps_what_killed_processes_left_half_written(bench: Bench) -> None:
    part = bench.folder / "lounge" / ".manifest.jsonl.0123abcd.part"
    part.parent.mkdir()
    part.write_bytes(b"half")
    os.utime(part, (1000, 1000))
    hold(bench)
    assert not part.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EIO, errno.ESTALE])
def test_a_lock_that_fails_names_the_network_drive(bench: Bench, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, code)
    with pytest.raises(ConfigError, match=f"cannot be locked: {os.strerror(code)}; the folder {NETWORK}"):
        hold(bench)
    with pytest.raises(ConfigError, match=NETWORK), exclusive(bench.folder / "submit.lock"):
        pass


def test_a_folder_that_may_not_be_written_is_no_network_drive(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, errno.EACCES)
    with pytest.raises(ConfigError, match=r"cannot be locked: Permission denied$"):
        hold(bench)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_run_works_and_says_so(bench: Bench, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_locks(monkeypatch, code)
    sentences: list[str] = ["first"]
    hold(bench, sentences)
    assert NETWORK in sentences[1]
    assert find_owner(bench.folder, bench.connection) is None
    with exclusive(bench.folder / "submit.lock"):
        pass
    hold(bench)


@pytest.mark.parametrize("marker", [None, "", "of another program\n"])
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_dead_owner_holds_nothing(
    bench: Bench, code: int, marker: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, code)
    mark(bench, dead_pid(), socket.gethostname(), marker)
    assert find_owner(bench.folder, bench.connection) is None
    hold(bench)


def test_without_locks_a_living_owner_and_one_of_another_machine_hold_the_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, errno.ENOSYS)
    for pid, host in ((os.getppid(), socket.gethostname()), (dead_pid(), "another")):
        mark(bench, pid, host)
        called: list[int] = []
        with (
            pytest.raises(FolderBusy, match=f"process {pid} on {host} is working on"),
            run_lock(bench.folder, bench.images, bench.connection, lambda: called.append(1), lambda _: None),  # noqa: B023 - called in this turn
        ):
            pass
        assert called == [1]
        owner = find_owner(bench.folder, bench.connection)
        assert owner is not None
        assert owner.who == f"process {pid} on {host}"


def test_a_real_lock_of_another_is_busy_even_if_the_recorded_owner_is_dead(bench: Bench) -> None:
    mark(bench, dead_pid(), socket.gethostname())
    with FileLock(bench.folder / RUN_LOCK_FILE), pytest.raises(FolderBusy):
        hold(bench)


def test_a_living_owner_holds_the_folder_though_its_lock_file_was_deleted(bench: Bench) -> None:
    record(bench, os.getppid(), socket.gethostname(), time.time())
    owner = find_owner(bench.folder, bench.connection)
    assert owner is not None
    assert owner.who == f"process {os.getppid()} on {socket.gethostname()}"
    called: list[int] = []
    for _ in range(2):
        with (
            pytest.raises(FolderBusy, match=f"process {os.getppid()} on .* is working on"),
            run_lock(bench.folder, bench.images, bench.connection, lambda: called.append(1)),
        ):
            pass
    assert called == [1, 1]


def test_a_recorded_owner_that_is_none_any_more_holds_nothing(bench: Bench) -> None:
    long_ago, host = time.time() - 10**8, socket.gethostname()
    for pid, where, started_at in (
        (os.getppid(), host, long_ago),  # another process has its id now
        (os.getppid(), "another", time.time()),  # not to be asked: its lock is free
        (os.getpid(), host, time.time()),  # this process, which has let go
        (dead_pid(), host, time.time()),
    ):
        record(bench, pid, where, started_at)
        hold(bench)
        assert find_owner(bench.folder, bench.connection) is None


def test_an_owner_leaves_no_record_of_itself_and_none_of_another_is_removed(bench: Bench) -> None:
    hold(bench)
    assert bench.ask("SELECT pid FROM holder") == []
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        record(bench, 1, "another", 1.0)
    assert bench.ask("SELECT host FROM holder") == [("another",)]


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("from SQLite")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    "code",
    [sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_RDLOCK, sqlite3.SQLITE_IOERR_SHMLOCK],
)
def test_locks_that_sqlite_does_not_get_name_the_network_drive(code: int) -> None:
    error = translate_error(sqlite_error(code), "ledger")
    assert isinstance(error, LedgerError)
    assert str(error) == f"the ledger ledger cannot be locked: from SQLite; the folder {NETWORK}"


def test_a_disk_that_fails_is_not_damage() -> None:
    error = translate_error(sqlite_error(sqlite3.SQLITE_IOERR_READ), "ledger")
    assert isinstance(error, DiskFull)
    assert "for a network drive, choose another `output`" in str(error)


def test_a_ledger_that_nobody_holds_and_nothing_can_lock_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(tmp_path).close()
    connect = sqlite3.connect

    class Locked(sqlite3.Connection):
        def execute(self, sql: str, *arguments: object) -> sqlite3.Cursor:
            if sql.startswith(("PRAGMA synchronous", "BEGIN")):
                raise sqlite_error(sqlite3.SQLITE_BUSY)
            return super().execute(sql, *arguments)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, factory=Locked, **more))
    with pytest.raises(LedgerError, match=NETWORK):
        open_ledger(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.sqlite3"]


def test_a_ledger_that_another_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_ledger(tmp_path).close()
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / database.FILE_NAME, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="is locked by another program"):
        open_ledger(tmp_path)
    other.close()

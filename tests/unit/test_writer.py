"""Many workers' writes share transactions; each is on disk when its await returns, or its waiter hears why not."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import DiskFull, LedgerError
from pipeline.files import make_folder
from pipeline.ledger import writer as module
from pipeline.ledger.database import FILE_NAME, open_for_reading, open_ledger
from pipeline.ledger.writer import Writer
from pipeline.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.workbench import Bench


def _note(connection: sqlite3.Connection, what: str) -> str:
    connection.execute("INSERT INTO note (what) VALUES (?)", (what,))
    return what


def _fill(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO note (what) VALUES (zeroblob(5000000))")


@contextlib.contextmanager
def _held_up(writer: Writer) -> Iterator[None]:
    """Keep the writer's thread busy, so that what is handed in meanwhile gathers."""
    go = threading.Event()
    writer.post(lambda _connection: go.wait())
    try:
        yield
    finally:
        go.set()


@pytest.fixture
def notes(bench: Bench) -> Bench:
    bench.set("CREATE TABLE note (pk INTEGER PRIMARY KEY, what TEXT UNIQUE NOT NULL)")
    return bench


async def test_what_an_await_has_given_another_connection_sees(notes: Bench) -> None:
    reader = open_for_reading(notes.folder)
    assert reader is not None
    with contextlib.closing(reader):
        async with Writer(notes.connection) as writer:
            assert await writer.do(_note, "one") == "one"
            assert reader.execute("SELECT what FROM note").fetchone()[0] == "one"


async def test_what_gathers_while_a_transaction_is_under_way_shares_the_next_one_in_order(notes: Bench) -> None:
    async with Writer(notes.connection) as writer:
        with _held_up(writer):
            writes = [writer.do(_note, str(number)) for number in range(200)]
        assert await asyncio.gather(*writes) == [str(number) for number in range(200)]
        assert writer.transactions <= 2
    assert [row[0] for row in notes.ask("SELECT what FROM note ORDER BY pk")] == [str(number) for number in range(200)]


async def test_one_transaction_takes_so_many_writes_and_no_more(notes: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_ONE", 10)
    async with Writer(notes.connection) as writer:
        with _held_up(writer):
            writes = [writer.do(_note, str(number)) for number in range(95)]
        await asyncio.gather(*writes)
        assert 10 <= writer.transactions <= 11


async def test_a_statement_that_raises_is_undone_alone(notes: Bench) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        _note(connection, "half")
        raise KeyError("mine")

    async with Writer(notes.connection) as writer:
        with _held_up(writer):
            before, failing, twice, after = (
                writer.do(_note, "before"),
                writer.do(fail),
                writer.do(_note, "before"),
                writer.do(_note, "after"),
            )
        with pytest.raises(KeyError, match="mine"):
            await failing
        with pytest.raises(sqlite3.IntegrityError):
            await twice
        assert (await before, await after) == ("before", "after")
    assert notes.ask("SELECT what FROM note ORDER BY pk") == [("before",), ("after",)]


async def test_a_folder_is_on_disk_before_the_rows_that_name_its_files_and_once_for_all_of_them(
    notes: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_at_sync: list[int] = []

    def sync(images: LocalStore, job: str) -> None:
        rows_at_sync.append(reader.execute("SELECT count(*) FROM note").fetchone()[0])
        flush_folder(images, job)

    flush_folder = LocalStore.flush_folder
    monkeypatch.setattr(LocalStore, "flush_folder", sync)
    images = notes.images
    make_folder(images.job_folder("job"))
    with contextlib.closing(sqlite3.connect(notes.folder / FILE_NAME, check_same_thread=False)) as reader:
        async with Writer(notes.connection) as writer:
            with _held_up(writer):
                writes = []
                for number in range(50):
                    writer.flush_folder(images, "job")
                    writes.append(writer.do(_note, str(number)))
            await asyncio.gather(*writes)
            await writer.do(_note, "without a file")
            assert writer.transactions <= 3
    assert rows_at_sync == [0]


async def test_where_a_folder_cannot_be_brought_to_disk_its_rows_are_not_written_until_it_can(notes: Bench) -> None:
    images = notes.images
    async with Writer(notes.connection) as writer:
        for _ in range(2):
            writer.flush_folder(images, "job")
            with pytest.raises(DiskFull, match="cannot be written"):
                await writer.do(_note, "one")
        make_folder(images.job_folder("job"))
        assert await writer.do(_note, "two") == "two"
    assert notes.ask("SELECT what FROM note") == [("two",)]


async def test_a_file_that_comes_while_its_folder_is_brought_to_disk_has_it_done_once_more(
    notes: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[str] = []

    async with Writer(notes.connection) as writer:

        def sync(images: LocalStore, job: str) -> None:
            syncs.append(job)
            if len(syncs) == 1:
                writer.flush_folder(images, job)  # its name came too late for what is under way

        monkeypatch.setattr(LocalStore, "flush_folder", sync)
        writer.flush_folder(notes.images, "job")
        await writer.do(_note, "one")
    assert len(syncs) == 2


async def test_a_cancelled_waiter_does_not_undo_its_write(notes: Bench) -> None:
    async with Writer(notes.connection) as writer:
        with _held_up(writer):
            waiter = asyncio.create_task(_await(writer.do(_note, "one")))
            await asyncio.sleep(0)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
    assert notes.one("SELECT what FROM note") == "one"


async def _outcome(write: asyncio.Future[Any]) -> object:
    try:
        return await write
    except LedgerError as error:
        return error


async def _await(future: asyncio.Future[str]) -> str:
    return await future


async def test_what_was_handed_in_is_on_disk_when_the_block_ends_even_where_it_is_cancelled(notes: Bench) -> None:
    go = threading.Event()

    async def work() -> None:
        async with Writer(notes.connection) as writer:
            writer.post(lambda _connection: go.wait())
            for number in range(50):
                writer.post(_note, str(number))

    task = asyncio.create_task(work())
    await asyncio.sleep(0.02)  # it waits for its thread now
    task.cancel()
    threading.Timer(0.1, go.set).start()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert notes.one("SELECT count(*) FROM note") == 50
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger"]


async def test_on_a_full_disk_every_waiter_hears_it_and_with_room_again_the_next_write_works(notes: Bench) -> None:
    pages = notes.one("PRAGMA page_count")
    notes.set(f"PRAGMA max_page_count = {pages + 2}")
    async with Writer(notes.connection) as writer:
        with pytest.raises(DiskFull, match="free some space"):
            await writer.do(_fill)
        with _held_up(writer):
            writes = [writer.do(_note, f"{number} " + "x" * 3000) for number in range(20)]
        results = await asyncio.gather(*writes, return_exceptions=True)
        kept = {result for result in results if isinstance(result, str)}
        assert all(isinstance(result, str | DiskFull) for result in results)
        assert len(kept) < 20
        await writer.do(lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall())
        assert await writer.do(_note, "there is room") == "there is room"
    assert {row[0] for row in notes.ask("SELECT what FROM note")} == kept | {"there is room"}


async def test_when_sqlite_undoes_the_whole_transaction_nobody_believes_in_his_write(notes: Bench) -> None:
    def undone(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite itself may do on a full disk
        raise sqlite3.OperationalError("database or disk is full")

    async with Writer(notes.connection) as writer:
        with _held_up(writer):
            writes: list[asyncio.Future[Any]] = [writer.do(_note, "one"), writer.do(undone), writer.do(_note, "two")]
        results = [await _outcome(write) for write in writes]
        assert [type(result) for result in results] == [LedgerError] * 3
        assert await writer.do(_note, "three") == "three"
    assert notes.ask("SELECT what FROM note") == [("three",)]


async def test_another_process_that_writes_for_long_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ledger.database._BUSY_SECONDS", 0.01)
    with contextlib.closing(open_ledger(tmp_path)) as mine, contextlib.closing(open_ledger(tmp_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with Writer(mine) as writer:
            write = writer.do(lambda connection: connection.execute("DELETE FROM holder").rowcount)
            await asyncio.sleep(0.03)  # three times the connection's own patience
            assert not write.done()
            other.execute("COMMIT")
            assert await write == 0


async def test_another_process_that_never_ends_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ledger.database._BUSY_SECONDS", 0.001)
    monkeypatch.setattr(module, "PATIENCE", 2)
    with contextlib.closing(open_ledger(tmp_path)) as mine, contextlib.closing(open_ledger(tmp_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with Writer(mine) as writer:
            with pytest.raises(LedgerError, match="locked by another program"):
                await writer.do(lambda connection: connection.execute("DELETE FROM holder").rowcount)


async def test_nobody_hears_of_a_post_that_fails(notes: Bench) -> None:
    async with Writer(notes.connection) as writer:
        writer.post(_note, "one")
        writer.post(_note, "one")
        assert await writer.do(_note, "two") == "two"

"""A job is renamed or forgotten as a whole, also if the process is killed halfway."""

from __future__ import annotations

import errno
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import BadInput, DiskFull, KeyRefused
from pipeline.ledger import job_changes
from pipeline.ledger.attempts import paused_until
from pipeline.ledger.batches import request_cancel
from pipeline.ledger.job_changes import finish_folder_changes, forget_job, rename_job
from pipeline.ledger.queue import Block
from pipeline.ledger.stops import read_stops, record_stop
from tests.support.workbench import request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

NOTES = "SELECT count(*) FROM folder_change"


def _made(bench: Bench, name: str, *numbers: int, file: Path | None = None) -> None:
    """Make a job whose requests have an image each, and a stop."""
    bench.submit(*map(request, numbers), name=name, file=file)
    images = bench.folder / name / "images"
    images.mkdir(parents=True)
    for pk, job in bench.ask("SELECT r.pk, j.pk FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?", name):
        bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (?, 'lab', 1, ?)", pk, time.time() - 10)
        bench.set(
            "INSERT INTO image (request, attempt, job, number, state, file, sha256, bytes)"
            " VALUES (?1, (SELECT max(pk) FROM attempt), ?2, 1, 'stored', ?3, ?4, 5)",
            *(pk, job, f"images/{pk}.png", "0" * 64),
        )
        bench.set("INSERT INTO quarantine (request, file, sha256, bytes, reason) VALUES (?, 'q', 'x', 1, 'y')", pk)
        (images / f"{pk}.png").write_bytes(b"image")


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.png"))


def test_rows_and_folder_go_along_and_no_file_claims_the_new_name(bench: Bench, tmp_path: Path) -> None:
    _made(bench, "four", 1, 2, file=tmp_path / "four.yaml")
    rename_job(bench.connection, "four", "renamed", bench.stores)
    assert bench.ask("SELECT name, file FROM job") == [("renamed", None)]
    assert _files(bench.folder / "renamed") == ["1.png", "2.png"]
    assert not (bench.folder / "four").exists()
    assert bench.one(NOTES) == 0


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("a/b", "cannot be a job's name"),
        ("ledger", "cannot be a job's name"),
        ("OTHER", "there is a job `other` already"),
        ("taken", "taken exists already"),
    ],
)
def test_a_name_that_is_not_free_or_no_name_is_refused_and_nothing_changes(bench: Bench, new: str, said: str) -> None:
    _made(bench, "four", 1)
    bench.submit(request(2), name="other")
    (bench.folder / "taken").mkdir()
    with pytest.raises(BadInput, match=said):
        rename_job(bench.connection, "four", new, bench.stores)
    assert bench.ask("SELECT name FROM job") == [("four",), ("other",)]
    assert _files(bench.folder / "four") == ["1.png"]


def test_the_name_of_a_submit_that_died_is_free(bench: Bench) -> None:
    _made(bench, "four", 1)
    bench.submit(request(2), name="dead")
    bench.set("UPDATE job SET revision = 0 WHERE name = 'dead'")
    rename_job(bench.connection, "four", "dead", bench.stores)
    assert bench.ask("SELECT name FROM job") == [("dead",)]


def test_only_the_spelling_may_change(bench: Bench) -> None:
    _made(bench, "Four", 1)
    rename_job(bench.connection, "Four", "four", bench.stores)
    assert _files(bench.folder / "four") == ["1.png"]


def _change(bench: Bench, change: str) -> None:
    if change == "rename":
        rename_job(bench.connection, "four", "renamed", bench.stores)
    else:
        forget_job(bench.connection, "four", bench.stores, {}, files=True)


@pytest.mark.parametrize("change", ["rename", "forget"])
def test_a_kill_between_rows_and_folder_is_finished_by_the_next_process(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    _made(bench, "four", 1, 2)
    with monkeypatch.context() as killed:
        killed.setattr(job_changes, "finish_folder_changes", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _change(bench, change)
    assert _files(bench.folder / "four") == ["1.png", "2.png"]
    if change == "rename":  # half of the folder is there, as after a kill on a disk that cannot move it at once
        (bench.folder / "renamed" / "images").mkdir(parents=True)
        (bench.folder / "four" / "images" / "1.png").rename(bench.folder / "renamed" / "images" / "1.png")
    for _ in range(2):
        finish_folder_changes(bench.connection, bench.stores)
    assert not (bench.folder / "four").exists()
    assert _files(bench.folder / "renamed") == (["1.png", "2.png"] if change == "rename" else [])


def test_a_forgotten_job_leaves_no_row_and_its_files_stay(bench: Bench) -> None:
    _made(bench, "one", 1, 2)
    _made(bench, "two", 3)
    record_stop(bench.connection, Block(job_pk=1), KeyRefused("of one"))
    record_stop(bench.connection, Block(job_pk=2), KeyRefused("of two"))
    forget_job(bench.connection, "one", bench.stores, {}, files=False)
    for table in ("job", "request", "attempt", "image", "quarantine", "stop"):
        assert bench.one(f"SELECT count(*) FROM {table}") == 1, table
    assert bench.one("PRAGMA foreign_keys") == 1
    assert bench.ask("PRAGMA foreign_key_check") == []
    assert _files(bench.folder / "one") == ["1.png", "2.png"]


def test_primary_keys_that_are_used_again_overcome_a_stop_all_the_same(bench: Bench) -> None:
    _made(bench, "two", 3)
    _made(bench, "one", 1, 2)
    bench.submit(request(3), request(4), name="two")
    record_stop(bench.connection, Block(job_pk=1), KeyRefused("of two"))
    forget_job(bench.connection, "one", bench.stores, {}, files=False)
    assert len(read_stops(bench.connection)) == 1
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES (1, 'lab', 1, 1, 2, 'answered')"
    )
    assert read_stops(bench.connection) == []


def test_the_provider_of_forgotten_calls_pauses_until_they_are_out_of_its_window(bench: Bench) -> None:
    _made(bench, "one", 1)
    forget_job(bench.connection, "one", bench.stores, {"lab": 60.3, "other": 60.3}, files=False)
    assert paused_until(bench.connection, "lab") == pytest.approx(time.time() + 50.3, abs=3)
    assert paused_until(bench.connection, "other") == 0
    _made(bench, "two", 1)
    forget_job(bench.connection, "two", bench.stores, {"lab": 5}, files=False)
    assert paused_until(bench.connection, "lab") < time.time() + 51, "calls out of the window are no reason"


def _refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_folder_that_cannot_be_moved_is_moved_once_it_can_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _made(bench, "four", 1)
    with monkeypatch.context() as held:
        held.setattr(os, "rename", _refuse)
        with pytest.raises(DiskFull, match="four cannot be written: Permission denied"):
            rename_job(bench.connection, "four", "renamed", bench.stores)
        with pytest.raises(DiskFull, match="four cannot be written: Permission denied"):
            finish_folder_changes(bench.connection, bench.stores)
        assert bench.one(NOTES) == 1
    finish_folder_changes(bench.connection, bench.stores)
    assert (_files(bench.folder / "renamed"), bench.one(NOTES)) == (["1.png"], 0)


def test_a_folder_that_cannot_be_deleted_is_told_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    _made(bench, "four", 1)
    monkeypatch.setattr(shutil, "rmtree", _refuse)
    with pytest.raises(DiskFull, match="four cannot be written"):
        forget_job(bench.connection, "four", bench.stores, {}, files=True)
    finish_folder_changes(bench.connection, bench.stores)
    assert (bench.one("SELECT count(*) FROM job"), bench.one(NOTES)) == (0, 0)


def test_a_job_without_a_folder_is_forgotten_with_its_files(bench: Bench) -> None:
    bench.submit(request(1), name="four")
    forget_job(bench.connection, "four", bench.stores, {}, files=True)
    assert (bench.one("SELECT count(*) FROM job"), bench.one(NOTES)) == (0, 0)


def test_a_job_with_batches_that_are_out_is_not_forgotten(bench: Bench) -> None:
    _made(bench, "four", 1, 2)
    bench.send_batch(1)
    with pytest.raises(BadInput, match=r"a batch is out for job `four`, and may be paid; .*: pipeline cancel four"):
        forget_job(bench.connection, "four", bench.stores, {}, files=True)
    bench.send_batch(2)
    with pytest.raises(BadInput, match="2 batches are out"):
        forget_job(bench.connection, "four", bench.stores, {}, files=True)
    assert bench.one("SELECT count(*) FROM batch") == 2
    assert _files(bench.folder / "four") == ["1.png", "2.png"]


def test_ended_batches_are_forgotten_with_their_job_and_no_others(bench: Bench) -> None:
    _made(bench, "four", 1, 2)
    _made(bench, "five", 1)
    bench.send_batch(1)
    bench.send_batch(3, id="batch_2")
    bench.set("UPDATE batch SET ended_at = 1 WHERE pk = 1")
    bench.set("UPDATE attempt SET outcome = 'answered', ended_at = 1, sent_at = ? WHERE batch = 1", time.time())
    bench.set("UPDATE attempt SET sent_at = sent_at - 3600 WHERE batch IS NULL")
    forget_job(bench.connection, "four", bench.stores, {"lab": 60.0}, files=False)
    assert bench.ask("SELECT id FROM batch") == [("batch_2",)]
    assert bench.ask("SELECT DISTINCT request FROM attempt") == [(3,)]
    assert bench.ask("PRAGMA foreign_key_check") == []
    assert paused_until(bench.connection, "lab") == 0.0, "no line of a batch counts in the window of the limit"


def test_batches_go_along_with_a_renamed_job(bench: Bench) -> None:
    _made(bench, "four", 1, 2)
    bench.send_batch(1)
    rename_job(bench.connection, "four", "renamed", bench.stores)
    assert bench.ask("SELECT j.name FROM batch b JOIN job j ON j.pk = b.job") == [("renamed",)]


def test_a_wish_to_cancel_is_recorded_once_and_only_for_what_is_out(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    assert request_cancel(bench.connection, "job", 5.0) == 0
    assert bench.one("SELECT cancel_since FROM job") is None
    bench.send_batch(1)
    bench.send_batch(2)
    assert [request_cancel(bench.connection, "JOB", now) for now in (6.0, 7.0)] == [2, 2]
    assert bench.one("SELECT cancel_since FROM job") == 6.0

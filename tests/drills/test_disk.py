"""A disk that is full or read-only, at each kind of write: the run stops with a sentence, and then goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.audit import audit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.stage import Stage


def _inputs(stage: Stage) -> Path:
    Image.new("RGB", (256, 256), "#3a7ca5").save(stage.folder / "lounge.png")
    return stage.job("many", [{"operation": "variation", "image": "lounge.png"}, {"prompt": "a cat"}])


def test_no_room_for_an_input_picture_stops_before_anything_is_queued_or_called(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = _inputs(stage)
    for command in ("submit", "run"):
        ended = stage.run(command, job, exit_code=3, sabotage="full:outputs/many/inputs/:1")
        assert "free some space, then run `pipeline run` to continue" in ended.stderr
    assert not server.books()
    assert not list(stage.output.glob("*/inputs/*"))
    stage.run("run", job)
    assert audit(stage, server.books()).charged == 2


@pytest.mark.parametrize(("answer", "paid_again"), [("url", 0), ("b64_json", 4)])
def test_no_room_for_a_picture_stops_everything_and_costs_at_most_the_calls_in_flight(
    stage: Stage, answer: str, paid_again: int
) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.05, 0.1])
    stage.provider("lab", server, concurrency=4)
    ended = stage.run(
        *("run", stage.prompts("many", 30, response_format=answer)), exit_code=3, sabotage="full:many/images/:8"
    )
    assert "no room left in" in ended.stderr
    assert audit(stage, server.books()).pictures >= 7
    assert stage.standing("many")["counts"]["failed"] == 0
    stage.run("run")
    found = audit(stage, server.books())
    assert (found.pictures, found.lost) == (30, 0)
    assert found.paid_again <= paid_again


def test_no_room_for_the_manifest_is_said_and_the_next_run_writes_it(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.prompts("many", 5)
    ended = stage.run("run", job, exit_code=3, sabotage="full:/.manifest.jsonl:1")
    assert "free some space" in ended.stderr
    assert "Traceback" not in ended.stderr
    stage.run("run", job)
    assert audit(stage, server.books()).charged == 5


def test_no_room_for_the_log_neither_stops_a_run_nor_fills_the_terminal(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    ended = stage.run("run", stage.prompts("many", 5), sabotage="full:outputs/run.log:1")
    assert audit(stage, server.books()).charged == 5
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(os.name == "nt", reason="no such limit on Windows")
@pytest.mark.parametrize("size", [pytest.param(kilobytes * 1024, id=f"{kilobytes}K") for kilobytes in (30, 150)])
def test_a_ledger_that_cannot_grow_stops_the_run_with_a_sentence(stage: Stage, size: int) -> None:
    """The smallest is too little even to begin with."""
    server = stage.serve(rate_limit=None, latency_seconds=[0.02, 0.05])
    stage.provider("lab", server, concurrency=4)
    job = stage.prompts("many", 40)
    ended = stage.run("run", job, exit_code=3, sabotage=f"sizes:{size}")
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    stage.run("run", job)
    found = audit(stage, server.books())
    assert found.pictures == 40
    assert found.paid_again <= 4


@pytest.mark.skipif(os.name == "nt", reason="no such limit on Windows")
def test_a_full_disk_can_be_read_and_what_has_to_write_says_so(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 3))
    assert not list(stage.output.glob("ledger.sqlite3-*")), "the files beside the ledger have to be made"
    status = stage.run("status", "--json").stdout
    assert stage.run("status", "--json", sabotage="sizes:1000").stdout == status
    assert "3 of 3 images are complete" in stage.run("verify", sabotage="sizes:1000").stderr
    for command in ("report", "run"):
        job = ["many"] if command == "report" else []
        ended = stage.run(command, *job, exit_code=3, sabotage="sizes:1000")
        assert "cannot be written: " in ended.stderr
        assert "then run `pipeline run`" in ended.stderr
    assert stage.run("status", "--json").stdout == status


@contextlib.contextmanager
def _mounted(folder: Path, size: str) -> Iterator[None]:
    """Put a small file system of its own under a folder; skip where we may not."""
    mount = shutil.which("mount")
    if mount is None or sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    folder.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)  # noqa: S607


@pytest.mark.parametrize(
    "kilobytes",
    [
        *(pytest.param(number, id=f"{number}K") for number in (300,)),
        *(pytest.param(number, id=f"long {number}K", marks=pytest.mark.long) for number in range(64, 1200, 24)),
    ],
)
def test_a_file_system_that_fills_up_anywhere_loses_nothing(stage: Stage, kilobytes: int) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.02, 0.05])
    stage.provider("lab", server, concurrency=4)
    job = stage.prompts("many", 60, n=2)
    with _mounted(stage.output, f"{kilobytes}k"):
        ended = stage.run("run", job, exit_code=3)
        assert "free some space" in ended.stderr
        assert "Traceback" not in ended.stderr
        _remount(stage.output, "size=64m")
        stage.run("run", job)
        found = audit(stage, server.books())
        assert (found.pictures, found.lost) == (120, 0)
        assert found.paid_again <= 4 * 2


def test_a_read_only_folder_is_exit_2_before_anybody_is_called(stage: Stage) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.prompts("many", 5)
    with _mounted(stage.output, "16m"):
        _remount(stage.output, "ro")
        for command in ("submit", "run"):
            assert "cannot be" in stage.run(command, job, exit_code=2).stderr
        _remount(stage.output, "rw")
        stage.run("submit", job)
        _remount(stage.output, "ro")
        for arguments in (["run"], ["run", job], ["submit", job], ["resume"], ["cancel", "many"], ["status"]):
            ended = stage.run(*arguments, exit_code=2)
            assert "Traceback" not in ended.stderr
            assert "cannot be" in ended.stderr
        assert not server.books()
        _remount(stage.output, "rw")
        stage.run("run")
        assert audit(stage, server.books()).charged == 5


def test_the_doctor_finds_a_disk_that_is_full_without_inodes_or_read_only(stage: Stage) -> None:
    stage.provider("lab", stage.serve(), rate_limit={"images": 50})
    defaults = {"model": "gpt-image-2", "size": "1024x640", "quality": "low"}
    job = stage.job("many", [{"prompt": "a cat", "n": 2}], defaults=defaults)
    with _mounted(stage.output, "1m,nr_inodes=30"):
        full = stage.run("doctor", job, exit_code=2).stdout
        assert "has 1.0 MB free, and about 3.6 MB will come; to fix it: free some space" in full
        assert "inodes: problem: " in full
        _remount(stage.output, "size=64m,nr_inodes=4000")
        assert ": problem: " not in stage.run("doctor", job).stdout
        _remount(stage.output, "ro")
        locked = stage.run("doctor", job, exit_code=2).stdout
        assert "cannot be written: Read-only file system; to fix it: change its permissions" in locked
        assert not list(stage.output.iterdir()), "a probe leaves nothing"

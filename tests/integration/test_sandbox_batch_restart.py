"""Batches of the sandbox go on after a restart and after kill -9, and nothing of them is done or booked twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pipeline.sandbox.server import RunningSandbox, serve
from pipeline.sandbox.settings import SandboxSettings
from tests.support.batch_client import line, lines, patient, reaching, results, retrieve, send, upload
from tests.support.sandbox_client import Caller, Time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SLOW: dict[str, Any] = {"seconds": [1e4, 1e4], "finalizing_seconds": 1e4}


async def test_a_batch_goes_on_as_if_time_had_not_stopped(tmp_path: Path) -> None:
    clock = Time()
    began = int(clock.now)
    async with patient(tmp_path, clock, **SLOW) as caller:
        batch = await send(caller, lines(6))
    clock.now += 1.5e4
    async with patient(tmp_path, clock, seed=1, **SLOW) as caller:  # of another seed, and goes on in the same order
        batch = await retrieve(caller, batch["id"])
        while batch["request_counts"]["completed"] < 3:
            batch = await retrieve(caller, batch["id"])
        assert (batch["status"], batch["in_progress_at"]) == ("in_progress", began + 10000)
    clock.now += 1e6
    async with patient(tmp_path, clock, seed=2, finalizing_seconds=1e4) as caller:
        assert (await reaching(caller, batch["id"], "finalizing"))["status"] == "finalizing"
        clock.now += 1e4
        batch = await reaching(caller, batch["id"])
        assert batch["status"] == "completed", "its time of work ended before it expired"
        assert len(await results(caller, batch["output_file_id"])) == 6
        entries = [entry["custom_id"] for entry in caller.entries("batch_line")]
        assert sorted(entries) == [one["custom_id"] for one in lines(6)]
        assert not list((tmp_path / "spool" / "batches").glob("*.part")), "nothing is left behind"
        assert not list((tmp_path / "spool" / "batches").glob("*.input"))


async def test_a_batch_expires_while_no_sandbox_is_there(tmp_path: Path) -> None:
    clock = Time()
    async with patient(tmp_path, clock, **SLOW, expires_seconds=1.5e4) as caller:
        batch = await send(caller, lines(6))
    clock.now += 1e6
    async with patient(tmp_path, clock, **SLOW, expires_seconds=1.5e4) as caller:
        batch = await reaching(caller, batch["id"])
        assert batch["status"] == "expired"
        assert len(await results(caller, batch["output_file_id"])) == 3
        assert len(await results(caller, batch["error_file_id"])) == 3


async def test_a_wish_to_cancel_is_kept(tmp_path: Path) -> None:
    clock = Time()
    async with patient(tmp_path, clock, **SLOW) as caller:
        batch = await send(caller, lines(4))
        clock.now += 1.2e4
        await reaching(caller, batch["id"], "in_progress")
        await caller.call("POST", f"/batches/{batch['id']}/cancel")
    async with patient(tmp_path, clock, **SLOW) as caller:
        assert (await retrieve(caller, batch["id"]))["status"] == "cancelling"
        clock.now += 1e4
        batch = await reaching(caller, batch["id"])
        assert batch["status"] == "cancelled"
        assert len(await results(caller, batch["error_file_id"])) >= 3


async def test_ended_batches_and_the_count_of_batches_are_kept(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        old = await reaching(caller, (await send(caller, lines(1)))["id"])
    async with patient(tmp_path) as caller:
        assert await retrieve(caller, old["id"]) == old
        new = await send(caller, lines(1))
        assert [one["id"] for one in (await caller.call("GET", "/batches")).json["data"]] == [new["id"], old["id"]]


def _overwrite(folder: Path, record: str) -> None:
    for path in folder.rglob("*.json"):
        path.write_text(record)


@pytest.mark.parametrize("record", ["{}", "[1]", '{"id": "batch_1", "seed": 4}', "half of", '{"plan": 7}'])
async def test_what_another_version_has_kept_is_forgotten(tmp_path: Path, record: str) -> None:
    async with patient(tmp_path) as caller:
        old = await reaching(caller, (await send(caller, lines(1)))["id"])
    _overwrite(tmp_path, record)
    async with patient(tmp_path) as caller:
        assert (await caller.call("GET", f"/batches/{old['id']}")).status == 404
        assert (await caller.call("GET", f"/files/{old['output_file_id']}")).status == 404
        assert (await reaching(caller, (await send(caller, lines(1)))["id"]))["status"] == "completed"


@pytest.mark.parametrize("status", ["completed", "expired"])
async def test_killed_before_any_change_of_its_spool_nothing_is_lost_or_booked_twice(
    tmp_path: Path, status: str
) -> None:
    """Copy the spool before each file is opened, renamed or removed, and start another sandbox on each copy."""
    asked, faults = [*lines(3), line("bad", n=11)], {"expired": int(status == "expired")}
    (tmp_path / "first").mkdir()
    with _copies(tmp_path / "first", tmp_path / "copies") as copies:
        async with patient(tmp_path / "first", faults=faults) as caller:
            batch = await send(caller, asked)
            copies.start()
            counts = (await reaching(caller, batch["id"]))["request_counts"]
    assert len(copies.made) > 20
    assert counts["completed"] > 0
    assert (counts["completed"] + counts["failed"] < 4) == (status == "expired")
    for copy in copies.made:
        async with patient(copy, faults=faults) as caller:
            end = await reaching(caller, batch["id"])
            good = await results(caller, end["output_file_id"])
            bad = await results(caller, end["error_file_id"])
            booked = [entry["custom_id"] for entry in caller.entries("batch_line")]
        assert (end["status"], end["request_counts"]) == (status, counts)
        assert sorted(one["custom_id"] for one in good + bad) == sorted(one["custom_id"] for one in asked)
        assert sorted(booked) == sorted(one["custom_id"] for one in good + bad if one["response"])


class _Copies:
    """Copies of a folder, one made before each change; an audit hook sees the changes, and stays for good."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self.made: list[Path] = []
        self._folder, self._copies, self._watching = folder, copies, False

    def start(self) -> None:
        self._watching = True
        sys.addaudithook(self._see)

    def stop(self) -> None:
        self._watching = False

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._watching or not str(args[:1]).count(str(self._folder / "spool")):
            return
        if event in {"os.rename", "os.remove", "os.truncate"} or (event == "open" and set(str(args[1])) & set("wa")):
            self._watching = False
            copy = self._copies / str(len(self.made))
            shutil.copytree(self._folder, copy, ignore=shutil.ignore_patterns("lock"))
            self.made.append(copy)
            self._watching = True


@contextlib.contextmanager
def _copies(folder: Path, copies: Path) -> Iterator[_Copies]:
    made = _Copies(folder, copies)
    try:
        yield made
    finally:
        made.stop()


async def test_a_process_that_is_killed_goes_on(tmp_path: Path) -> None:
    """Kill the process of a sandbox while a batch runs, and start it on the same spool."""
    asked, batch_id, rng = lines(20), "", random.Random(18)
    for least in (1, 8):
        async with _process(tmp_path) as (caller, pid):
            if not batch_id:
                batch_id = (await send(caller, asked))["id"]
            while (await retrieve(caller, batch_id))["request_counts"]["completed"] < least:  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.002)
            await asyncio.sleep(rng.uniform(0, 0.02))
            os.kill(pid, signal.SIGKILL)
    async with _process(tmp_path) as (caller, _):
        batch = await reaching(caller, batch_id)
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
        got = await results(caller, batch["output_file_id"])
    assert Counter(one["custom_id"] for one in got) == Counter(one["custom_id"] for one in asked)
    entries = [json.loads(text) for text in (tmp_path / "books.jsonl").read_text().splitlines()]
    booked = Counter(entry["custom_id"] for entry in entries if entry["type"] == "batch_line")
    assert booked == Counter(one["custom_id"] for one in asked)


@contextlib.asynccontextmanager
async def _process(folder: Path) -> AsyncIterator[tuple[Caller, int]]:
    """Start a sandbox as a process of its own, and yield a caller of it and the process's id."""
    settings = {"rate_limit": None, "batch": {"seconds": [0.0, 0.3], "finalizing_seconds": 0.05}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline.sandbox", "--with-stdin", "--settings", json.dumps(settings)),
        *("--books", str(folder / "books.jsonl"), "--spool", str(folder / "spool")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    said = json.loads(await process.stdout.readline())
    async with aiohttp.ClientSession() as session:
        running = RunningSandbox(said["base_url"], said["port"])
        yield Caller(running, session, Time(), folder / "books.jsonl"), said["pid"]
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


async def test_port_0_has_no_files_of_an_earlier_sandbox_and_another_port_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    async def count(port: int, *, uploads: int) -> int:
        async with serve(SandboxSettings(), port=port) as running, aiohttp.ClientSession() as session:
            caller = Caller(running, session, Time(), tmp_path / "books.jsonl")
            for _ in range(uploads):
                await upload(caller, b"x")
            ports.append(running.port)
            return len((await caller.call("GET", "/files")).json["data"])

    ports: list[int] = []
    assert await count(0, uploads=1) == 1
    assert await count(0, uploads=0) == 0
    assert await count(ports[0], uploads=1) == 1
    assert await count(ports[0], uploads=1) == 2
    assert await count(0, uploads=0) == 0

"""Input images and input files at the service: uploaded once, found again, and deleted when nothing needs them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import BatchRefused, BudgetSpent
from tests.support.batch_server import (
    batch_lab,
    batch_service,
    edited,
    fates,
    outcomes,
    painted,
    queue,
    refusal,
)

if TYPE_CHECKING:
    from aiohttp import web

    from tests.support.workbench import Bench


async def test_edits_name_files_that_are_uploaded_once_for_all_batches_jobs_and_runs(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, most_requests=2)
        queue(bench, provider, *(edited(bench, number, 16, 17, mask=18) for number in range(4)))
        queue(bench, provider, edited(bench, 9, 16, 19, job="second"), name="second")
        server.course = ("in_progress",)
        await bench.run(provider, waits=False)
        queue(bench, provider, edited(bench, 10, 16, job="third"), name="third")
        await bench.run(provider, waits=False)
        names = {file.id: file for file in server.of("vision")}
        assert len(names) == 4
        for lines in server.inputs():
            for line in lines:
                assert set(line["body"]) >= {"images", "prompt", "model", "n"}
                used = [*line["body"]["images"], *filter(None, [line["body"].get("mask")])]
                assert all(set(one) == {"file_id"} and one["file_id"] in names for one in used)
        assert sum("mask" in line["body"] for lines in server.inputs() for line in lines) == 4
        for file in names.values():
            assert file.expires_at == pytest.approx(file.created_at + 3 * 86_400, abs=2)


async def test_at_most_eight_pictures_are_uploaded_at_once(bench: Bench) -> None:
    async with batch_service(upload_seconds=0.05) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, *(edited(bench, number, number + 10) for number in range(30)))
        await bench.run(provider)
        assert server.most_at_once == 8
        assert len(server.of("vision")) == 30


@pytest.mark.parametrize(("hours", "uploads"), [(25.9, 2), (26.1, 1)])
async def test_a_picture_is_uploaded_anew_when_less_than_26_hours_are_left(
    bench: Bench, hours: float, uploads: int
) -> None:
    async with batch_service(course=("validating",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, edited(bench, 1, 16))
        await bench.run(provider, waits=False)
        bench.set("UPDATE uploaded_file SET expires_at = ?", time.time() + hours * 3600)
        queue(bench, provider, edited(bench, 2, 16, job="second"), name="second")
        await bench.run(provider, waits=False)
        assert len(server.of("vision")) == uploads
        assert len(server.batches) == 2


async def test_a_picture_whose_upload_was_lost_is_found_by_its_name(bench: Bench) -> None:
    async with batch_service(page=1) as server:
        provider = batch_lab(server.url)
        server.add("vision", "other", b"")
        server.script("POST /files", "lost")
        queue(bench, provider, edited(bench, 1, 16))
        await bench.run(provider)
        assert len(server.of("vision")) == 2
        assert len({file.name for file in server.of("vision")}) == 2


async def test_a_picture_whose_upload_was_under_way_at_a_death_is_found_by_its_name(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        one = edited(bench, 1, 16)
        file = server.add("vision", "abc-16.png", b"", 86_400 * 3)
        bench.set(
            "INSERT INTO uploaded_file (provider, sha256, name, created_at) VALUES ('lab', ?, ?, ?)",
            one.inputs[0].sha256,
            file.name,
            time.time(),
        )
        queue(bench, provider, one)
        await bench.run(provider)
        assert server.of("vision") == [file]
        assert server.inputs()[0][0]["body"]["images"] == [{"file_id": file.id}]


async def test_pictures_are_forgotten_and_then_deleted_once_nothing_needs_them(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        known: list[Any] = []

        def look(call: str) -> None:
            if call == "DELETE /files/*":
                known.append(_read(bench, "SELECT count(*) FROM uploaded_file"))

        server.at_call = look
        queue(bench, provider, edited(bench, 1, 16, 17))
        await bench.run(provider)
        assert [file.is_deleted for file in server.of("vision")] == [True, True]
        assert [file.is_deleted for file in server.of("batch")] == [True]
        assert [file.is_deleted for file in server.of("batch_output")] == [False]
        assert known == [2, 0, 0]


async def test_a_picture_stays_while_a_living_batch_or_a_pending_request_needs_it(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, edited(bench, 1, 16))
        await bench.run(provider, waits=False)
        assert [file.is_deleted for file in server.of("vision")] == [False]
        bench.set("UPDATE batch SET ended_at = 1")
        bench.set("UPDATE attempt SET outcome = 'refused', ended_at = 1")
        bench.set("UPDATE request SET status = 'pending'")
        bench.set("UPDATE job SET budget_usd = 0.0001")
        runner = await bench.run(provider)
        assert isinstance(runner.stops[0], BudgetSpent)
        assert [file.is_deleted for file in server.of("vision")] == [False]


async def test_an_input_file_that_a_death_has_left_is_deleted_by_the_next_run(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        left = server.add("batch", "old.jsonl", b"", 86_400)
        queue(bench, provider, painted(1))
        bench.set(
            "INSERT INTO batch (job, provider, served_by, model, token, requests, tokens, input_file_id, created_at)"
            " VALUES (1, 'lab', 'generation', 'gpt-image-2', 'old', 1, 1, ?, ?)",
            left.id,
            time.time(),
        )
        await bench.run(provider)
        assert left.is_deleted
        assert fates(bench) == {"succeeded": 1}


def _read(bench: Bench, question: str) -> Any:
    with contextlib.closing(sqlite3.connect(bench.folder / "ledger.sqlite3")) as other:
        return other.execute(question).fetchone()[0]


async def test_a_request_whose_picture_cannot_be_read_fails_alone(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(
            bench, provider, edited(bench, 1, 16), edited(bench, 2, 17), edited(bench, 3, 16, 17), edited(bench, 4, 18)
        )
        gone = next(iter(json.loads(bench.one("SELECT inputs FROM request WHERE position = 1"))))
        (bench.folder / "job" / gone["file"]).unlink()
        await bench.run(provider)
        assert list(bench.statuses().values()) == ["succeeded", "failed", "failed", "succeeded"]
        assert bench.one("SELECT requests FROM batch") == 2
        assert "cannot be read" in bench.one("SELECT error FROM request WHERE position = 1")
        assert outcomes(bench) == {"answered": 2, "not_sent": 2}


async def test_a_batch_of_which_no_picture_can_be_read_is_not_sent(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, edited(bench, 1, 16))
        for path in (bench.folder / "job" / "inputs").iterdir():
            path.unlink()
        await bench.run(provider)
        assert fates(bench) == {"failed": 1}
        assert server.calls == []


async def test_a_service_that_refuses_pictures_stops_the_job_and_not_each_request(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /files", refusal("purpose is not supported"))
        queue(bench, provider, edited(bench, 1, 16), edited(bench, 2, 16))
        runner = await bench.run(provider)
        assert isinstance(runner.stops[0], BatchRefused)
        assert fates(bench) == {"pending": 2}
        bench.set("UPDATE job SET mode = 'auto'")
        server.script("POST /files", refusal("purpose is not supported"))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 2}
        assert server.count("POST /images/edits") == 2


@pytest.mark.parametrize("end", ["completed", "failed", "expired", "cancelled"])
async def test_the_input_file_is_deleted_after_any_final_status(bench: Bench, end: str) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.courses = [("in_progress", end)]
        seen: list[str] = []
        server.at_call = lambda call: seen.append(server.batches[0]["status"]) if call == "DELETE /files/*" else None
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}
        assert all(file.is_deleted for file in server.of("batch"))
        assert seen[0] == end
        assert bench.one("SELECT count(*) FROM batch WHERE input_file_id IS NOT NULL") == 0


async def test_a_file_that_could_not_be_deleted_is_deleted_at_the_end_of_the_run_or_by_the_next(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("DELETE /files/*", (500, {}), (500, {}))
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert [file.is_deleted for file in server.of("batch")] == [False]
        queue(bench, provider, painted(1), painted(2))
        await bench.run(provider)
        assert [file.is_deleted for file in server.of("batch")] == [True, True]


async def test_files_whose_uploads_were_under_way_at_a_death_are_found_and_deleted(bench: Bench) -> None:
    async with batch_service(page=1) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        arrived = asyncio.Event()

        async def silent(_http: web.Request) -> web.StreamResponse:
            server.add("batch", f"{_read(bench, 'SELECT token FROM batch')}.jsonl", b"{}", 86_400)
            arrived.set()
            await asyncio.Event().wait()
            raise AssertionError

        server.script("POST /files", silent)
        first = asyncio.create_task(bench.run(provider))
        await arrived.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        foreign = server.add("batch", "of-somebody-else.jsonl", b"{}", 86_400)
        picture = server.add("vision", "abc-16.png", b"", 86_400)
        bench.set(
            "INSERT INTO uploaded_file (provider, sha256, name, created_at) VALUES ('lab', '16', 'abc-16.png', 1)"
        )
        await bench.run(provider)
        assert [file.is_deleted for file in server.of("batch") if file is not foreign] == [True, True]
        assert picture.is_deleted
        assert not foreign.is_deleted
        assert fates(bench) == {"succeeded": 1}
        looks = server.count("GET /files")
        queue(bench, provider, painted(1), painted(2))
        await bench.run(provider)
        assert server.count("GET /files") == looks


async def test_an_input_file_that_is_not_in_the_list_is_looked_for_for_an_hour(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /files", refusal("File is too large."))
        queue(bench, provider, painted(1), painted(2))
        await bench.run(provider)
        assert server.count("GET /files") == 1
        bench.set("UPDATE batch SET input_sent_at = input_sent_at - 3601")
        queue(bench, provider, *(painted(number) for number in range(1, 4)))
        await bench.run(provider)
        queue(bench, provider, *(painted(number) for number in range(1, 5)))
        await bench.run(provider)
        assert server.count("GET /files") == 2

"""Living batches: polls, restarts, stops, signals, cancelling, and those that are gone."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.client.batch_client import BatchClient
from pipeline.config.load import RetryRules
from pipeline.engine.batches import collection, creation
from pipeline.engine.events import BatchCollected, BatchMoved, BatchSent
from pipeline.errors import DiskFull, KeyRefused, NotSent, OutageGivenUp
from pipeline.ledger import batches
from pipeline.ledger.batches import has_batch_work, living_batches
from pipeline.ledger.recovery import recover
from tests.support.batch_server import (
    MODEL,
    batch_lab,
    batch_service,
    fates,
    kinds,
    out,
    outcomes,
    painted,
    queue,
    refusal,
)
from tests.support.workbench import ALL, until

if TYPE_CHECKING:
    import sqlite3

    from pipeline.ledger.batches import BatchRow
    from pipeline.ledger.queue import Scope
    from tests.support.workbench import Bench


async def test_statuses_are_compared_without_case_and_an_unknown_one_is_not_final(bench: Bench) -> None:
    async with batch_service(course=("validating",)) as server:
        server.change = lambda batch: batch.update(status=batch["status"].upper())
        provider = await out(bench, server)
        server._left[server.batches[0]["id"]] = ["queued", "in_progress", "paused", "completed"]
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 2}
        assert bench.one("SELECT status FROM batch") == "completed"
        found = [event.status for event in kinds(bench, BatchMoved)]
        assert found == ["validating", "queued", "in_progress", "paused", "completed"]


async def test_events_say_what_was_sent_how_it_moved_and_what_it_brought(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1, n=2), painted(2))
        await bench.run(provider)
        (batch,) = server.batches
        assert kinds(bench, BatchSent) == [BatchSent(batch["id"], "lab", MODEL, 2, 3)]
        assert kinds(bench, BatchMoved)[-1] == BatchMoved(batch["id"], "completed", 2, 0)
        (collected,) = kinds(bench, BatchCollected)
        assert (collected.id, collected.succeeded, collected.failed, collected.returned) == (batch["id"], 2, 0, 0)
        assert collected.cost_usd == pytest.approx(bench.one("SELECT sum(cost_usd) FROM attempt"))


async def test_recovery_leaves_living_batches_alone_and_the_next_run_collects_them(bench: Bench) -> None:
    async with batch_service(course=("validating", "in_progress")) as server:
        provider = await out(bench, server)
        assert recover(bench.connection) == 0
        assert fates(bench) == {"running": 2}
        assert outcomes(bench) == {None: 2}
        assert has_batch_work(bench.connection)
        assert [row.requests for row in living_batches(bench.connection, ALL)] == [2]
        server._left[server.batches[0]["id"]] = ["completed"]
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 2}
        assert bench.ask("SELECT attempts, maybe_paid FROM request") == [(1, 0)] * 2
        assert len(server.batches) == 1


async def test_without_waits_each_batch_is_looked_at_once(bench: Bench) -> None:
    async with batch_service(course=("validating",)) as server:
        provider = await out(bench, server, 3, most_requests=1)
        assert len(server.batches) == 3
        looks = server.count("GET /batches/*")
        began = time.monotonic()
        await bench.run(provider, waits=False)
        assert server.count("GET /batches/*") - looks == 3
        assert time.monotonic() - began < 3
        assert fates(bench) == {"running": 3}


async def test_without_waits_what_is_final_is_collected_and_what_has_no_room_stays(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, enqueued_tokens=10)
        queue(bench, provider, *(painted(number) for number in range(6)))
        server.course = ("in_progress",)
        await bench.run(provider, waits=False)
        assert fates(bench) == {"running": 2, "pending": 4}
        server._left[server.batches[0]["id"]] = ["completed"]
        await bench.run(provider, waits=False)
        assert fates(bench) == {"succeeded": 2, "running": 2, "pending": 2}


async def test_without_waits_a_service_that_does_not_answer_is_left_soon(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = await out(bench, server)
        server.script("GET /batches/*", *[(500, {})] * 4)
        server.script("POST /files", *[(503, {})] * 4)
        queue(bench, provider, painted(9), name="second")
        await bench.run(provider, waits=False)
        assert (fates(bench), fates(bench, "second")) == ({"running": 2}, {"pending": 1})


async def test_the_first_signal_leaves_batches_out_at_once(bench: Bench) -> None:
    async with batch_service(course=("validating", "in_progress")) as server:
        provider = batch_lab(server.url, poll_seconds=(30.0, 30.0))
        queue(bench, provider, painted(1))
        runner = bench.runner(provider)
        task = asyncio.create_task(runner.run())
        await until(lambda: kinds(bench, BatchMoved))
        began = time.monotonic()
        runner.halt()
        await task
        assert time.monotonic() - began < 2
        assert fates(bench) == {"running": 1}
        assert len(living_batches(bench.connection, ALL)) == 1
        assert "POST /batches/*/cancel" not in server.calls


async def test_the_first_signal_returns_what_is_not_created_yet(bench: Bench) -> None:
    async with batch_service(upload_seconds=30.0) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        runner = bench.runner(provider)
        task = asyncio.create_task(runner.run())
        await until(lambda: server.calls)
        runner.halt()
        await task
        assert fates(bench) == {"pending": 1}
        assert outcomes(bench) == {"not_sent": 1}
        assert not list((bench.folder / "job" / "batches").glob("*.jsonl"))
        server.upload_seconds = 0.0


async def test_the_first_signal_keeps_the_part_of_a_download_and_the_next_run_goes_on_there(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        ranges: list[str | None] = []
        stall = asyncio.Event()

        async def half(http: web.Request) -> web.StreamResponse:
            content = server.of("batch_output")[0].content
            response = web.StreamResponse(headers={"Content-Length": str(len(content)), "ETag": '"x"'})
            await response.prepare(http)
            await response.write(content[:40])
            await stall.wait()
            return response

        async def rest(http: web.Request) -> web.StreamResponse:
            ranges.append(http.headers.get("Range"))
            content = server.of("batch_output")[0].content
            headers = {"Content-Range": f"bytes 40-{len(content) - 1}/{len(content)}"}
            return web.Response(body=content[40:], status=206, headers=headers, content_type="application/octet-stream")

        server.script("GET /files/*/content", half, rest)
        queue(bench, provider, painted(1))
        runner = bench.runner(provider)
        task = asyncio.create_task(runner.run())

        def parts() -> list[int]:
            return [path.stat().st_size for path in (bench.folder / "job" / "batches").glob("[!.]*.part")]

        await until(lambda: parts() == [40])
        runner.halt()
        await task
        assert parts() == [40]
        stall.set()
        await bench.run(provider)
        assert ranges == ["bytes=40-"]
        assert fates(bench) == {"succeeded": 1}
        assert not list((bench.folder / "job" / "batches").iterdir())


async def test_a_refused_key_ends_at_once_and_batches_stay_out(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url, most_requests=1, poll_seconds=(0.05, 30.0))
        queue(bench, provider, painted(1), painted(2))
        server.script("GET /batches/*", refusal("Incorrect API key", "invalid_api_key", 401))
        began = time.monotonic()
        runner = await bench.run(provider)
        assert time.monotonic() - began < 5
        assert [type(stop) for stop in runner.stops] == [KeyRefused]
        assert fates(bench) == {"running": 2}


async def test_a_full_disk_ends_at_once_and_the_next_run_collects(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)

        def full(_path: Any, **_more: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(collection, "make_folder", full)
            queue(bench, provider, painted(1))
            runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [DiskFull]
        assert fates(bench) == {"running": 1}
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}


async def test_a_disk_that_is_full_before_the_create_returns_the_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)

        def full(*_values: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(creation, "write_whole", full)
        queue(bench, provider, painted(1))
        runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [DiskFull]
        assert fates(bench) == {"pending": 1}
        assert server.calls == []


async def test_a_long_outage_stops_the_provider_and_batches_stay_out(bench: Bench) -> None:
    bench.retry = RetryRules(outage_hours=0.0, max_wait_seconds=0.01)
    async with batch_service(course=("in_progress",)) as server:
        provider = await out(bench, server)
        server.script("GET /batches/*", (500, {}), (500, {}))
        runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [OutageGivenUp]
        assert fates(bench) == {"running": 2}


async def test_a_create_that_was_not_sent_is_sent_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        create, seen = BatchClient.create, list[str]()

        async def unreachable(self: BatchClient, *values: Any, **more: Any) -> Any:
            seen.append(bench.folder.name)
            if len(seen) < 3:
                raise NotSent("the server cannot be reached")
            return await create(self, *values, **more)

        monkeypatch.setattr(BatchClient, "create", unreachable)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert (len(seen), server.count("GET /batches")) == (3, 0)
        assert fates(bench) == {"succeeded": 1}


async def test_an_error_of_ours_ends_the_run_and_not_silently(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)

        async def bug(*_values: Any, **_more: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(BatchClient, "get_batch", bug)
        queue(bench, provider, painted(1))
        with pytest.raises(ExceptionGroup):
            await bench.run(provider)
        assert fates(bench) == {"running": 1}


async def test_a_batch_that_ended_since_it_was_seen_living_is_not_followed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.courses = [("completed",), ("failed",)]
        server.errors = [{"code": "server_error", "message": "an internal error"}]
        queue(bench, provider, painted(1))
        await bench.run(provider)
        queue(bench, provider, painted(2), name="second")
        await bench.run(provider)
        queue(bench, provider, painted(3), name="third")
        bench.set(
            "UPDATE batch SET id = NULL, create_sent_at = 1.0, looks = 9, input_file_id = 'x' WHERE status = 'failed'"
        )

        def all_of_them(connection: sqlite3.Connection, _scope: Scope) -> list[BatchRow]:
            pks = [row[0] for row in connection.execute("SELECT pk FROM batch").fetchall()]
            return [batches.read_batch(connection, pk) for pk in pks]

        monkeypatch.setattr(batches, "living_batches", all_of_them)
        before = len(kinds(bench, BatchCollected))
        runner = bench.runner(provider)
        task = asyncio.create_task(runner.run())
        await until(lambda: len(kinds(bench, BatchCollected)) > before)
        runner.halt()
        await task
        assert len(kinds(bench, BatchCollected)) == before + 1
        assert (len(server.batches), server.count("GET /batches")) == (4, 0)

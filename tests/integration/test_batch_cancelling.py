"""Batches that are cancelled, and those that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.engine.events import BatchMoved
from pipeline.errors import BatchGone
from pipeline.ledger.batches import living_batches, request_cancel
from pipeline.ledger.database import open_ledger, transaction
from tests.support.batch_server import (
    DROPPED,
    batch_lab,
    batch_service,
    done,
    fates,
    kinds,
    out,
    outcomes,
    painted,
    queue,
    refusal,
    unanswered,
)
from tests.support.workbench import ALL, until

if TYPE_CHECKING:
    from tests.support.workbench import Bench


GONE = refusal("No batch found with id 'x'.", status=404)


async def test_a_batch_that_is_gone_stops_and_is_never_bought_again_by_itself(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = await out(bench, server)
        for _ in range(2):
            server.script("GET /batches/*", GONE, GONE, GONE)
            runner = await bench.run(provider)
            (stop,) = runner.stops
            assert isinstance(stop, BatchGone)
            assert all(word in str(stop) for word in ("key", "project", "pipeline cancel job"))
            assert fates(bench) == {"running": 2}
        assert len(server.batches) == 1


async def test_one_404_alone_does_not_make_a_batch_gone(bench: Bench) -> None:
    async with batch_service() as server:
        server.script("GET /batches/*", GONE, GONE)
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        runner = await bench.run(provider)
        assert (runner.stops, fates(bench)) == ([], {"succeeded": 1})


async def test_a_batch_that_is_gone_and_cancelled_is_given_up_as_unknown(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = await out(bench, server)
        assert request_cancel(bench.connection, "job", time.time()) == 1
        server.script("GET /batches/*", GONE, GONE, GONE)
        runner = await bench.run(provider)
        assert runner.stops == []
        assert fates(bench) == {"cancelled": 2}
        assert outcomes(bench) == {"unknown": 2}
        assert bench.ask("SELECT maybe_paid FROM request") == [(1,), (1,)]
        assert bench.one("SELECT cancel_since FROM job") is None
        assert not living_batches(bench.connection, ALL)


async def test_cancel_cancels_at_the_service_waits_and_collects_what_was_made(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        lines: list[Any] = []

        def half(line: Any) -> list[Any]:
            lines.append(line)
            return [done(line)] if len(lines) == 1 else [unanswered(line, "batch_cancelled")] if len(lines) == 2 else []

        server.work = half
        provider = await out(bench, server, 3)
        request_cancel(bench.connection, "job", time.time())
        await bench.run(provider)
        assert server.count("POST /batches/*/cancel") == 1
        assert fates(bench) == {"succeeded": 1, "cancelled": 2}
        assert outcomes(bench) == {"answered": 1, "refused": 2}
        assert bench.one("SELECT sum(cost_usd IS NOT NULL) FROM request") == 1
        assert bench.one("SELECT cancel_since FROM job") is None
        assert len(server.batches) == 1
        assert bench.one("SELECT count(error) FROM request") == 0, "what was not run has not failed"


async def test_a_409_means_collect(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = await out(bench, server)
        server.script("POST /batches/*/cancel", refusal("Cannot cancel", status=409))
        server._left[server.batches[0]["id"]] = ["in_progress", "finalizing", "completed"]
        request_cancel(bench.connection, "job", time.time())
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 2}
        assert server.count("POST /batches/*/cancel") == 1


async def test_a_wish_to_cancel_beside_a_run_is_carried_out_by_it(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url, poll_seconds=(60.0, 60.0))
        queue(bench, provider, painted(1))
        task = asyncio.create_task(bench.run(provider))
        await until(lambda: kinds(bench, BatchMoved))
        await asyncio.to_thread(_wish, bench)
        await until(lambda: "POST /batches/*/cancel" in server.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_wish_that_was_interrupted_stays(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = await out(bench, server)
        request_cancel(bench.connection, "job", time.time())
        server.cancelled_as, server.work = ("cancelling",), lambda _line: []
        await bench.run(provider, waits=False)
        assert bench.one("SELECT cancel_since FROM job") is not None
        server._left[server.batches[0]["id"]] = ["cancelled"]
        await bench.run(provider, waits=False)
        assert server.count("POST /batches/*/cancel") == 1
        assert fates(bench) == {"cancelled": 2}


async def test_a_batch_that_was_cancelled_before_it_was_valid_spends_no_attempt(bench: Bench) -> None:
    async with batch_service(course=("validating",)) as server:
        provider = await out(bench, server)
        request_cancel(bench.connection, "job", time.time())
        await bench.run(provider)
        assert bench.ask("SELECT attempts, maybe_paid FROM request") == [(0, 0)] * 2
        assert outcomes(bench) == {"not_sent": 2}
        assert fates(bench) == {"cancelled": 2}


async def test_a_cancelled_job_whose_create_is_unknown_is_not_created_again(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", DROPPED)
        queue(bench, provider, painted(1))
        await bench.run(provider, waits=False)
        request_cancel(bench.connection, "job", time.time())
        await bench.run(provider)
        assert server.count("POST /batches") == 1
        assert fates(bench) == {"cancelled": 1}


async def test_a_job_without_batches_has_nothing_to_cancel(bench: Bench) -> None:
    provider = batch_lab("http://127.0.0.1:9/v1")
    queue(bench, provider, painted(1))
    assert request_cancel(bench.connection, "job", 1.0) == 0
    assert bench.one("SELECT cancel_since FROM job") is None


async def test_whatever_asks_for_no_picture_is_repeated_through_a_short_outage(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", DROPPED)
        server.script("GET /batches", (500, {}), DROPPED)
        server.script("POST /batches/*/cancel", (503, {}))
        server.cancelled_as, server.work = ("cancelled",), lambda _line: []
        queue(bench, provider, painted(1))
        task = asyncio.create_task(bench.run(provider))
        await until(lambda: server.batches)
        await asyncio.to_thread(_wish, bench)
        await task
        assert fates(bench) == {"cancelled": 1}
        assert server.count("POST /batches/*/cancel") == 2


def _wish(bench: Bench) -> None:
    with contextlib.closing(open_ledger(bench.folder)) as other, transaction(other):
        request_cancel(other, "job", time.time())


async def test_a_wish_to_cancel_ends_an_upload_that_is_not_answered(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /files", *[(500, {})] * 50)
        queue(bench, provider, painted(1))
        task = asyncio.create_task(bench.run(provider))
        await until(lambda: server.calls)
        await asyncio.to_thread(_wish, bench)
        await task
        assert fates(bench) == {"cancelled": 1}
        assert outcomes(bench) == {"not_sent": 1}
        server.forget_script()

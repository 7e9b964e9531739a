"""One provider at work: as many in flight as the latency asks for, few in its waiting room, and none after a halt."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.config.load import RateLimit
from pipeline.engine.dispatcher import LOOKAHEAD
from pipeline.errors import DiskFull, ModelUnknown
from pipeline.ledger import submit
from pipeline.ledger.database import open_ledger
from pipeline.ledger.queue import next_requests
from tests.support.workbench import PNG_BASE64, Body, answer_with, lab, request, until, vendor

if TYPE_CHECKING:
    from pipeline.ledger.queue import QueuedRequest
    from tests.support.workbench import Bench


class Door:
    """Holds every call until it is opened; counts those inside."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.prompts: list[str] = []
        self.inside = self.most = 0

    async def __call__(self, body: Body) -> web.StreamResponse:
        self.prompts.append(body["prompt"])
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.open.wait()
        self.inside -= 1
        if body["model"] == "gone":
            return web.json_response({"error": {"code": "model_not_found", "message": "no such model"}}, status=404)
        return answer_with(*[{"b64_json": PNG_BASE64}] * body["n"])


@pytest.mark.parametrize("concurrency", [1, 7, 60])
async def test_calls_in_flight_grow_to_the_concurrency_and_no_further(bench: Bench, concurrency: int) -> None:
    door = Door()
    async with vendor(door) as base_url:
        bench.submit(*(request(number) for number in range(70)))
        run = asyncio.create_task(bench.run(lab(base_url, concurrency=concurrency)))
        await until(lambda: door.inside == concurrency)
        door.open.set()
        await run
    assert door.most == concurrency
    assert sorted(door.prompts) == sorted(f"prompt {number}" for number in range(70))
    if concurrency == 1:
        assert door.prompts == [f"prompt {number}" for number in range(70)], "in the order of the job file"


async def test_few_wait_at_the_gate_and_all_others_stay_in_the_ledger(bench: Bench) -> None:
    door = Door()
    async with vendor(door) as base_url:
        bench.submit(*(request(number) for number in range(200)))
        runner = bench.runner(lab(base_url, concurrency=150, rate_limit=RateLimit(1, 600)))
        run = asyncio.create_task(runner.run())
        await until(lambda: door.inside == 1 and runner._admissions["lab"].waiting == LOOKAHEAD)
        door.open.set()
        await until(lambda: bench.one("SELECT total(received) FROM request") == 1)
        await asyncio.sleep(0.05)
        assert runner._admissions["lab"].waiting == LOOKAHEAD
        runner.halt()
        await run
    assert bench.ask("SELECT status, count(*) FROM request GROUP BY status") == [("pending", 199), ("succeeded", 1)]
    assert bench.one("SELECT count(*) FROM attempt") == 1


async def test_after_a_halt_what_is_in_flight_ends_and_nothing_is_left_running(bench: Bench) -> None:
    door = Door()
    async with vendor(door) as base_url:
        bench.submit(*(request(number) for number in range(20)))
        runner = bench.runner(lab(base_url, concurrency=5))
        run = asyncio.create_task(runner.run())
        await until(lambda: door.inside == 5)
        runner.halt()
        await asyncio.sleep(0.01)
        assert not run.done()
        door.open.set()
        await run
    assert bench.ask("SELECT status, count(*) FROM request GROUP BY status") == [("pending", 15), ("succeeded", 5)]
    assert runner.stops == []


async def test_what_waits_at_the_gate_and_is_cancelled_or_leaves_its_job_is_never_called(bench: Bench) -> None:
    door = Door()
    door.open.set()
    async with vendor(door) as base_url:
        bench.submit(request(0), name="first", now=1)
        bench.submit(request(1), name="cancelled", now=2)
        bench.submit(request(2), request(3), name="changed", now=3)
        limit = RateLimit(1, 0.3)
        runner = bench.runner(lab(base_url, rate_limit=limit))
        run = asyncio.create_task(runner.run())
        await until(lambda: "lab" in runner._admissions and runner._admissions["lab"].waiting == 3)
        bench.submit_beside(request(3), name="changed")
        with contextlib.closing(open_ledger(bench.folder)) as other:  # as another process does
            assert submit.cancel(other, "cancelled") == 1
        await run
    assert door.prompts == ["prompt 0", "prompt 3"]
    assert bench.statuses("cancelled") == {request(1).id: "cancelled"}
    assert bench.one("SELECT total(attempts) FROM request") == 2


async def test_an_unknown_model_holds_up_its_requests_of_that_job_and_no_others(bench: Bench) -> None:
    door = Door()
    door.open.set()
    async with vendor(door) as base_url:
        bench.submit(request(1, model="gone"), request(2), request(3, model="gone"), now=1)
        runner = await bench.run(lab(base_url, concurrency=1))
    assert door.prompts == ["prompt 1", "prompt 2"]
    assert [type(stop) for stop in runner.stops] == [ModelUnknown]
    assert list(bench.statuses().values()) == ["pending", "succeeded", "pending"]
    assert bench.one("SELECT attempts FROM request WHERE prompt = 'prompt 1'") == 1


async def test_what_is_submitted_while_the_lane_works_is_taken_up(bench: Bench) -> None:
    door = Door()
    async with vendor(door) as base_url:
        bench.submit(request(1))
        run = asyncio.create_task(bench.run(lab(base_url, concurrency=8)))
        await until(lambda: door.inside == 1)
        bench.submit_beside(request(2), name="later")
        await until(lambda: door.inside == 2)
        door.open.set()
        await run
    assert list(bench.statuses("later").values()) == ["succeeded"]


async def test_a_ledger_that_cannot_even_be_asked_stops_the_run_and_cuts_off_no_call(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door()

    def full(*arguments: Any) -> list[QueuedRequest]:
        if door.inside:
            raise DiskFull("no room")
        return next_requests(*arguments)

    monkeypatch.setattr("pipeline.engine.dispatcher.next_requests", full)
    async with vendor(door) as base_url:
        bench.submit(*(request(number) for number in range(5)))
        runner = bench.runner(lab(base_url, concurrency=10, rate_limit=RateLimit(2, 600)))
        run = asyncio.create_task(runner.run())
        await until(lambda: runner.stops)
        assert door.inside >= 1
        door.open.set()
        await run
    assert [type(stop) for stop in runner.stops] == [DiskFull]
    assert bench.one("SELECT total(received) FROM request") == len(door.prompts) >= 1

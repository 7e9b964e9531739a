"""A budget holds however many calls are in flight."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import BudgetSpent
from pipeline.ledger.attempts import committed_usd
from tests.support.workbench import PNG_BASE64, PRICE, answer_with, lab, request, sandbox, vendor

if TYPE_CHECKING:
    from aiohttp import web

    from tests.support.workbench import Bench, Body


@pytest.mark.parametrize("concurrency", [8, 200])
async def test_200_calls_at_once_never_cross_the_wall_and_the_next_run_starts_from_the_ledgers_sum(
    bench: Bench, concurrency: int
) -> None:
    books = bench.folder / "books.jsonl"
    faults = {"drop_after": 0.2, "http_500": 0.2, "empty": 0.1}
    bench.retry = dataclasses.replace(bench.retry, attempts=50, unknown=50)
    async with sandbox(books, faults=faults, latency_seconds=[0.001, 0.02], seed=3) as base_url:
        bench.submit(*(request(number) for number in range(200)), budget_usd=1.0)
        for budget, calls in ((None, 1.0), (1.5, 1.5)):
            runner = await bench.run(lab(base_url, concurrency=concurrency), budget_usd=budget)
            assert {type(stop) for stop in runner.stops} == {BudgetSpent}
            charged = sum(_charged(line) for line in books.read_text().splitlines()) * PRICE
            assert calls / 2 < charged <= calls
            assert charged <= committed_usd(bench.connection, 1) + 1e-9 <= calls + 1e-6
            assert bench.one("SELECT count(*) FROM request WHERE status NOT IN ('pending', 'succeeded')") == 0
            assert bench.one("SELECT count(*) FROM attempt WHERE outcome IS NULL") == 0


@pytest.mark.parametrize(("images", "stopped"), [(4, True), (3, False)])
async def test_a_response_that_crosses_the_wall_is_kept_and_stops_its_job_alone(
    bench: Bench, images: int, stopped: bool
) -> None:
    async def answer(_body: Body) -> web.StreamResponse:
        await asyncio.sleep(0)
        return answer_with(*[{"b64_json": PNG_BASE64}] * images)

    async with vendor(answer) as base_url:
        bench.submit(request(1), budget_usd=0.05)
        bench.submit(request(2), name="other")
        runner = await bench.run(lab(base_url))
    assert bench.ask("SELECT status, received FROM request") == [("succeeded", images)] * 2
    assert [str(stop) for stop in runner.stops] == stopped * [
        (
            "$0.0640 of job `job` is spent or may be, more than its budget of $0.05: a response brought 4 images for a"
            " call for 1; its images are stored, and nothing more is bought until you raise `budget_usd`, or"
            " `--budget`"
        )
    ]
    assert all(isinstance(stop, BudgetSpent) and stop.exit_code == 3 for stop in runner.stops)


def _charged(line: str) -> int:
    entry = json.loads(line)
    return int(entry["charged"]) if entry["type"] == "call" else 0

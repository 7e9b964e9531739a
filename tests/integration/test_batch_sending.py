"""Batches on their way out: groups and bounds, lines, uploads, and what is on disk at each call."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import BudgetSpent
from pipeline.ledger.attempts import sent_since
from tests.support.batch_server import (
    MODEL,
    OTHER,
    batch_lab,
    batch_service,
    done,
    edited,
    fates,
    outcomes,
    painted,
    queue,
    refusal,
)
from tests.support.workbench import models

if TYPE_CHECKING:
    from tests.support.workbench import Bench


async def sent(
    bench: Bench, count: int = 6, n: int = 1, *, provider: dict[str, Any] | None = None, **rules: Any
) -> list[int]:
    """Send so many requests within these bounds, and return the number of lines of each batch, the largest first."""
    async with batch_service() as server:
        own = batch_lab(server.url, more=provider, **rules)
        queue(bench, own, *(painted(number, n=n) for number in range(count)))
        await bench.run(own)
        assert fates(bench) == {"succeeded": count}
        assert server.count("POST /batches") == len(server.inputs())
        assert server.count("POST /images/generations") == 0
        return sorted((len(lines) for lines in server.inputs()), reverse=True)


async def test_a_batch_has_one_job_endpoint_and_model(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(
            bench, provider, painted(1), painted(2, model=OTHER), painted(3), edited(bench, 4, 16), edited(bench, 5, 16)
        )
        queue(bench, provider, painted(6), name="second")
        await bench.run(provider)
        found = sorted((lines[0]["url"], lines[0]["body"]["model"], len(lines)) for lines in server.inputs())
        assert found == [
            ("/v1/images/edits", MODEL, 2),
            ("/v1/images/generations", MODEL, 1),
            ("/v1/images/generations", MODEL, 2),
            ("/v1/images/generations", OTHER, 1),
        ]
        for lines, batch in zip(server.inputs(), server.batches, strict=True):
            assert {line["url"] for line in lines} == {batch["endpoint"]}
        assert bench.one("SELECT count(*) FROM request WHERE status != 'succeeded'") == 0


@pytest.mark.parametrize(
    ("bounds", "batches"),
    [
        ({}, [6]),
        ({"most_requests": 4}, [4, 2]),
        ({"most_images": 4}, [4, 2]),
        ({"most_bytes": 1_500}, [3, 3]),
        ({"most_output_bytes": 9_000_000}, [3, 3]),
        ({"enqueued_tokens": 10}, [2, 2, 2]),
        ({"enqueued_tokens": None}, [6]),
    ],
)
async def test_each_bound_cuts_batches(bench: Bench, bounds: dict[str, Any], batches: list[int]) -> None:
    assert await sent(bench, **bounds) == batches


@pytest.mark.parametrize(
    "bounds",
    [{"most_images": 1}, {"most_bytes": 1}, {"most_output_bytes": 1}, {"enqueued_tokens": 1}],
)
async def test_one_request_may_exceed_a_bound_alone(bench: Bench, bounds: dict[str, Any]) -> None:
    assert await sent(bench, 2, 3, **bounds) == [1, 1]


async def test_a_request_for_more_images_than_a_call_may_make_has_several_lines_of_one_batch(bench: Bench) -> None:
    assert await sent(bench, 2, 5, provider={"images_per_call": 2}, most_images=5) == [3, 3]
    assert bench.one("SELECT count(DISTINCT file) FROM image WHERE state = 'stored'") == 10


async def test_the_living_batches_of_a_model_stay_within_80_percent_of_its_queue(
    bench: Bench,
) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, enqueued_tokens=10)
        most = 0

        def note(_call: str) -> None:
            nonlocal most
            most = max(most, len([one for one in server.batches if one["status"] != "completed"]))

        server.at_call = note
        queue(bench, provider, *(painted(number) for number in range(4)))
        queue(bench, provider, *(painted(number) for number in range(4, 8)), name="second")
        await bench.run(provider)
        assert most == 1
        assert len(server.batches) == 4


async def test_more_batches_are_out_at_once_than_are_sent_at_once(bench: Bench) -> None:
    async with batch_service(course=("validating", *["in_progress"] * 40, "completed")) as server:
        provider = batch_lab(server.url, most_requests=1)
        queue(bench, provider, *(painted(number) for number in range(9)))
        await bench.run(provider)
        first_end = next(place for place, call in enumerate(server.calls) if call.endswith("/content"))
        assert server.calls[:first_end].count("POST /batches") == 9


async def test_a_custom_id_is_unique_and_says_nothing_else(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, most_requests=2)
        queue(bench, provider, *(painted(number, id=f"secret-{number}") for number in range(5)))
        await bench.run(provider)
        ids = [line["custom_id"] for lines in server.inputs() for line in lines]
        assert len(set(ids)) == 5
        assert all(re.fullmatch(r"[0-9a-f]{24}-[0-9]+", one) and len(one) <= 64 for one in ids)
        tokens = {batch["metadata"]["pipeline"] for batch in server.batches}
        assert all(file.name.removesuffix(".jsonl") in tokens for file in server.of("batch"))
        assert all(set(batch["metadata"]) == {"pipeline"} for batch in server.batches)


async def test_lines_are_utf_8_without_a_mark_and_ask_as_a_call_does(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        one = painted(1, n=2, background="opaque")
        object.__setattr__(one, "prompt", "Käse 猫")
        queue(bench, provider, one)
        await bench.run(provider)
        (file,) = server.of("batch")
        assert not file.content.startswith(b"\xef\xbb\xbf")
        assert "Käse" in file.content.decode("utf-8")
        ((line,),) = server.inputs()
        assert (line["method"], line["url"]) == ("POST", "/v1/images/generations")
        assert {**line["body"], "prompt": ""} == {**one.params, "prompt": "", "n": 2}


async def test_what_is_on_disk_at_each_call_is_enough_to_know_what_was_sent(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        seen: dict[str, dict[str, Any]] = {}

        def look(call: str) -> None:
            with contextlib.closing(sqlite3.connect(bench.folder / "ledger.sqlite3")) as other:
                other.row_factory = sqlite3.Row
                row = other.execute("SELECT * FROM batch").fetchone()
                lines = other.execute("SELECT count(*) FROM attempt WHERE batch = 1 AND outcome IS NULL").fetchone()[0]
                running = other.execute("SELECT count(*) FROM request WHERE status = 'running'").fetchone()[0]
                pictures = other.execute("SELECT count(*) FROM uploaded_file").fetchone()[0]
                known = {**dict(row), "lines": lines, "running": running, "pictures": pictures}
                seen.setdefault(f"{call} {len(server.of('batch'))}", known)

        server.at_call = look
        queue(bench, provider, *(edited(bench, number, 16) for number in range(3)))
        await bench.run(provider)
        picture, upload = seen["POST /files 0"], seen["POST /files 0"]
        assert (picture["lines"], picture["running"], picture["requests"], picture["pictures"]) == (3, 3, 3, 1)
        assert len(upload["token"]) == 24
        assert (upload["input_file_id"], upload["create_sent_at"], upload["id"]) == (None, None, None)
        create = seen["POST /batches 1"]
        assert create["input_file_id"] == server.batches[0]["input_file_id"]
        assert create["create_sent_at"] is not None
        assert create["id"] is None
        assert seen["GET /batches/* 1"]["id"] == server.batches[0]["id"]
        assert server.batches[0]["metadata"] == {"pipeline": create["token"]}


async def test_a_413_or_too_large_halves_the_file(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /files", (413, "<html>too big</html>"), *[refusal("File is too large.")] * 2)
        queue(bench, provider, *(painted(number) for number in range(8)))
        await bench.run(provider)
        assert [len(lines) for lines in server.inputs()] == [2, 2, 2, 2]
        assert fates(bench) == {"succeeded": 8}
        assert bench.one("SELECT max(attempts) FROM request") == 1


async def test_a_lone_request_whose_file_is_too_large_fails(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, more={"images_per_call": 2})
        server.script("POST /files", *[(413, "")] * 3)
        queue(bench, provider, *(painted(number, n=4) for number in range(3)))
        await bench.run(provider)
        assert fates(bench) == {"failed": 2, "succeeded": 1}
        assert bench.one("SELECT max(attempts) FROM request WHERE status = 'failed'") == 0


async def test_what_the_budget_allows_is_sent_also_over_restarts(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, *(painted(number) for number in range(10)), budget_usd=1.0)
        runner = await bench.run(provider, waits=False)
        estimate = bench.one("SELECT estimate_usd FROM attempt LIMIT 1")
        bench.set("UPDATE batch SET ended_at = 1")
        bench.set("DELETE FROM attempt")
        bench.set("UPDATE request SET status = 'pending'")
        bench.set("UPDATE job SET budget_usd = ?", estimate * 4.5)
        runner = await bench.run(provider, waits=False)
        assert isinstance(runner.stops[0], BudgetSpent)
        assert fates(bench) == {"running": 4, "pending": 6}
        runner = await bench.run(provider, waits=False)
        assert isinstance(runner.stops[0], BudgetSpent)
        assert fates(bench) == {"running": 4, "pending": 6}
        bench.set("UPDATE job SET budget_usd = ?", estimate * 6.5)
        await bench.run(provider, waits=False)
        assert fates(bench) == {"running": 6, "pending": 4}
        assert server.count("POST /batches") == 3


async def test_a_batch_reserves_half_of_what_calls_would(bench: Bench) -> None:
    async with batch_service() as server:
        half, whole = batch_lab(server.url), batch_lab(server.url, discount=0.0)
        queue(bench, half, painted(1))
        await bench.run(half)
        queue(bench, whole, painted(2), name="second")
        await bench.run(whole)
        (first, cost), (second, other) = bench.ask("SELECT estimate_usd, cost_usd FROM attempt ORDER BY pk")
        assert first * 2 == pytest.approx(second)
        assert cost * 2 == pytest.approx(other)


async def test_a_line_without_usage_costs_the_price_of_the_table_less_the_discount(bench: Bench) -> None:
    async with batch_service(work=lambda line: [done(line, usage=None)]) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        model = models().find(MODEL)
        assert model is not None
        table = model.cost("generation", painted(1).params, 1, None).usd
        assert table is not None
        assert bench.one("SELECT cost_usd FROM attempt") == pytest.approx(table / 2)


async def test_batches_do_not_count_in_the_window_of_the_limit(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1), painted(2))
        await bench.run(provider, waits=False)
        assert sent_since(bench.connection, "lab", 0.0) == []
        assert outcomes(bench) == {None: 2}


async def test_the_key_is_sent_with_each_call(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, more={"api_key_env": "LAB_KEY"})
        bench.environment = {"LAB_KEY": "sk-lab-0123456789"}
        server.script("POST /batches", "lost")
        queue(bench, provider, edited(bench, 1, 16))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}
        assert len(set(server.calls)) == 7
        assert set(server.tokens) == {"Bearer sk-lab-0123456789"}


@pytest.mark.parametrize("states_it", [True, False])
async def test_a_batch_expires_when_the_service_says_so_or_after_expires_hours(bench: Bench, states_it: bool) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url, expires_hours=7.0)
        server.change = lambda batch: None if states_it else batch.pop("expires_at")
        queue(bench, provider, painted(1))
        await bench.run(provider, waits=False)
        hours = 24 if states_it else 7
        assert bench.one("SELECT expires_at FROM batch") == pytest.approx(time.time() + hours * 3600, abs=20)

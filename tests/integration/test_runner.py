"""A run: providers side by side, stops that reach as far as their cause, and an end that leaves nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import RateLimit
from pipeline.engine import runner as module
from pipeline.engine.events import Stopped
from pipeline.errors import DiskFull, KeyRefused, QuotaSpent, WrongAddress
from pipeline.ledger import attempts
from pipeline.ledger.queue import Scope
from tests.integration.test_dispatcher import Door
from tests.support.workbench import lab, request, sandbox, until, vendor

if TYPE_CHECKING:
    from typing import Any

    from tests.support.workbench import Bench


async def test_two_providers_work_side_by_side_and_the_slow_one_holds_up_nobody(bench: Bench) -> None:
    slow, fast = Door(), Door()
    fast.open.set()
    async with vendor(slow) as slow_url, vendor(fast) as fast_url:
        bench.submit(*(request(number) for number in range(5)), name="slow", provider=lab(slow_url, "slow"))
        bench.submit(*(request(number) for number in range(50)), name="fast", provider=lab(fast_url, "fast"))
        run = asyncio.create_task(bench.run(lab(slow_url, "slow", concurrency=2), lab(fast_url, "fast")))
        await until(lambda: bench.one("SELECT total(received) FROM request") == 50)
        assert slow.inside == 2
        slow.open.set()
        await run
    assert bench.one("SELECT total(received) FROM request") == 55


async def test_a_stop_of_one_provider_leaves_the_other_to_its_end(bench: Bench) -> None:
    async with sandbox(quota_images=0) as broke, sandbox() as rich:
        bench.submit(*(request(number) for number in range(5)), name="broke", provider=lab(broke, "broke"))
        bench.submit(*(request(number) for number in range(5)), name="rich", provider=lab(rich, "rich"))
        runner = await bench.run(lab(broke, "broke", concurrency=1), lab(rich, "rich"))
    assert [type(stop) for stop in runner.stops] == [QuotaSpent]
    assert [event.what for event in bench.events if isinstance(event, Stopped)] == ["provider `broke`"]
    assert set(bench.statuses("broke").values()) == {"pending"}
    assert set(bench.statuses("rich").values()) == {"succeeded"}


async def test_only_the_jobs_in_scope_and_those_submitted_since_are_worked(bench: Bench) -> None:
    door = Door()
    async with vendor(door) as base_url:
        bench.submit(request(1), name="before", now=1)
        bench.submit(request(2), name="mine", now=2)
        run = asyncio.create_task(bench.run(lab(base_url), scope=Scope(frozenset({"mine"}), time.time())))
        await until(lambda: door.inside == 1)
        bench.submit_beside(request(3), name="since")
        await until(lambda: door.inside == 2)
        door.open.set()
        await run
    assert sorted(door.prompts) == ["prompt 2", "prompt 3"]


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"api_key_env": "NO_SUCH_KEY"}, KeyRefused, "NO_SUCH_KEY"),
        (None, WrongAddress, "no provider `other`"),
    ],
)
async def test_a_job_submitted_beside_for_a_provider_we_cannot_call_costs_no_call_in_flight(
    bench: Bench, more: dict[str, Any] | None, error: type[Exception], said: str
) -> None:
    door = Door()
    async with vendor(door) as base_url:
        other = [] if more is None else [lab(base_url, "other", **more)]
        bench.submit(*(request(number) for number in range(3)))
        runner = bench.runner(lab(base_url, concurrency=2), *other)
        run = asyncio.create_task(runner.run())
        await until(lambda: door.inside == 2)
        bench.submit_beside(request(9), name="beside", provider=lab(base_url, "other"))
        await until(lambda: runner.stops)
        assert door.inside == 2
        door.open.set()
        await run
    assert [type(stop) for stop in runner.stops] == [error]
    assert said in str(runner.stops[0])
    assert set(bench.statuses().values()) == {"succeeded"}
    assert set(bench.statuses("beside").values()) == {"pending"}


async def test_a_provider_s_gate_and_what_it_knows_last_for_the_whole_run(bench: Bench) -> None:
    door, slow = Door(), Door()
    async with vendor(door) as base_url, vendor(slow) as slow_url:
        quick = lab(base_url, rate_limit=RateLimit(10_000, 60))
        bench.submit(request(1), request(2, n=2))
        bench.submit(request(8), name="slow", provider=lab(slow_url, "slow"))
        runner = bench.runner(quick, lab(slow_url, "slow"))
        run = asyncio.create_task(runner.run())
        await until(lambda: door.prompts)
        admission = runner._admissions["lab"]
        door.open.set()
        await until(lambda: "lab" not in runner._dispatchers)
        bench.submit_beside(request(3), name="later")
        await until(lambda: len(door.prompts) == 3)
        assert runner._admissions["lab"] is admission
        assert admission.throttle.used == 4
        slow.open.set()
        await run


async def test_a_run_remembers_what_an_earlier_one_sent_and_was_told(bench: Bench) -> None:
    bench.submit(request(1))
    attempts.record_pause(bench.connection, "lab", time.time() + 600)
    for ago, n in ((10, 2), (700, 5)):
        bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', ?, ?)", n, time.time() - ago)
    runner = bench.runner(lab("http://127.0.0.1:9/v1", rate_limit=RateLimit(3, 60)))
    run = asyncio.create_task(runner.run())
    await until(lambda: "lab" in runner._admissions and runner._admissions["lab"].waiting == 1)
    assert runner._admissions["lab"].throttle.used == 2
    assert runner._admissions["lab"].throttle.paused_for > 590
    runner.halt()
    await run


async def test_a_pause_that_a_clock_set_back_made_longer_is_an_hour_at_most(bench: Bench) -> None:
    bench.submit(request(1))
    attempts.record_pause(bench.connection, "lab", time.time() + 30 * 86400)
    runner = bench.runner(lab("http://127.0.0.1:9/v1"))
    run = asyncio.create_task(runner.run())
    await until(lambda: "lab" in runner._admissions and runner._admissions["lab"].waiting == 1)
    assert 3590 < runner._admissions["lab"].throttle.paused_for <= 3600
    runner.halt()
    await run


async def test_a_disk_that_is_full_stops_everything_and_the_next_run_mends_it(bench: Bench) -> None:
    """The ledger's file may not grow while five calls are in flight: what was paid then is paid again, and no more."""
    door = Door()
    async with vendor(door) as base_url:
        bench.submit(*(request(number) for number in range(100)))
        runner = bench.runner(lab(base_url, concurrency=5))
        run = asyncio.create_task(runner.run())
        await until(lambda: door.inside == 5)
        bench.set("CREATE TABLE ballast (content BLOB)")
        bench.set(f"PRAGMA max_page_count = {bench.one('PRAGMA page_count')}")
        with contextlib.suppress(sqlite3.OperationalError):  # database or disk is full
            while True:
                bench.set("INSERT INTO ballast VALUES (zeroblob(100))")
        door.open.set()
        await run
        assert {type(stop) for stop in runner.stops} == {DiskFull}
        first = len(door.prompts)
        bench.set("PRAGMA max_page_count = 1000000")
        runner = await bench.run(lab(base_url, concurrency=5))
    assert runner.stops == []
    assert bench.ask("SELECT status, count(*), sum(received) FROM request GROUP BY status") == [("succeeded", 100, 100)]
    again = len(door.prompts) - 100
    assert bench.one("SELECT sum(maybe_paid) FROM request") == again <= 5
    assert first >= 5


async def test_a_bug_ends_the_run_with_its_own_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Dispatcher", lambda *_: 1 / 0)
    bench.submit(request(1))
    with pytest.raises(ExceptionGroup) as raised:
        await bench.run(lab("http://127.0.0.1:9/v1"))
    assert raised.group_contains(ZeroDivisionError)


async def test_with_nothing_to_do_a_run_calls_nobody_and_ends(bench: Bench) -> None:
    runner = await bench.run(lab("http://127.0.0.1:9/v1"))
    assert (runner.stops, bench.events) == ([], [])


async def test_a_run_leaves_nothing_behind_in_the_loop(bench: Bench) -> None:
    door = Door()
    door.open.set()
    before = asyncio.all_tasks()
    async with vendor(door) as base_url:
        bench.submit(request(1, n=10))
        await bench.run(lab(base_url, rate_limit=RateLimit(50, 60)))
        await asyncio.sleep(0)
        assert "throttle" not in {task.get_name() for task in asyncio.all_tasks() - before}

"""What becomes of the orders of workers that die, hang or lose their lease, and of the room that their calls hold."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.config.load import Config, RateLimit
from pipeline.config.workers import WorkerSettings
from pipeline.engine.worker_events import WorkerLost, WorkersReady
from pipeline.errors import ConfigError
from pipeline.ledger import workers as ledger_workers
from pipeline.ray import lease, service, worker, worker_records
from pipeline.ray.messages import Work
from tests.support.workbench import PNG, PNG_BASE64, answer_with, benched, lab, request, until, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.ray.pool import Pool
    from tests.support.workbench import Bench, Body
    from tests.support.workers_here import ClusterHere

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

LEASE = 1.5


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An output folder with a ledger, and leases that are short."""
    for module in (ledger_workers, lease, worker):
        monkeypatch.setattr(module, "LEASE_SECONDS", LEASE)
    monkeypatch.setattr(service, "POLL_SECONDS", LEASE / 4)
    monkeypatch.setattr(service, "ORPHAN_SECONDS", 1.0)
    with benched(tmp_path) as made:
        yield made


@pytest.fixture
async def pool(bench: Bench) -> AsyncIterator[tuple[Pool, ClusterHere]]:
    """Two workers."""
    from tests.support.workers_here import workers_here

    async with workers_here(bench) as made:
        await until(lambda: len(made[0].workers) == 2)
        yield made


def _lost(bench: Bench) -> list[WorkerLost]:
    return [event for event in bench.events if isinstance(event, WorkerLost)]


class Server:
    """Answers a call once it may, and knows how many have come."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.may_answer = asyncio.Event()

    async def answer(self, body: Body) -> web.Response:
        self.calls.append(body["prompt"])
        await self.may_answer.wait()
        return answer_with({"b64_json": PNG_BASE64})


async def test_calls_of_a_dead_worker_are_unknown_after_its_lease_and_made_again_by_another(
    bench: Bench, pool: tuple[Pool, ClusterHere]
) -> None:
    server = Server()
    async with vendor(server.answer) as base_url:
        bench.submit(*(request(number) for number in range(3)))
        run = asyncio.create_task(bench.run(lab(base_url)))
        await until(lambda: len(server.calls) == 3)
        victim = next(handle for handle in pool[1].handles if handle.actor._service._tasks)
        died_at = time.monotonic()
        victim.actor.die()
        pool[1].replace(victim)
        server.may_answer.set()
        await run
    assert sum(one.calls for one in _lost(bench)) == 3
    assert set(bench.statuses().values()) == {"succeeded"}
    ended = bench.ask("SELECT outcome, ended_at - sent_at FROM attempt ORDER BY pk")
    assert [outcome for outcome, _ in ended] == ["unknown"] * 3 + ["answered"] * 3
    assert time.monotonic() - died_at >= LEASE / 2
    assert bench.one("SELECT sum(maybe_paid) FROM request") == 3
    assert len(server.calls) == 6
    assert bench.one("SELECT error FROM attempt").count("was lost during this call") == 1


async def test_a_worker_that_does_not_answer_sends_nothing_after_its_lease_and_ends_itself(
    bench: Bench, pool: tuple[Pool, ClusterHere]
) -> None:
    """The run is not heard of any more: what it had handed out is not sent, whoever may do it now."""
    from pipeline.client.request import Call
    from pipeline.engine.image_writer import FileNames
    from pipeline.ray.messages import CallOrder

    server = Server()
    async with vendor(server.answer) as base_url:
        runner = bench.runner(lab(base_url))
        bench.submit(request(1))
        run = asyncio.create_task(runner.run())
        await until(lambda: len(server.calls) == 1)
        (busy,) = (one for one in pool[1].handles if one.actor._service._tasks)
        actor = busy.actor
        vars(pool[1])["restart"] = lambda _handle: None  # nobody kills it
        actor.hung = asyncio.Event()  # no poll arrives, so no lease is extended
        await until(lambda: actor._service._lease.over_for > 0)
        order = CallOrder(
            99, "lab", Call("generation", {"prompt": "late", "n": 1}), FileNames("j", "a", None), frozenset()
        )
        actor._service.take(float("-inf"), 99, [order])
        await until(lambda: any(getattr(report, "id", None) == 99 for report in actor._service._reports))
        await until(actor.death.is_set)
        server.may_answer.set()
        await run
    assert "late" not in server.calls
    assert "it does not answer" in {one.reason for one in _lost(bench)}
    assert set(bench.statuses().values()) == {"succeeded"}


async def test_a_url_that_a_worker_reported_is_fetched_by_another_and_not_bought(
    bench: Bench, pool: tuple[Pool, ClusterHere]
) -> None:
    asked, calls, may_serve = 0, 0, asyncio.Event()

    async def answer(_: Body) -> web.Response:
        nonlocal calls
        calls += 1
        return answer_with({"url": f"{base_url.removesuffix('/v1')}/image/a?expires=9999999999"})

    async def image(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await may_serve.wait()
        return web.Response(body=PNG)

    async with vendor(answer, image) as base_url:
        bench.submit(request(1))
        run = asyncio.create_task(bench.run(lab(base_url)))
        await until(lambda: asked == 1)
        victim = next(handle for handle in pool[1].handles if handle.actor._service._tasks)
        victim.actor.die()
        pool[1].replace(victim)
        may_serve.set()
        await run
    assert (calls, asked) == (1, 2)
    assert bench.ask("SELECT outcome FROM attempt") == [("answered",)]
    assert bench.ask("SELECT maybe_paid FROM request") == [(0,)]


async def test_the_room_of_a_call_that_a_lost_worker_may_have_sent_is_held_for_a_window_after_its_lease(
    bench: Bench, pool: tuple[Pool, ClusterHere]
) -> None:
    """A worker dies with its first call, which nobody has reported as sent; the limit is one call per window."""
    window, moments = 1.5, list[float]()

    async def answer(_: Body) -> web.Response:
        moments.append(time.monotonic())
        return answer_with({"b64_json": PNG_BASE64})

    async with vendor(answer) as base_url:
        for handle in pool[1].handles:
            vars(handle.actor)["take"] = _swallow  # it dies with what it was handed
        bench.submit(request(1))
        limit = RateLimit(images=1, per_seconds=window, margin=1.0)
        run = asyncio.create_task(bench.run(lab(base_url, rate_limit=limit)))
        await until(lambda: any(one.tickets for one in pool[0].workers))
        handed_out = time.monotonic()
        for handle in pool[1].handles:
            handle.actor.die()
            pool[1].replace(handle)
        await run
    assert len(moments) == 1
    assert moments[0] >= handed_out + window + LEASE / 2
    assert bench.ask("SELECT outcome FROM attempt ORDER BY pk") == [("unknown",), ("answered",)]


async def _swallow(*_: object) -> None:
    """Lose a block."""


async def test_a_block_that_did_not_arrive_is_sent_again_and_one_that_did_is_done_once(
    bench: Bench, pool: tuple[Pool, ClusterHere], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_RESEND_SECONDS", 0.0)
    dropped: list[int] = []
    for handle in pool[1].handles:
        take = handle.actor.take

        async def lossy(*arguments: Any, take: Any = take) -> None:
            if len(dropped) < 2:
                dropped.append(1)
                return
            await take(*arguments)
            await take(*arguments)

        vars(handle.actor)["take"] = lossy
    server = Server()
    server.may_answer.set()
    async with vendor(server.answer) as base_url:
        bench.submit(*(request(number) for number in range(5)))
        await bench.run(lab(base_url))
    assert len(dropped) == 2
    assert sorted(server.calls) == [f"prompt {number}" for number in range(5)]
    assert sum(one.calls for one in _lost(bench)) == 0


async def test_a_record_of_the_workers_that_is_late_does_not_outlive_the_run(
    bench: Bench, pool: tuple[Pool, ClusterHere], monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writing, may_write, has_written = threading.Event(), threading.Event(), threading.Event()

    def record_late(*facts: Any) -> None:
        is_writing.set()
        may_write.wait()
        ledger_workers.record_workers(*facts)
        has_written.set()

    async with worker_records.WorkerRecords(bench.folder).kept(pool[0]):
        monkeypatch.setattr(worker_records, "record_workers", record_late)
        await until(is_writing.is_set)
        asyncio.get_running_loop().call_later(0.1, may_write.set)
    await until(has_written.is_set)
    assert bench.ask("SELECT * FROM worker_lease") == []


async def test_without_any_worker_a_halt_withdraws_what_waits_and_nothing_counts_as_sent(
    bench: Bench, pool: tuple[Pool, ClusterHere]
) -> None:
    async with vendor(Server().answer) as base_url:
        runner = bench.runner(lab(base_url))
        for handle in pool[1].handles:
            handle.actor.die()  # and nothing takes its place
        await until(lambda: not pool[0].workers)
        bench.submit(request(1))
        run = asyncio.create_task(runner.run())
        await until(lambda: pool[0]._waiting)
        runner.halt()
        pool[0].halt()
        await run
    assert bench.statuses() == {next(iter(bench.statuses())): "pending"}
    assert bench.ask("SELECT outcome FROM attempt") == [("not_sent",)]
    assert bench.ask("SELECT attempts, maybe_paid FROM request") == [(0, 0)]


async def test_a_first_worker_that_is_slow_to_start_is_waited_for_if_processors_are_free(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.workers_here import ClusterHere, workers_here

    monkeypatch.setattr("pipeline.ray.pool.START_SECONDS", 0.05)
    may_start = asyncio.Event()

    async def admit_late(*_: object) -> bool:
        return await may_start.wait()

    async def start_late() -> None:
        await until(lambda: bench.events)
        may_start.set()

    monkeypatch.setattr(ClusterHere, "admits", admit_late)
    starting = asyncio.create_task(start_late())
    async with workers_here(bench):
        await starting
    assert bench.events[:1] == [WorkersReady(0, 2, 0)], "said after START_SECONDS"
    monkeypatch.setattr(ClusterHere, "has_room", lambda _: False)
    may_start.clear()
    with pytest.raises(ConfigError, match="Ray placed no worker within "):
        async with workers_here(bench):
            pass


def _fail(*_: object, **_more: object) -> None:
    raise TypeError("a bug")


async def test_an_unexpected_error_of_a_workers_keeper_ends_the_start_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.workers_here import ClusterHere, workers_here

    began = time.monotonic()
    monkeypatch.setattr(ClusterHere, "actor", _fail)
    with pytest.raises(TypeError, match="a bug"):
        async with workers_here(bench):
            pass
    assert time.monotonic() - began < 5


async def test_an_unexpected_error_of_a_workers_keeper_ends_a_run(bench: Bench) -> None:
    from tests.support.workers_here import workers_here

    server = Server()

    async def spoil(pool: Pool) -> None:
        await until(lambda: server.calls)
        for remote in pool.workers:
            remote._handle = _fail
        server.may_answer.set()

    async def run() -> None:
        async with vendor(server.answer) as base_url, workers_here(bench) as (pool, _):
            bench.submit(request(1))
            await asyncio.gather(spoil(pool), bench.run(lab(base_url)))

    with pytest.raises(TypeError, match="a bug"):
        await run()


async def test_an_unexpected_error_of_the_watch_over_ray_ends_the_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.ray import session
    from tests.support.workers_here import ClusterHere

    @contextlib.asynccontextmanager
    async def connected(*_: object) -> AsyncIterator[str]:
        yield "127.0.0.1:1"

    cluster = ClusterHere()
    monkeypatch.setattr(session, "connected", connected)
    monkeypatch.setattr(session, "Cluster", lambda *_: cluster)
    monkeypatch.setattr(session, "find_address_fault", _fail)
    monkeypatch.setattr(session, "_LOOK_SECONDS", 0.01)
    config = Config(None, bench.folder, None, {})
    with pytest.raises(TypeError, match="a bug"):
        async with session.ray_session(WorkerSettings(processes=1), config, {}, (), bench.events.append):
            await asyncio.Event().wait()
    await cluster.end()


async def test_a_worker_whose_lease_watch_fails_ends_itself_and_tells_why(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = asyncio.Event()
    made = service.Service(Work(bench.folder, None, {}, {}), ended.set)
    vars(made)["_lease"] = None
    await ended.wait()
    assert "AttributeError" in capsys.readouterr().err
    await made._stack.aclose()

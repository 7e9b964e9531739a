"""Modes: what goes by batch and what in realtime; deadlines; changes while a run is at work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.load import Config, RateLimit
from pipeline.engine.batches.modes import Modes
from pipeline.engine.events import BatchCollected, BatchMoved, CallSent, Stopped
from pipeline.engine.stop_policy import StopPolicy
from pipeline.errors import BatchRefused
from pipeline.ledger import attempts, recovery
from pipeline.ledger.controls import throttle
from pipeline.ledger.database import open_ledger, transaction
from pipeline.ledger.writer import Writer
from tests.support.batch_server import (
    batch_lab,
    batch_service,
    done,
    edited,
    fates,
    kinds,
    outcomes,
    painted,
    queue,
    refusal,
    unanswered,
)
from tests.support.workbench import ALL, PNG_BASE64, answer_with, lab, models, request, until

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.config.load import Provider
    from tests.support.batch_server import BatchServer
    from tests.support.workbench import Bench


def realtime(server: BatchServer) -> int:
    return server.count("POST /images/generations") + server.count("POST /images/edits")


async def set_beside(bench: Bench, statement: str, *values: Any) -> None:
    """Change the ledger as another process does."""

    def change() -> None:
        with contextlib.closing(open_ledger(bench.folder)) as other, transaction(other):
            other.execute(statement, values)

    await asyncio.to_thread(change)


async def test_a_job_in_realtime_makes_no_batch_and_one_in_batch_no_call(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1), mode="realtime")
        queue(bench, provider, painted(2), name="second")
        await bench.run(provider)
        assert (fates(bench), fates(bench, "second")) == ({"succeeded": 1}, {"succeeded": 1})
        assert (realtime(server), len(server.batches)) == (1, 1)
        assert [event.job for event in kinds(bench, CallSent)] == ["job"]


async def test_auto_without_a_deadline_goes_by_batch(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1), edited(bench, 2, 16), mode="auto")
        await bench.run(provider)
        assert (fates(bench), realtime(server), len(server.batches)) == ({"succeeded": 2}, 0, 2)


async def test_what_is_ineligible_goes_in_realtime_with_auto_and_stops_with_batch(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        old = request(9)  # of dall-e-2
        queue(bench, provider, painted(1), old, mode="auto")
        await bench.run(provider)
        assert (fates(bench), realtime(server), len(server.batches)) == ({"succeeded": 2}, 1, 1)
        queue(bench, provider, painted(3), request(10), name="second")
        runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [BatchRefused]
        assert "--mode realtime" in str(runner.stops[0])
        assert fates(bench, "second") == {"succeeded": 1, "pending": 1}


async def test_a_provider_without_a_batch_api_goes_in_realtime_with_auto_and_stops_with_batch(bench: Bench) -> None:
    async with batch_service() as server:
        provider = lab(server.url)
        queue(bench, provider, painted(1), mode="auto")
        queue(bench, provider, painted(2), name="second")
        runner = await bench.run(provider)
        assert (fates(bench), fates(bench, "second")) == ({"succeeded": 1}, {"pending": 1})
        assert [type(stop) for stop in runner.stops] == [BatchRefused]


async def test_a_model_that_the_table_does_not_know_is_tried(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1, model="gpt-image-99"))
        await bench.run(provider)
        assert (fates(bench), len(server.batches)) == ({"succeeded": 1}, 1)


async def test_a_model_that_ends_before_a_batch_could_expire_goes_in_realtime_with_auto(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, expires_hours=24 * 3650.0)
        queue(bench, provider, painted(1, model="gpt-image-1.5"), mode="auto")
        await bench.run(provider)
        assert (fates(bench), realtime(server), len(server.batches)) == ({"succeeded": 1}, 1, 0)
        queue(bench, provider, painted(2, model="gpt-image-1.5"), name="second")
        await bench.run(provider)
        assert (fates(bench, "second"), len(server.batches)) == ({"succeeded": 1}, 1)


async def test_a_variation_that_is_served_as_an_edit_goes_by_batch(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, edited(bench, 1, 16))
        bench.set("UPDATE request SET operation = 'variation'")
        await bench.run(provider)
        assert (fates(bench), server.batches[0]["endpoint"]) == ({"succeeded": 1}, "/v1/images/edits")


async def test_a_refused_group_is_named_once_and_others_of_the_job_go_on_by_batch(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, most_requests=1)
        server.script("POST /batches", *[refusal("'x' is not supported by the Batch API")] * 1)
        queue(bench, provider, painted(1), mode="auto")
        await bench.run(provider)
        named = [event.what for event in kinds(bench, Stopped)]
        assert named == ["batches of job `job`, which is made in realtime instead"]
        assert fates(bench) == {"succeeded": 1}


async def deadline(bench: Bench, server: BatchServer, seconds: float, count: int = 4, **more: Any) -> Any:
    provider = batch_lab(server.url, more={"concurrency": 2, **more.pop("more", {})}, **more)
    queue(bench, provider, *(painted(number) for number in range(count)), mode="auto", deadline=time.time() + seconds)
    return await bench.run(provider)


async def test_a_deadline_that_batches_meet_changes_nothing(bench: Bench) -> None:
    async with batch_service() as server:
        await deadline(bench, server, 3600.0)
        assert (fates(bench), realtime(server)) == ({"succeeded": 4}, 0)
        assert bench.one("SELECT realtime_since FROM job") is None


async def test_a_deadline_that_has_passed_is_realtime_at_once(bench: Bench) -> None:
    async with batch_service() as server:
        await deadline(bench, server, -1.0)
        assert (fates(bench), realtime(server), len(server.batches)) == ({"succeeded": 4}, 4, 0)


async def test_near_its_deadline_the_rest_is_cancelled_and_made_in_realtime(bench: Bench) -> None:
    limit = RateLimit(4, 1.0, 1.0)
    async with batch_service(course=("in_progress",), work=lambda line: [unanswered(line)]) as server:
        kept = {"prompt 1"}
        server.work = lambda line: [done(line)] if line["body"]["prompt"] in kept else []
        began = time.time()
        await deadline(bench, server, 4.0, more={"rate_limit": limit})
        switched = bench.one("SELECT realtime_since FROM job")
        assert switched - began == pytest.approx(4.0 - 1.1 * 1.0, abs=1.2)  # it is looked at once a second
        assert time.time() - began < 4.5
        assert server.count("POST /batches/*/cancel") == 1
        assert (fates(bench), realtime(server)) == ({"succeeded": 4}, 3)
        assert outcomes(bench) == {"answered": 4, "refused": 3}


async def refreshed(bench: Bench, provider: Provider) -> Modes:
    """Decide the modes once, and send nothing."""
    config = Config(None, bench.folder, None, {provider.name: provider})
    async with Writer(bench.connection) as writer:
        modes = Modes(config, models(), ALL, writer, StopPolicy(lambda _event: None), bench.events.append)
        await modes.refresh()
    return modes


@pytest.mark.parametrize(
    ("rate_limit", "latency", "needed"),
    [
        (RateLimit(10, 100.0, 1.0), None, 1.1 * 40.0 + 7.0),
        (None, None, 1.1 * 2 * 60.0 + 7.0),
        (None, 5.0, 1.1 * 2 * 5.0 + 7.0),
    ],
)
async def test_the_switch_is_reckoned_from_the_limit_or_the_latency(
    bench: Bench, rate_limit: RateLimit | None, latency: float | None, needed: float
) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, cancel_seconds=7.0, more={"rate_limit": rate_limit, "concurrency": 2})
        if latency is not None:
            queue(bench, provider, painted(9), mode="realtime", name="first")
            await bench.run(provider)
            bench.set("UPDATE attempt SET sent_at = ended_at - ?", latency)
        queue(bench, provider, painted(1, n=3), painted(2), mode="auto")
        for seconds, is_realtime in ((needed + 5.0, False), (needed - 1.0, True)):
            bench.set("UPDATE job SET deadline = ? WHERE mode = 'auto'", time.time() + seconds)
            modes = await refreshed(bench, provider)
            assert modes.is_cancelled(bench.one("SELECT max(pk) FROM job")) == is_realtime
            assert (bench.one("SELECT realtime_since FROM job WHERE mode = 'auto'") is not None) == is_realtime
            assert bool(modes.groups("lab")) != is_realtime


async def test_a_lower_limit_by_a_person_makes_the_switch_earlier(bench: Bench) -> None:
    provider = batch_lab("http://127.0.0.1:9/v1", cancel_seconds=7.0, more={"rate_limit": RateLimit(10, 100.0, 1.0)})
    queue(bench, provider, painted(1, n=4), mode="auto", deadline=time.time() + 100)
    assert bool((await refreshed(bench, provider)).groups("lab")), "40 s, a tenth of that, and 7 s"
    throttle(bench.connection, "lab", 4)
    assert not (await refreshed(bench, provider)).groups("lab"), "100 s, a tenth of that, and 7 s"


async def test_jobs_that_share_a_limit_share_the_time(bench: Bench) -> None:
    provider = batch_lab("http://127.0.0.1:9/v1", more={"rate_limit": RateLimit(1, 10.0, 1.0)})
    now = time.time()
    for name, seconds in (("first", 60), ("later", 61), ("last", 3600)):
        queue(bench, provider, *map(painted, range(4)), mode="auto", name=name, deadline=now + seconds)
    await refreshed(bench, provider)
    assert [row[0] for row in bench.ask("SELECT realtime_since IS NULL FROM job ORDER BY pk")] == [1, 0, 1]


async def test_each_job_with_a_deadline_asks_the_ledger_one_more_question(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    do = Writer.do

    def count(self: Writer, statement: Any, *args: Any) -> Any:
        asked.append(statement)
        return do(self, statement, *args)

    monkeypatch.setattr(Writer, "do", count)
    provider = batch_lab("http://127.0.0.1:9/v1")
    questions = []
    for number in range(4):
        queue(bench, provider, painted(1), mode="auto", name=f"job {number}", deadline=time.time() + 9e5)
        await refreshed(bench, provider)
        questions.append(len(asked))
        asked.clear()
    assert questions == [questions[0] + number for number in range(4)]


async def test_the_switch_stays_over_restarts_until_there_is_a_new_deadline(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        switched = {"deadline": time.time() + 9e5, "realtime_since": time.time()}
        queue(bench, provider, painted(1), mode="auto", **switched)
        await bench.run(provider)
        assert (realtime(server), len(server.batches)) == (1, 0)
        queue(bench, provider, painted(1), painted(2), mode="auto", realtime_since=None)
        await bench.run(provider)
        assert (realtime(server), len(server.batches)) == (1, 1)


async def test_realtime_begins_when_a_batch_is_final_even_past_the_deadline(bench: Bench) -> None:
    async with batch_service(course=("in_progress",), work=lambda _line: []) as server:
        server.cancelled_as = (*["cancelling"] * 60, "cancelled")
        began = time.time()
        await deadline(bench, server, 1.0, 2, more={"rate_limit": RateLimit(100, 1.0, 1.0)})
        assert time.time() - began > 1.5
        assert (fates(bench), realtime(server)) == ({"succeeded": 2}, 2)
        last = max(place for place, call in enumerate(server.calls) if call == "GET /batches/*")
        assert server.calls.index("POST /images/generations") > last


async def test_a_job_goes_on_in_another_mode_and_nothing_is_made_twice(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, most_requests=2)
        server.courses = [("in_progress",), ("in_progress", "completed")]
        queue(bench, provider, *(painted(number) for number in range(4)), mode="batch")
        await bench.run(provider, waits=False)
        bench.set("UPDATE job SET mode = 'realtime'")
        queue(bench, provider, *(painted(number) for number in range(6)), mode="realtime")
        await bench.run(provider, waits=False)
        assert fates(bench) == {"running": 2, "succeeded": 4}
        assert realtime(server) == 2
        bench.set("UPDATE job SET mode = 'batch'")
        server._left[server.batches[0]["id"]] = ["completed"]
        queue(bench, provider, *(painted(number) for number in range(8)), mode="batch")
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 8}
        assert outcomes(bench) == {"answered": 8}
        assert bench.one("SELECT max(attempts) FROM request") == 1


async def test_a_change_to_batch_beside_a_run_makes_nothing_twice(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, more={"rate_limit": RateLimit(2, 3.0, 1.0), "concurrency": 8})
        queue(bench, provider, *(painted(number) for number in range(8)), mode="realtime")
        task = asyncio.create_task(bench.run(provider))
        await until(lambda: realtime(server) == 2)
        await set_beside(bench, "UPDATE job SET mode = 'batch'")
        await task
        assert fates(bench) == {"succeeded": 8}
        made = realtime(server) + sum(len(lines) for lines in server.inputs())
        assert (made, outcomes(bench)) == (8, {"answered": 8})


async def test_a_change_to_realtime_beside_a_run_leaves_what_is_out_and_makes_the_rest_at_once(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url, enqueued_tokens=10)
        queue(bench, provider, *(painted(number) for number in range(6)))
        task = asyncio.create_task(bench.run(provider))
        await until(lambda: kinds(bench, BatchMoved))
        await set_beside(bench, "UPDATE job SET mode = 'realtime'")
        await until(lambda: realtime(server) == 4)
        server._left[server.batches[0]["id"]] = ["completed"]
        await task
        assert (fates(bench), realtime(server)) == ({"succeeded": 6}, 4)
        assert outcomes(bench) == {"answered": 6}


async def test_work_that_is_submitted_beside_a_run_joins_it(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        task = asyncio.create_task(bench.run(provider))
        await until(lambda: server.batches)
        await asyncio.to_thread(bench.submit_beside, painted(2), provider=provider, name="second")
        await set_beside(bench, "UPDATE job SET mode = 'batch'")
        await until(lambda: len(server.batches) == 2 or realtime(server))
        for left in server._left.values():
            left.append("completed")
        await task
        assert (fates(bench), fates(bench, "second")) == ({"succeeded": 1}, {"succeeded": 1})


async def test_a_request_in_a_batch_is_neither_called_nor_put_back_by_a_worker_that_had_taken_it(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        await bench.run(provider, waits=False)
        with transaction(bench.connection):
            assert attempts.begin(bench.connection, 1, "lab", "x", 1, None, 1.0) is None
            recovery.requeue(bench.connection, 1)
        assert fates(bench) == {"running": 1}


async def test_a_group_fails_once_in_a_run_even_if_all_of_it_was_made_meanwhile(bench: Bench) -> None:
    over = asyncio.Event()

    async def slow(_http: web.Request) -> web.StreamResponse:
        await over.wait()
        return answer_with({"b64_json": PNG_BASE64})

    async with batch_service() as server:
        server.errors = [{"code": "server_error", "message": "no", "param": None, "line": None}]
        server.courses = [("failed",)]
        server.script("POST /images/generations", slow)
        provider = batch_lab(server.url)
        queue(bench, provider, painted(9), mode="realtime", name="slow")
        queue(bench, provider, painted(1))
        runner = bench.runner(provider)
        task = asyncio.create_task(runner.run())
        await until(lambda: kinds(bench, BatchCollected))
        server.courses = [("failed",)]
        await asyncio.to_thread(bench.submit_beside, painted(1), painted(2), provider=provider)
        await set_beside(bench, "UPDATE job SET mode = 'batch' WHERE name = 'job'")
        await until(lambda: len(server.batches) == 3)
        await until(lambda: runner.stops)
        over.set()
        await task
        assert ([type(stop) for stop in runner.stops], len(server.batches)) == ([BatchRefused], 3)

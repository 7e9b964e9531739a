"""One request on its way: what an answer brings is kept, what it lacks is asked for, and money is never forgotten."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.config.load import RateLimit, RetryRules
from pipeline.engine.events import CallEnded, CallSent, LimitLowered, ProviderDown, ProviderUp, RequestEnded
from pipeline.errors import DiskFull
from pipeline.ledger import attempts, submit
from pipeline.ledger.outages import Outage, read_outages
from pipeline.ledger.put_back import Selection, put_back
from tests.support.workbench import PNG, PNG_BASE64, Body, answer_with, lab, request, vendor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.workbench import Bench

ROW = "SELECT status, attempts, maybe_paid, received, moderated FROM request"
HERE = {"b64_json": PNG_BASE64}


class Vendor:
    """Answers a call with what a function of its number (from 0) gives, and remembers the bodies."""

    def __init__(self, *answers: Callable[[Body], Awaitable[web.StreamResponse] | web.StreamResponse]) -> None:
        self.answers = list(answers)
        self.bodies: list[Body] = []

    async def __call__(self, body: Body) -> web.StreamResponse:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.bodies.append(body)
        given = answer(body)
        return given if isinstance(given, web.StreamResponse) else await given

    @property
    def asked(self) -> list[int]:
        """The numbers of pictures that the calls asked for."""
        return [body["n"] for body in self.bodies]


def _whole(body: Body) -> web.Response:
    return answer_with(*[HERE] * body["n"])


def _busy() -> web.Response:
    return web.json_response({"error": {"message": "busy"}}, status=503)


def _files(bench: Bench) -> list[str]:
    return sorted(path.name for path in (bench.folder / "job" / "images").iterdir())


@pytest.mark.parametrize("answer", [HERE, {"url": "/picture/a.png"}], ids=["base64", "url"])
async def test_a_short_answer_keeps_what_came_and_asks_for_the_missing_number_only(
    bench: Bench, answer: dict[str, str]
) -> None:
    served = Vendor(lambda _: answer_with(*[answer] * 3), lambda _: answer_with(answer), _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=5))
        await bench.run(lab(base_url))
    assert served.asked == [5, 2, 1]
    assert bench.ask(ROW) == [("succeeded", 3, 0, 5, 0)]
    assert _files(bench) == [f"pool-{number}.png" for number in range(1, 6)]


async def test_short_answers_are_no_failures_and_do_not_use_up_the_attempts(bench: Bench) -> None:
    served = Vendor(lambda _: answer_with(HERE))
    async with vendor(served) as base_url:
        bench.submit(request(1, n=8))
        await bench.run(lab(base_url))
    assert served.asked == [8, 7, 6, 5, 4, 3, 2, 1]


async def test_a_moderated_picture_is_not_asked_for_again_until_a_person_resumes(bench: Bench) -> None:
    served = Vendor(lambda _: answer_with(HERE, {"respect_moderation": False}, HERE), lambda _: answer_with(HERE))
    async with vendor(served) as base_url:
        bench.submit(request(1, n=4))
        await bench.run(lab(base_url))
        assert served.asked == [4, 1]
        assert bench.ask(ROW) == [("partial", 2, 0, 3, 1)]
        error = json.loads(bench.one("SELECT error FROM request"))
        assert (error["code"], "1 of 4" in error["message"]) == ("moderation_blocked", True)
        put_back(bench.connection, Selection(kinds=frozenset({"Moderated"})))
        await bench.run(lab(base_url))
    assert served.asked == [4, 1, 1]
    assert bench.ask(ROW) == [("succeeded", 3, 0, 4, 0)]


async def test_where_all_is_moderated_the_request_failed(bench: Bench) -> None:
    served = Vendor(lambda _: answer_with({"respect_moderation": False}))
    async with vendor(served) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    assert (served.asked, bench.ask(ROW)) == ([1], [("failed", 1, 0, 0, 1)])


async def test_more_pictures_than_asked_are_all_kept(bench: Bench) -> None:
    served = Vendor(lambda _: answer_with(*[HERE] * 4))
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=2))
        await bench.run(lab(base_url))
    assert bench.ask(ROW) == [("succeeded", 1, 0, 4, 0)]
    assert len(_files(bench)) == 4
    assert bench.one("SELECT cost_usd FROM request") == pytest.approx(0.064)


@pytest.mark.parametrize(
    ("error", "row"),
    [
        ({"code": "content_policy_violation", "message": "no"}, ("failed", 1, 0, 0, 0)),
        ({"type": "invalid_request_error", "message": "no"}, ("failed", 1, 0, 0, 0)),
        ({"message": "something went wrong"}, ("failed", 3, 3, 0, 0)),
    ],
)
async def test_an_error_that_comes_as_a_success_is_read(bench: Bench, error: Body, row: tuple[Any, ...]) -> None:
    async with vendor(Vendor(lambda _: web.json_response({"error": error}))) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    assert bench.ask(ROW) == [row]


async def test_of_an_answer_with_a_broken_picture_the_whole_ones_are_kept(bench: Bench) -> None:
    served = Vendor(lambda _: answer_with(HERE, {"b64_json": PNG_BASE64[:40]}, HERE), _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=3))
        await bench.run(lab(base_url))
    assert served.asked == [3, 1]
    assert bench.ask(ROW) == [("succeeded", 2, 0, 3, 0)]
    assert _files(bench) == ["pool-1.png", "pool-2.png", "pool-3.png"]
    assert bench.ask("SELECT attempt, state FROM image ORDER BY attempt, state") == [
        *((1, "lost"), (1, "stored"), (1, "stored")),
        (2, "stored"),
    ], "each image that is paid has a row"
    assert bench.one("SELECT count(*) FROM quarantine") == 1


@pytest.mark.parametrize(("unknown", "asked", "stored"), [(0, [10], 9), (1, [10, 1], 9), (2, [10, 1], 9)])
async def test_what_a_server_spoils_in_each_answer_is_bought_again_within_bounds(
    bench: Bench, unknown: int, asked: list[int], stored: int
) -> None:
    bench.retry = dataclasses.replace(bench.retry, unknown=unknown)
    served = Vendor(lambda body: answer_with(*[HERE] * (body["n"] - 1), {"b64_json": "AAAA"}))
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=10))
        await bench.run(lab(base_url))
    assert (served.asked, len(_files(bench))) == (asked, stored)
    assert bench.one("SELECT status FROM request") == "partial"
    assert bench.one("SELECT json_extract(error, '$.kind') FROM request") == "Unusable"
    assert bench.one("SELECT count(*) FROM image WHERE state = 'lost'") == 1


async def test_a_server_that_spoils_all_but_one_is_not_asked_again_and_again(bench: Bench) -> None:
    served = Vendor(lambda body: answer_with(HERE, *[{"b64_json": "AAAA"}] * (body["n"] - 1)))
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=10))
        await bench.run(lab(base_url))
    assert served.asked == [10, 9, 8]
    assert bench.one("SELECT status FROM request") == "partial"
    assert bench.ask("SELECT state, count(*) FROM image GROUP BY state") == [("lost", 24), ("stored", 3)]


async def test_a_url_on_a_host_that_never_answers_does_not_keep_the_run_from_ending(bench: Bench) -> None:
    bench.retry = dataclasses.replace(bench.retry, outage_hours=0.0001)
    dead = {"url": "http://127.0.0.1:9/picture/a?se=2099-01-01T00:00:00Z"}
    served = Vendor(lambda _: answer_with(dead))
    async with vendor(served) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    assert served.asked == [1]
    assert bench.ask("SELECT r.status, i.state, i.url FROM request r JOIN image i ON i.request = r.pk") == [
        ("failed", "paid", dead["url"])
    ]
    assert "has not answered for 0.0001 hours" in bench.one("SELECT json_extract(error, '$.message') FROM request")


async def test_a_url_on_a_host_that_answers_is_tried_until_it_expires(bench: Bench) -> None:
    bench.retry = dataclasses.replace(bench.retry, outage_hours=0.00001)
    asked: list[int] = []

    async def picture(_http: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(status=503) if len(asked) < 4 else web.Response(body=PNG)

    served = Vendor(lambda _: answer_with({"url": "/image/a?se=2099-01-01T00:00:00Z"}))
    async with vendor(served, picture) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    assert (len(asked), bench.ask(ROW)) == (4, [("succeeded", 1, 0, 1, 0)])


async def test_an_answer_without_one_whole_picture_may_have_been_paid_and_is_tried_again(bench: Bench) -> None:
    served = Vendor(lambda _: answer_with({"b64_json": "AAAA"}), _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool"))
        await bench.run(lab(base_url))
    assert bench.ask(ROW) == [("succeeded", 2, 1, 1, 0)]
    assert _files(bench) == ["pool-1.png"]


async def test_of_several_urls_only_the_lost_one_is_generated_again(bench: Bench) -> None:
    dead = {"url": "/nowhere?se=2020-01-01T00:00:00Z"}
    served = Vendor(lambda _: answer_with({"url": "/picture/a"}, dead, {"url": "/picture/b"}), _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=3))
        await bench.run(lab(base_url))
    assert served.asked == [3, 1]
    assert bench.ask("SELECT state, number, url FROM image ORDER BY pk") == [
        ("stored", 1, None),
        ("lost", 2, None),
        ("stored", 3, None),
        ("stored", 2, None),
    ]


async def test_each_url_is_in_the_ledger_before_its_download_begins(bench: Bench) -> None:
    seen: list[object] = []
    original = attempts.record_download

    def look(*arguments: Any) -> bool:
        seen.append(bench.one("SELECT count(*) FROM image WHERE state = 'paid'"))
        return original(*arguments)

    served = Vendor(lambda _: answer_with({"url": "/picture/a"}, {"url": "/picture/b"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "record_download", look)
        async with vendor(served) as base_url:
            bench.submit(request(1, n=2))
            await bench.run(lab(base_url))
    assert seen == [2, 1]


@pytest.mark.parametrize(("wanted", "asked", "received"), [(3, [2, 1], 3), (1, [2], 2)])
async def test_n_changed_by_a_submit_while_its_call_is_in_flight_holds_from_then_on(
    bench: Bench, wanted: int, asked: list[int], received: int
) -> None:
    def change(body: Body) -> web.Response:
        bench.submit_beside(request(1, n=wanted))
        return _whole(body)

    served = Vendor(change, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, n=2))
        await bench.run(lab(base_url))
    assert served.asked == asked
    assert bench.ask("SELECT status, received, n FROM request") == [("succeeded", received, wanted)]


async def test_n_lowered_while_a_refused_call_waits_for_its_next_try_ends_the_request(bench: Bench) -> None:
    def refuse(_: Body) -> web.Response:
        bench.submit_beside(request(1, n=1))
        return web.json_response({"error": {"message": "busy"}}, status=503)

    served = Vendor(lambda _: answer_with(HERE), refuse, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, n=3))
        await bench.run(lab(base_url))
    assert served.asked == [3, 2]
    assert bench.ask("SELECT status, received, error FROM request") == [("succeeded", 1, None)]


async def test_a_request_that_leaves_its_job_while_its_call_is_in_flight_keeps_its_picture(bench: Bench) -> None:
    def leave(body: Body) -> web.Response:
        bench.submit_beside(request(2, id="pool"))
        return _whole(body)

    served = Vendor(leave, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool"))
        await bench.run(lab(base_url))
    assert len(served.bodies) == 2
    assert bench.ask("SELECT status, received, stated FROM request ORDER BY pk") == [
        ("succeeded", 1, 1),
        ("succeeded", 1, 2),
    ]
    assert _files(bench) == sorted([f"pool-{request(2).key[:8]}-1.png", "pool-1.png"])


async def test_a_request_cancelled_in_another_try_s_wait_is_left_alone(bench: Bench) -> None:
    def refuse(_: Body) -> web.Response:
        bench.set("UPDATE request SET status = 'cancelled'")
        return web.json_response({"error": {"message": "busy"}}, status=503)

    served = Vendor(refuse, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    assert (len(served.bodies), bench.one("SELECT status FROM request")) == (1, "cancelled")


async def test_a_job_that_is_cancelled_during_its_calls_is_not_called_again(bench: Bench) -> None:
    def refuse(_: Body) -> web.Response:
        submit.cancel(bench.connection, "job")
        return web.json_response({"error": {"message": "busy"}}, status=503)

    def answer(body: Body) -> web.StreamResponse:
        submit.cancel(bench.connection, "images")
        return _whole(body)

    served = Vendor(refuse, answer, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
        assert (len(served.bodies), bench.one("SELECT status FROM request")) == (1, "cancelled")
        assert "busy" in bench.one("SELECT error FROM request")
        many = request(2, n=3)
        bench.submit(many, name="images")
        one_by_one = lab(base_url, images_per_call=1)
        await bench.run(one_by_one)
        assert (len(served.bodies), bench.statuses("images")) == (2, {many.id: "cancelled"})
        put_back(bench.connection, Selection(("images",)))
        await bench.run(one_by_one)
        assert (len(served.bodies), bench.statuses("images")) == (4, {many.id: "succeeded"})


async def test_a_picture_that_was_paid_and_could_not_be_filed_is_counted_when_the_run_ends(bench: Bench) -> None:
    (bench.folder / "job").mkdir()
    (bench.folder / "job" / "images").touch()  # no folder can be made here
    async with vendor(Vendor(_whole)) as base_url:
        bench.submit(request(1), request(2))
        runner = await bench.run(lab(base_url, concurrency=1))
    assert [type(stop) for stop in runner.stops] == [DiskFull]
    assert bench.ask("SELECT status, attempts, maybe_paid FROM request ORDER BY pk") == [
        ("pending", 1, 1),
        ("pending", 0, 0),
    ]
    assert bench.ask("SELECT outcome FROM attempt") == [("unknown",)]


async def test_a_call_that_a_halt_overtakes_is_written_off_and_never_sent(bench: Bench) -> None:
    begin = attempts.begin
    served = Vendor(_whole)
    async with vendor(served) as base_url:
        bench.submit(request(1), budget_usd=1)
        runner = bench.runner(lab(base_url))
        loop = asyncio.get_running_loop()

        def begin_and_halt(*arguments: Any) -> Any:
            begun = begin(*arguments)
            loop.call_soon_threadsafe(runner.halt)
            return begun

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attempts, "begin", begin_and_halt)
            await runner.run()
    assert served.bodies == []
    assert bench.ask("SELECT status, attempts FROM request") == [("pending", 0)]
    assert bench.ask("SELECT outcome FROM attempt") == [("not_sent",)]


async def test_a_cut_answer_may_have_been_paid_and_a_refused_connection_is_free(bench: Bench) -> None:
    async def cut(_: Body) -> web.StreamResponse:
        raise asyncio.CancelledError  # the server drops the connection

    served = Vendor(cut, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
    assert bench.ask(ROW) == [("succeeded", 2, 1, 1, 0)]


async def test_calls_split_by_the_provider_s_most_and_the_params_go_along(bench: Bench) -> None:
    served = Vendor(_whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, n=5, user="me"))
        await bench.run(lab(base_url, images_per_call=2))
    assert served.asked == [2, 2, 1]
    assert served.bodies[0] == {"prompt": "prompt 1", "model": "dall-e-2", "size": "256x256", "user": "me", "n": 2}


async def test_a_lower_limit_that_a_429_states_makes_more_calls_of_those_in_line_and_is_said_once(
    bench: Bench,
) -> None:
    def refuse(body: Body) -> web.Response:
        if body["n"] <= 4:
            return _whole(body)
        error = {"message": "Limit: 4/1s. Please try again in 10ms.", "type": "requests"}
        return web.json_response({"error": error}, status=429)

    served = Vendor(refuse)
    async with vendor(served) as base_url:
        bench.submit(*(request(number, n=5) for number in range(2)))
        await bench.run(lab(base_url, rate_limit=RateLimit(6, 0.6)))
    assert served.asked[0] == 5
    assert sorted(served.asked[-4:]) == [1, 1, 4, 4]
    assert bench.ask("SELECT n FROM attempt WHERE outcome = 'answered' ORDER BY n") == [(1,), (1,), (4,), (4,)]
    lowered = [event for event in bench.events if isinstance(event, LimitLowered)]
    assert [(event.provider, event.images, event.per_seconds) for event in lowered] == [("lab", 4, 1.0)]
    assert {row[:3] for row in bench.ask("SELECT status, n, received FROM request")} == {("succeeded", 5, 5)}


async def test_an_upload_that_is_gone_is_found_before_its_call_is_one(bench: Bench) -> None:
    served = Vendor(_whole)
    async with vendor(served) as base_url:
        bench.submit(request(1), request(2))
        gone = json.dumps([{"role": "image", "file": "inputs/gone.png", "content_type": "image/png"}])
        bench.set("UPDATE request SET served_by = 'edit', inputs = ? WHERE prompt = 'prompt 1'", gone)
        await bench.run(lab(base_url, rate_limit=RateLimit(1, 0.01)))
    assert bench.ask(ROW) == [("failed", 0, 0, 0, 0), ("succeeded", 1, 0, 1, 0)]
    assert "gone.png cannot be read" in bench.one("SELECT error FROM request")
    assert bench.one("SELECT count(*) FROM attempt") == 1
    assert [type(event).__name__ for event in bench.events].count("CallSent") == 1


async def test_an_upload_that_is_gone_is_no_answer_of_a_provider_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.circuit_breaker.FIRST_PROBE", 0.01)
    monkeypatch.setattr("pipeline.engine.circuit_breaker.LONGEST_PROBE", 0.01)
    served = Vendor(lambda _: _busy() if len(served.bodies) < 12 else _whole({"n": 1}))
    bench.retry = RetryRules(attempts=50, max_wait_seconds=0.01)
    async with vendor(served) as base_url:
        bench.submit(*(request(number) for number in range(8)))
        gone = json.dumps([{"role": "image", "file": "inputs/gone.png", "content_type": "image/png"}])
        bench.set("UPDATE request SET served_by = 'edit', inputs = ? WHERE prompt = 'prompt 7'", gone)
        await bench.run(lab(base_url, concurrency=7))
    assert [type(event) for event in bench.events if isinstance(event, ProviderDown | ProviderUp)] == [
        ProviderDown,
        ProviderUp,
    ]
    assert bench.one("SELECT attempts FROM request WHERE prompt = 'prompt 7'") == 0


async def test_the_events_tell_the_way_of_a_request(bench: Bench) -> None:
    async with vendor(Vendor(_whole)) as base_url:
        bench.submit(request(1, id="pool"))
        await bench.run(lab(base_url))
    assert [type(event).__name__ for event in bench.events] == ["CallSent", "CallEnded", "ImageStored", "RequestEnded"]
    sent, ended, _, end = bench.events
    assert sent == CallSent("job", "pool", "lab", 1)
    assert isinstance(ended, CallEnded)
    assert ended.cost_usd == pytest.approx(0.016)
    assert ended.error is None
    assert end == RequestEnded("job", "pool", "succeeded", None)


async def test_a_provider_that_goes_away_and_comes_back_is_said_once_each(bench: Bench) -> None:
    def away() -> list[type[object]]:
        return [type(event) for event in bench.events if isinstance(event, ProviderDown | ProviderUp)]

    def answer(body: Body) -> web.Response:
        if away():
            recorded.append(read_outages(bench.connection).get("lab"))
        return _whole(body) if away() else _busy()

    recorded: list[Outage | None] = []
    bench.retry = RetryRules(attempts=50, max_wait_seconds=0.01)
    served = Vendor(answer)
    before = time.time()
    async with vendor(served) as base_url:
        bench.submit(*(request(number) for number in range(8)))
        await bench.run(lab(base_url))
    assert away() == [ProviderDown, ProviderUp]
    (down,) = [event for event in bench.events if isinstance(event, ProviderDown)]
    outage = next(outage for outage in recorded if outage is not None)
    assert (outage.until, outage.reason) == (down.given_up_at, down.reason)
    assert outage.until - outage.since == pytest.approx(bench.retry.start_minutes * 60)
    assert before <= outage.since <= time.time()
    assert recorded[-1] is None, "the last call was sent after the outage"
    assert {row[0] for row in bench.ask("SELECT status FROM request")} == {"succeeded"}


async def test_cancelled_mid_call_the_row_goes_back_and_the_next_start_counts_the_call(bench: Bench) -> None:
    in_flight = asyncio.Event()

    async def hang(_: Body) -> web.StreamResponse:
        in_flight.set()
        await asyncio.sleep(600)
        return web.Response()

    async with vendor(Vendor(hang)) as base_url:
        bench.submit(request(1))
        task = asyncio.create_task(bench.run(lab(base_url)))
        await in_flight.wait()
        task.cancel("second SIGINT")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bench.ask("SELECT status, maybe_paid FROM request") == [("pending", 0)]
        assert bench.one("SELECT outcome FROM attempt") is None
    async with vendor(Vendor(_whole)) as base_url:
        await bench.run(lab(base_url))
    assert bench.ask(ROW) == [("succeeded", 2, 1, 1, 0)]


async def test_a_paid_url_of_an_earlier_run_is_fetched_and_not_paid_again(bench: Bench) -> None:
    served = Vendor(_whole)
    async with vendor(served) as base_url:
        bench.submit(request(1, id="pool", n=2))
        (queued,) = bench.works()
        begun = attempts.begin(bench.connection, 1, "lab", base_url, 2, None, 1)
        assert begun is not None
        url = attempts.ImageUrl(1, base_url.replace("/v1", "/picture/a"), time.time() + 600, None)
        reply = attempts.ResponseRecord(200, None, None, None, 1, 2)
        attempts.record_response(bench.connection, queued, begun[0], reply, [url], [])
        await bench.run(lab(base_url))
    assert served.asked == [1]
    assert (bench.folder / "job" / "images" / "pool-1.png").read_bytes() == PNG
    assert bench.ask(ROW) == [("succeeded", 2, 0, 2, 0)]


async def test_a_probe_that_is_called_off_does_not_keep_the_others_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.circuit_breaker.FAILURES", 8)
    bench.retry = RetryRules(attempts=50, max_wait_seconds=0.5)  # so that none calls again before all eight have

    def answer(body: Body) -> web.Response:
        if any(isinstance(event, ProviderDown) for event in bench.events):
            return _whole(body)
        if len({body["prompt"] for body in served.bodies}) == 8:
            bench.set("UPDATE request SET status = 'cancelled' WHERE prompt != 'prompt 7'")
        return _busy()

    served = Vendor(answer)
    async with vendor(served) as base_url:
        bench.submit(*(request(number) for number in range(8)))
        await bench.run(lab(base_url, concurrency=8))
    assert bench.one("SELECT status FROM request WHERE prompt = 'prompt 7'") == "succeeded"
    assert bench.one("SELECT total(received) FROM request") == 1


async def test_a_budget_that_is_stated_while_the_run_works_counts_what_was_spent_before_the_run(bench: Bench) -> None:
    def limit(body: Body) -> web.Response:
        bench.submit_beside(request(1), request(2), request(3), budget_usd=0.04)
        return _whole(body)

    served = Vendor(_whole, limit, _whole)
    async with vendor(served) as base_url:
        bench.submit(request(1))
        await bench.run(lab(base_url))
        bench.submit(request(1), request(2))
        runner = await bench.run(lab(base_url))
    assert [type(stop).__name__ for stop in runner.stops] == ["BudgetSpent"]
    assert len(served.bodies) == 2


@pytest.mark.parametrize("numbers", [range(0, 32, 4), range(8)], ids=["here and there", "at the beginning"])
async def test_requests_that_always_fail_end_after_their_attempts_and_hold_up_nobody(
    bench: Bench, numbers: range
) -> None:
    poisoned = {f"prompt {number}" for number in numbers}

    async def answer(body: Body) -> web.StreamResponse:
        return web.Response(status=500) if body["prompt"] in poisoned else answer_with(HERE)

    bench.submit(*(request(number) for number in range(32)))
    async with vendor(answer) as base_url:
        await bench.run(lab(base_url, concurrency=16))
    rows = bench.ask(
        "SELECT status, attempts FROM request WHERE prompt IN (SELECT value FROM json_each(?))",
        json.dumps(sorted(poisoned)),
    )
    assert [status for status, _ in rows] == ["failed"] * 8
    assert all(attempts <= 5 for _, attempts in rows), "three, and the probes of an outage that was none"
    assert bench.one("SELECT count(*) FROM request WHERE status = 'succeeded'") == 24
    assert len([event for event in bench.events if isinstance(event, ProviderDown)]) <= 1


@pytest.mark.parametrize("requests", [1, 4])
async def test_headers_beyond_all_measure_are_paid_twice_at_most_and_stop_the_provider(
    bench: Bench, requests: int
) -> None:
    served = Vendor(lambda _: web.json_response({"data": [HERE]}, headers={"X-Long": "a" * 120_000}))
    async with vendor(served) as base_url:
        bench.submit(*(request(number) for number in range(requests)))
        run = await bench.run(lab(base_url, concurrency=1))
    calls = Counter(body["prompt"] for body in served.bodies)
    assert (len(calls), max(calls.values())) in ({(1, 2)} if requests == 1 else {(3, 1), (3, 2)}), calls
    if requests > 1:
        (stop,) = run.stops
        assert "3 paid responses in a row brought no image" in stop.message
        assert "a header of more than 100 KB, or more than 512 headers" in stop.message
    assert bench.one("SELECT total(maybe_paid) FROM request") == len(served.bodies)


async def test_a_key_that_a_success_repeats_is_in_no_row(bench: Bench) -> None:
    key = "sk-lab-0123456789"
    bench.environment["LAB_KEY"] = key
    echo = {"revised_prompt": f"a cat {key}"}
    served = Vendor(
        lambda _: answer_with({**HERE, **echo}, {"url": f"/picture/a?k={key}", **echo}, usage={key: key}, size=key),
    )
    async with vendor(served) as base_url:
        bench.submit(request(1, n=2))
        await bench.run(lab(base_url, api_key_env="LAB_KEY"))
    assert bench.ask(ROW) == [("succeeded", 1, 0, 2, 0)]
    assert key not in "\n".join(bench.connection.iterdump())
    assert "***key***" in "\n".join(bench.connection.iterdump())

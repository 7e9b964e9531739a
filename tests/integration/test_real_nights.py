"""Nights as other people had them: one odd response ends nothing, and nothing is bought while nothing arrives."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.config.load import RateLimit, RetryRules
from pipeline.engine import circuit_breaker, delivery_breaker, refusal_guard
from pipeline.engine.events import ImagesLeftOut, UsageIgnored
from pipeline.errors import KeyRefused, ModelUnknown, NotDelivered, QuotaSpent, RepeatedRefusal, WrongAddress
from pipeline.reports.manifest import entries
from tests.support.scripted_server import response as reply
from tests.support.scripted_server import scripted
from tests.support.workbench import PNG, PNG_BASE64, Body, answer_with, lab, request, until, vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.workbench import Bench

HERE = {"b64_json": PNG_BASE64}
WORDS = {"error": {"message": "Forbidden", "code": 403}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits before a refusal is confirmed and before a probe."""
    monkeypatch.setattr(refusal_guard, "SAME_WAIT", 0.02)
    monkeypatch.setattr(refusal_guard, "OTHER_WAIT", 0.02)
    monkeypatch.setattr("pipeline.engine.failed_calls.FIRST_WAIT", 0.02)
    monkeypatch.setattr(delivery_breaker, "_FIRST_PROBE", 0.05)
    monkeypatch.setattr(delivery_breaker, "_LONGEST_PROBE", 0.05)


class Server:
    """Answers the call of each number (from 1) and body as `odd` says, else with an image."""

    def __init__(self, odd: Callable[[int, Body], web.StreamResponse | None]) -> None:
        self.odd = odd
        self.prompts: list[str] = []

    async def __call__(self, body: Body) -> web.StreamResponse:
        self.prompts.append(body["prompt"])
        number = len(self.prompts)
        return self.odd(number, body) or answer_with(*[HERE] * body.get("n", 1))


def refuse(status: int, body: Body | str = "", **headers: str) -> web.Response:
    """Return an error response."""
    if isinstance(body, str):
        return web.Response(status=status, text=body, headers=headers)
    return web.json_response(body, status=status, headers=headers)


async def night(bench: Bench, server: Server, count: int, **options: Any) -> Any:
    """Run this many requests, and return the runner."""
    async with vendor(server) as base_url:
        bench.submit(*(request(number) for number in range(count)))
        return await bench.run(lab(base_url, **{"concurrency": 2, **options}))


ODD: dict[str, Callable[[], web.Response]] = {
    "401": lambda: refuse(401, {"message": "Invalid API key"}),
    "402": lambda: refuse(402, {"error": {"message": "upstream account rotated", "type": "upstream_error"}}),
    "403": lambda: refuse(403, WORDS),
    "bare 404": lambda: refuse(404),
    "404 of a proxy": lambda: refuse(404, "404 page not found\n"),
    "404 of a router": lambda: refuse(404, {"error": {"message": "No endpoints found that support it", "code": 404}}),
    "404 of a model": lambda: refuse(404, {"error": {"code": "model_not_found", "message": "no such model"}}),
    "302": lambda: refuse(302, Location="https://status.example.org/maintenance"),
    "400": lambda: refuse(400, {"error": {"message": "Bad Request", "type": None, "code": None}}),
    "405": lambda: refuse(405),
    "empty 200": answer_with,
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_one_odd_answer_among_good_ones_is_met_by_another_call(bench: Bench, name: str, concurrency: int) -> None:
    server = Server(lambda number, _: ODD[name]() if number == 6 else None)
    runner = await night(bench, server, 12, concurrency=concurrency)
    assert (runner.stops, set(bench.statuses().values())) == ([], {"succeeded"})
    assert len(server.prompts) == 13


@pytest.mark.parametrize("name", ["401", "403", "bare 404", "302"])
async def test_before_the_first_success_in_the_ledger_one_refusal_stops(bench: Bench, name: str) -> None:
    server = Server(lambda *_: ODD[name]())
    runner = await night(bench, server, 12, concurrency=1)
    assert len(runner.stops) == 1
    assert (len(server.prompts), set(bench.statuses().values())) == (1, {"pending"})


@pytest.mark.parametrize("name", ["401", "403", "302"])
@pytest.mark.parametrize("concurrency", [1, 6])
async def test_a_refusal_that_repeats_for_different_requests_stops(bench: Bench, name: str, concurrency: int) -> None:
    server = Server(lambda number, _: ODD[name]() if number > 4 else None)
    runner = await night(bench, server, 30, concurrency=concurrency)
    assert [type(stop) for stop in runner.stops] == [WrongAddress if name == "302" else KeyRefused]
    statuses = list(bench.statuses().values())
    assert (statuses.count("succeeded"), statuses.count("pending")) == (4, 26)
    assert len(server.prompts) <= 4 + concurrency + 2


async def test_a_success_of_an_earlier_run_counts_and_a_revoked_key_still_stops(bench: Bench) -> None:
    server = Server(lambda number, _: ODD["401"]() if number > 1 else None)
    async with vendor(server) as base_url:
        bench.submit(request(0))
        await bench.run(lab(base_url))
        bench.submit(*(request(number) for number in range(10)))
        runner = await bench.run(lab(base_url, concurrency=1))
    assert [type(stop) for stop in runner.stops] == [KeyRefused]
    assert len(set(server.prompts)) == 3, "the first, the same again, and another one"


async def test_an_account_without_money_stops_once_another_request_is_refused_too(bench: Bench) -> None:
    server = Server(lambda number, _: ODD["402"]() if number > 4 else None)
    runner = await night(bench, server, 30, concurrency=1)
    assert [type(stop) for stop in runner.stops] == [QuotaSpent]
    assert server.prompts[4:] == ["prompt 4", "prompt 4", "prompt 5"]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_what_is_refused_for_one_request_while_others_pass_fails_that_request(
    bench: Bench, concurrency: int
) -> None:
    server = Server(lambda _, body: refuse(403, WORDS) if body["prompt"] == "prompt 3" else None)
    runner = await night(bench, server, 8, concurrency=concurrency)
    assert runner.stops == []
    statuses = list(bench.statuses().values())
    assert (statuses.count("succeeded"), statuses.count("failed")) == (7, 1)
    assert bench.one("SELECT json_extract(error, '$.message') FROM request WHERE status = 'failed'").startswith(
        "Forbid"
    )
    assert server.prompts.count("prompt 3") <= 3
    async with vendor(server) as base_url:  # and it never holds up the queue again
        bench.submit(*(request(number) for number in range(8)), request(20))
        bench.set("UPDATE request SET status = 'pending' WHERE status = 'failed'")
        runner = await bench.run(lab(base_url, concurrency=1))
    assert (runner.stops, list(bench.statuses().values()).count("succeeded")) == ([], 8)


async def test_the_last_request_alone_cannot_prove_that_it_is_to_blame(bench: Bench) -> None:
    server = Server(lambda _, body: refuse(403, WORDS) if body["prompt"] == "prompt 7" else None)
    runner = await night(bench, server, 8, concurrency=1)
    assert [type(stop) for stop in runner.stops] == [KeyRefused]
    assert list(bench.statuses().values()) == ["succeeded"] * 7 + ["pending"]


MODELS = ["plain", "picky", "plain", "picky", "plain", "picky", "plain", "plain", "plain", "plain"]


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "Your organization must be verified to use the model `picky`."), (403, "Forbidden"), (404, "model picky")],
)
async def test_a_stop_reaches_no_further_than_the_model_that_it_concerns(
    bench: Bench, status: int, message: str, concurrency: int
) -> None:
    error = {"message": message, "code": "model_not_found" if status == 404 else None}
    server = Server(lambda _, body: refuse(status, {"error": error}) if body["model"] == "picky" else None)
    async with vendor(server) as base_url:
        bench.submit(*(request(number, model=model) for number, model in enumerate(MODELS)))
        runner = await bench.run(lab(base_url, concurrency=concurrency))
    assert {type(stop) for stop in runner.stops} == {ModelUnknown if status == 404 else KeyRefused}
    made = dict(bench.ask("SELECT json_extract(params, '$.model') || status, count(*) FROM request GROUP BY 1"))
    assert made["plainsucceeded"] == 7
    assert made.get("pickypending", 0) + made.get("pickyfailed", 0) == 3
    assert made.get("pickyfailed", 0) <= 1


async def test_a_limit_of_one_model_slows_down_no_other(bench: Bench) -> None:
    message = "Rate limit reached for picky in organization org-x on images per min: Limit: 1/1h."
    error = {"message": message, "code": "rate_limit_exceeded"}
    refused: list[str] = []

    def odd(_: int, body: Body) -> web.Response | None:
        if body["model"] == "picky" and not refused:
            refused.append(body["prompt"])
            return refuse(429, {"error": error}, **{"Retry-After": "0.01"})
        return None

    waiting = "SELECT count(*) FROM request WHERE status != 'succeeded' AND json_extract(params, '$.model') = '{}'"
    server = Server(odd)
    async with vendor(server) as base_url:
        bench.submit(*(request(number, model=model) for number, model in enumerate(MODELS)))
        runner = bench.runner(lab(base_url, concurrency=4, rate_limit=RateLimit(6000, 60)))
        run = asyncio.create_task(runner.run())
        await until(lambda: bench.one(waiting.format("plain")) == 0)
        assert runner.lowered == {}
        assert bench.one(waiting.format("picky")) > 0
        runner.halt()
        await run


@pytest.mark.parametrize("concurrency", [1, 2, 16])
async def test_the_same_refusal_of_every_request_in_a_row_burns_no_queue(bench: Bench, concurrency: int) -> None:
    server = Server(lambda *_: refuse(400, {"code": "Unheard", "message": "Access denied, request id r1"}))
    runner = await night(bench, server, 60, concurrency=concurrency)
    assert [type(stop) for stop in runner.stops] == [RepeatedRefusal]
    assert set(bench.statuses().values()) == {"pending"}
    assert len(server.prompts) <= refusal_guard.IN_A_ROW + concurrency


async def test_a_request_that_is_invalid_fails_alone(bench: Bench) -> None:
    server = Server(lambda _, body: refuse(400, {"message": "bad size"}) if body["prompt"] == "prompt 2" else None)
    runner = await night(bench, server, 6)
    assert (runner.stops, list(bench.statuses().values()).count("failed")) == ([], 1)
    assert server.prompts.count("prompt 2") <= 2


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_call_that_may_be_paid_is_repeated_twice_at_most_and_after_others(
    bench: Bench, concurrency: int
) -> None:
    bench.retry = RetryRules(attempts=10, max_wait_seconds=0.01)
    server = Server(lambda _, body: refuse(524, "cut") if body["prompt"] == "prompt 0" else None)
    await night(bench, server, 6, concurrency=concurrency)
    assert server.prompts.count("prompt 0") == 3
    assert "prompt 0 prompt 0" not in " ".join(server.prompts[:3]), "another request is tried before the same one"
    assert bench.ask("SELECT status, maybe_paid FROM request WHERE prompt = 'prompt 0'") == [("failed", 3)]


async def test_with_no_repeats_allowed_a_call_that_may_be_paid_is_held_for_a_person(bench: Bench) -> None:
    bench.retry = RetryRules(attempts=10, unknown=0, max_wait_seconds=0.01)
    server = Server(lambda _, body: refuse(524, "cut") if body["prompt"] == "prompt 0" else None)
    await night(bench, server, 3)
    assert server.prompts.count("prompt 0") == 1
    assert bench.one("SELECT json_extract(error, '$.kind') FROM request WHERE status = 'failed'") == "OutcomeUnknown"


class Host:
    """An Images API whose images are at `url`; `there` decides whether a download succeeds."""

    def __init__(self, url: str = "/image/{number}") -> None:
        self.url = url
        self.calls = 0
        self.there = True

    async def __call__(self, body: Body) -> web.StreamResponse:
        self.calls += 1
        numbers = range(body["n"])
        return answer_with(*({"url": self.url.format(number=f"{self.calls}-{number}")} for number in numbers))

    async def give(self, _http: web.Request) -> web.Response:
        return web.Response(body=PNG) if self.there else web.Response(status=503)


async def nothing_arrives(bench: Bench, host: Host, concurrency: int, seconds: float = 1.0, **options: Any) -> Any:
    """Run sixty requests for at most this many seconds; return the runner."""
    async with vendor(host, host.give) as base_url:
        bench.submit(*(request(number) for number in range(60)))
        runner = bench.runner(lab(base_url, concurrency=concurrency, **options))
        run = asyncio.create_task(runner.run())
        await asyncio.wait([run], timeout=seconds)
        runner.halt()
        await run
    return runner


@pytest.mark.parametrize("concurrency", [2, 16])
async def test_an_image_host_that_cannot_be_reached_stops_purchases(bench: Bench, concurrency: int) -> None:
    host = Host("http://127.0.0.1:9/image/{number}")
    runner = await nothing_arrives(bench, host, concurrency)
    assert host.calls <= max(6, concurrency + delivery_breaker.OVERDUE)
    assert runner.stops == [], "time can help"
    assert set(bench.statuses().values()) == {"pending"}
    assert bench.one("SELECT count(*) FROM image WHERE state = 'paid'") == host.calls, "nothing paid is lost"


async def test_an_expiry_that_is_only_assumed_buys_nothing_again(bench: Bench) -> None:
    host = Host("http://127.0.0.1:9/image/{number}")
    runner = await nothing_arrives(bench, host, 2, seconds=8, url_ttl_seconds=0.2)
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    assert host.calls <= 6
    assert bench.one("SELECT max(attempts) FROM request") == 1
    assert bench.one("SELECT count(*) FROM image WHERE state = 'paid'") == host.calls


@pytest.mark.parametrize("concurrency", [1, 2, 16])
async def test_images_that_a_rule_refuses_stop_the_provider_with_the_option_that_allows_them(
    bench: Bench, concurrency: int
) -> None:
    host = Host("http://192.168.7.7/image/{number}")
    runner = await nothing_arrives(bench, host, concurrency, seconds=20)
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    assert "`picture_hosts: [192.168.7.7]`" in str(runner.stops[0])
    assert host.calls <= max(6, concurrency + delivery_breaker.OVERDUE)
    assert set(bench.statuses().values()) == {"pending"}
    assert bench.one("SELECT count(*) FROM image WHERE state = 'paid'") == host.calls


@pytest.mark.parametrize("good", [0, 6])
@pytest.mark.parametrize("concurrency", [1, 8])
async def test_urls_that_expire_before_their_downloads_stop_purchases(
    bench: Bench, concurrency: int, good: int
) -> None:
    class Expiring(Host):
        given = 0

        async def give(self, http: web.Request) -> web.Response:
            self.given += 1
            return await super().give(http) if self.given <= good else refuse(403, "Request has expired")

    host = Expiring()
    runner = await nothing_arrives(bench, host, concurrency, seconds=60)
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    late = concurrency  # URLs that expire while the last good images arrive
    repeats = bench.retry.unknown * delivery_breaker.OVERDUE  # of one request, before others show the same
    assert host.calls <= good + late + concurrency + delivery_breaker.OVERDUE + repeats + delivery_breaker.PROBES
    assert bench.one("SELECT count(*) FROM image WHERE state = 'stored'") == good


async def test_an_image_whose_urls_always_expire_is_bought_again_as_often_as_is_allowed(bench: Bench) -> None:
    host = Host("/image/{number}")

    async def answer(body: Body) -> web.StreamResponse:
        host.calls += 1
        expired = {"url": "/image/x?se=2020-01-01T00:00:00Z"}
        return answer_with(*({"url": f"/image/{host.calls}-{number}"} for number in range(body["n"] - 1)), expired)

    async def give(http: web.Request) -> web.Response:
        return refuse(403) if "se" in http.query else web.Response(body=PNG)

    bench.retry = RetryRules(attempts=10, unknown=2, max_wait_seconds=0.01)
    async with vendor(answer, give) as base_url:
        bench.submit(request(1, n=3))
        await bench.run(lab(base_url))
    assert host.calls == 3
    assert bench.ask("SELECT status, received, json_extract(error, '$.kind') FROM request") == [
        ("partial", 2, "UrlLost")
    ]


async def test_one_image_that_is_refused_fails_alone(bench: Bench) -> None:
    class Odd(Host):
        async def __call__(self, body: Body) -> web.StreamResponse:
            response = await super().__call__(body)
            return answer_with({"url": "http://192.168.7.7/x"}) if body["prompt"] == "prompt 3" else response

    host = Odd()
    runner = await nothing_arrives(bench, host, 2, seconds=60)
    assert (runner.stops, host.calls) == ([], 60)
    assert list(bench.statuses().values()).count("succeeded") == 59
    assert bench.one("SELECT json_extract(error, '$.kind') FROM request WHERE status = 'failed'") == "DownloadRefused"


async def test_when_images_arrive_again_everything_is_made_and_bought_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.caller._LONGEST_WAIT", 0.1)
    host = Host()
    host.there = False
    async with vendor(host, host.give) as base_url:
        bench.submit(*(request(number) for number in range(40)))
        run = asyncio.create_task(bench.run(lab(base_url, concurrency=8)))
        await until(lambda: host.calls >= 8)
        await asyncio.sleep(0.3)
        assert host.calls <= 8 + delivery_breaker.OVERDUE
        host.there = True
        await run
    assert (host.calls, set(bench.statuses().values())) == (40, {"succeeded"})


async def test_a_provider_that_this_ledger_knows_is_waited_for_when_a_run_starts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "NEVER_ANSWERED_SECONDS", 0.0)
    bench.retry = RetryRules(start_minutes=0.0)
    bench.submit(request(1), request(2))
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES (1, 'lab', 1, ?, ?, 'answered')",
        time.time() - 9000,
        time.time() - 8990,
    )
    runner = bench.runner(lab("http://127.0.0.1:9/v1"))
    run = asyncio.create_task(runner.run())
    await asyncio.wait([run], timeout=1.5)
    assert not run.done()
    runner.halt()
    await run
    assert runner.stops == []


@pytest.mark.parametrize("concurrency", [1, 2, 16])
async def test_responses_without_an_image_stop_after_few(bench: Bench, concurrency: int) -> None:
    server = Server(lambda *_: web.json_response({"code": 0, "msg": "ok", "data": None}))
    runner = await night(bench, server, 60, concurrency=concurrency)
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    assert len(server.prompts) <= max(6, concurrency + delivery_breaker.OVERDUE + delivery_breaker.PROBES)
    assert set(bench.statuses().values()) == {"pending"}


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_success_responses_that_always_break_off_are_no_outage(bench: Bench, concurrency: int) -> None:
    server = Server(lambda *_: web.Response(body=b"x" * 50, headers={"Content-Encoding": "gzip"}))
    runner = await night(bench, server, 60, concurrency=concurrency)
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    assert len(server.prompts) <= max(6, concurrency + delivery_breaker.OVERDUE + delivery_breaker.PROBES)
    assert set(bench.statuses().values()) == {"pending"}


_TWO_LENGTHS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}"


async def test_responses_that_never_are_valid_http_are_no_outage_of_a_provider_that_works(bench: Bench) -> None:
    well = reply(200, {"data": [HERE]}, "Connection: close")
    async with scripted(well, _TWO_LENGTHS) as server:
        bench.submit(*(request(number) for number in range(20)))
        runner = await bench.run(lab(server.url, concurrency=2))
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    assert "not valid HTTP" in str(runner.stops[0])
    repeats = bench.retry.unknown * delivery_breaker.OVERDUE  # of one request, before others show the same
    assert len(server.requests) <= 1 + 2 + delivery_breaker.OVERDUE + repeats + delivery_breaker.PROBES
    statuses = list(bench.statuses().values())
    assert statuses.count("succeeded") == 1
    assert statuses.count("failed") < delivery_breaker.OVERDUE, "repeated as often as is allowed"


@pytest.mark.parametrize("concurrency", [1, 2, 16])
async def test_images_that_are_not_valid_are_put_aside_and_stop_purchases(bench: Bench, concurrency: int) -> None:
    server = Server(lambda *_: answer_with({"b64_json": PNG_BASE64[:80]}))
    runner = await night(bench, server, 60, concurrency=concurrency)
    assert [type(stop) for stop in runner.stops] == [NotDelivered]
    assert "cut off" in str(runner.stops[0])
    assert len(server.prompts) <= max(6, concurrency + delivery_breaker.OVERDUE)
    (aside,) = {path.read_bytes() for path in (bench.folder / "job" / "quarantine").glob("*.bin")}
    assert aside == base64.b64decode(PNG_BASE64[:80])
    reasons = {path.read_text() for path in (bench.folder / "job" / "quarantine").glob("*.txt")}
    assert all("is a PNG that is cut off" in reason for reason in reasons)
    assert bench.one("SELECT count(DISTINCT request) FROM quarantine") == len(set(server.prompts))


async def test_one_image_that_is_not_valid_is_bought_once_more(bench: Bench) -> None:
    server = Server(lambda number, _: answer_with({"b64_json": PNG_BASE64[:80]}) if number == 3 else None)
    runner = await night(bench, server, 6)
    assert (runner.stops, set(bench.statuses().values()), len(server.prompts)) == ([], {"succeeded"}, 7)
    entry = next(one for one in entries(bench.connection, "job") if one["quarantined"])
    (aside,) = entry["quarantined"]
    assert (bench.folder / "job" / aside["file"]).read_bytes() == base64.b64decode(PNG_BASE64[:80])
    assert (aside["bytes"], entry["maybe_paid"]) == (60, 1)


async def test_an_image_that_is_never_valid_is_bought_twice(bench: Bench) -> None:
    broken = {"b64_json": PNG_BASE64[:80]}
    server = Server(lambda _, body: answer_with(broken) if body["prompt"] == "prompt 1" else None)
    await night(bench, server, 6)
    assert server.prompts.count("prompt 1") == 2
    assert list(bench.statuses().values()).count("succeeded") == 5


async def test_a_usage_far_below_the_price_table_does_not_stretch_the_budget_and_is_said_once(bench: Bench) -> None:
    tiny = {"input_tokens": 1, "output_tokens": 3, "total_tokens": 4}
    server = Server(lambda *_: answer_with(HERE, usage=tiny))
    params: dict[str, Any] = {"model": "gpt-image-1", "size": "1024x1024", "quality": "low"}
    async with vendor(server) as base_url:
        bench.submit(*(request(number, **params) for number in range(20)), budget_usd=0.1)
        await bench.run(lab(base_url, concurrency=1))
    assert 5 <= len(server.prompts) < 10
    said = [event for event in bench.events if isinstance(event, UsageIgnored)]
    assert [(event.provider, event.model) for event in said] == [("lab", "gpt-image-1")]


async def test_of_a_response_with_far_too_many_images_some_are_kept_and_the_others_are_said(bench: Bench) -> None:
    server = Server(lambda *_: answer_with(*[HERE] * 203))
    await night(bench, server, 1)
    said = [event for event in bench.events if isinstance(event, ImagesLeftOut)]
    assert [(event.returned, event.left_out) for event in said] == [(203, 3)]
    assert bench.one("SELECT count(*) FROM image WHERE state = 'stored'") == 200


async def test_an_image_without_its_end_mark_is_whole_and_has_a_remark(bench: Bench) -> None:
    server = Server(lambda *_: answer_with({"b64_json": base64.b64encode(PNG[:-12]).decode()}))
    await night(bench, server, 1)
    (entry,) = entries(bench.connection, "job")
    assert (entry["status"], entry["images"][0]["remark"]) == ("succeeded", "its end mark is missing")
    assert (bench.folder / "job" / entry["images"][0]["file"]).read_bytes() == PNG[:-12]


@pytest.mark.parametrize("name", ["524", "400", "503"])
async def test_a_request_that_confirms_a_refusal_and_fails_otherwise_holds_up_nobody(bench: Bench, name: str) -> None:
    bench.retry = RetryRules(attempts=10, max_wait_seconds=0.01)
    other = {"524": refuse(524), "400": refuse(400, {"message": "bad size"}), "503": refuse(503)}
    headers = {"Retry-After": "0.5"} if name == "503" else {}

    def odd(_: int, body: Body) -> web.Response | None:
        if body["prompt"] != "prompt 4":
            return None
        return refuse(403, WORDS) if server.prompts.count("prompt 4") == 1 else refuse(other[name].status, **headers)

    server = Server(odd)
    runner = await asyncio.wait_for(night(bench, server, 20, concurrency=1), 20)
    statuses = list(bench.statuses().values())
    assert (runner.stops, statuses.count("succeeded"), statuses.count("failed")) == ([], 19, 1)


@pytest.mark.parametrize("status", [400, 524])
async def test_a_probe_of_the_delivery_that_fails_otherwise_holds_up_nobody(bench: Bench, status: int) -> None:
    bench.retry = RetryRules(attempts=10, max_wait_seconds=0.01)

    def odd(number: int, _: Body) -> web.Response | None:
        if 4 < number <= 7:
            return answer_with()
        return refuse(status, {"message": "bad size"}) if number in {8, 9, 10} else None

    server = Server(odd)
    runner = await asyncio.wait_for(night(bench, server, 20, concurrency=1), 20)
    assert runner.stops == []
    assert list(bench.statuses().values()).count("succeeded") >= 18


async def test_a_request_that_is_refused_for_one_reason_and_then_another_holds_up_nobody(bench: Bench) -> None:
    refusals = [refuse(403, WORDS), refuse(404)]
    server = Server(lambda _, body: refusals.pop(0) if body["prompt"] == "prompt 4" and refusals else None)
    runner = await asyncio.wait_for(night(bench, server, 20, concurrency=1), 20)
    assert (runner.stops, list(bench.statuses().values()).count("failed")) == ([], 1)


@pytest.mark.parametrize("n", [1, 4])
async def test_a_request_whose_images_are_all_refused_ends(bench: Bench, n: int) -> None:
    server = Server(lambda _, body: answer_with(*[{"url": "http://127.0.0.2:9/a.png"}] * body.get("n", 1)))
    async with vendor(server) as base_url:
        bench.submit(request(0, n=n))
        await asyncio.wait_for(bench.run(lab(base_url)), 20)
    assert list(bench.statuses().values()) == ["failed"]

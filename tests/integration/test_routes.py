"""Several providers serve one job: who takes a request, what moves it, and that nothing is bought twice."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.config.dialect import Dialect
from pipeline.config.load import RateLimit, RetryRules
from pipeline.engine.events import Stopped
from pipeline.engine.routing import Routing
from pipeline.errors import BudgetSpent, KeyRefused
from tests.support.workbench import PNG_BASE64, PRICE, Body, answer_with, lab, request, until, vendor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pipeline.config.load import Provider
    from pipeline.ledger.queue import QueuedRequest
    from tests.support.workbench import Bench


def whole(body: Body) -> web.Response:
    return answer_with(*[{"b64_json": PNG_BASE64}] * body["n"])


def refusal(status: int, code: str, **headers: str) -> web.Response:
    error = {"message": f"no: {code}", "type": code, "code": code}
    return web.json_response(
        {"error": error}, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


@dataclass
class Vendor:
    """A server that counts what it is asked, and answers as a test says."""

    name: str
    answer: Callable[[Body], web.Response] = whole
    latency: float = 0.0
    prompts: list[str] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    sold: list[str] = field(default_factory=list)
    base_url: str = ""

    async def __call__(self, body: Body) -> web.StreamResponse:
        self.prompts.append(body["prompt"])
        self.moments.append(time.monotonic())
        await asyncio.sleep(self.latency)
        answered = self.answer(body)
        if answered.status == 200:
            self.sold.append(body["prompt"])
        return answered

    def provider(self, **more: Any) -> Provider:
        return lab(self.base_url, self.name, **more)


@contextlib.asynccontextmanager
async def vendors(*all_of_them: Vendor) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for one in all_of_them:
            one.base_url = await stack.enter_async_context(vendor(one))
        yield


def requests(count: int, **more: Any) -> list[Any]:
    return [request(number, **more) for number in range(count)]


def sold_once(*all_of_them: Vendor) -> int:
    """Check that nothing was bought twice; give how much was bought."""
    sold = Counter(prompt for one in all_of_them for prompt in one.sold)
    assert set(sold.values()) <= {1}
    return len(sold)


async def test_each_member_takes_what_it_has_room_for_and_keeps_its_window(bench: Bench) -> None:
    a, b, c = Vendor("a"), Vendor("b"), Vendor("c")
    limits = {"a": 20, "b": 8, "c": 2}
    async with vendors(a, b, c):
        three = tuple(one.provider(rate_limit=RateLimit(limits[one.name], 1.0, 1.1)) for one in (a, b, c))
        bench.submit_routed(*requests(90), providers=three)
        await bench.run(*three)
    assert sold_once(a, b, c) == 90
    assert set(bench.statuses().values()) == {"succeeded"}
    for one in (a, b, c):
        for start in one.moments:
            assert sum(start <= moment < start + 1.0 for moment in one.moments) <= limits[one.name]
    assert len(b.sold) + len(c.sold) >= 18, "they take what the first has no room for"
    assert dict(bench.ask("SELECT provider, count(*) FROM attempt GROUP BY provider")) == {
        one.name: len(one.sold) for one in (a, b, c)
    }


async def test_with_room_at_several_the_first_is_asked_unless_another_is_cheaper(bench: Bench) -> None:
    a, b = Vendor("a", latency=0.05), Vendor("b", latency=0.05)
    async with vendors(a, b):
        first, second = a.provider(concurrency=8), b.provider(concurrency=8)
        bench.submit_routed(*requests(6), providers=(first, second))
        await bench.run(first, second)
        assert (len(a.sold), len(b.sold)) == (6, 0)
        cheap = {"dall-e-2": {"prices": {"per_image": {"standard": {"256x256": 0.001}}}}}
        second = replace(second, own_models=cheap)
        bench.submit_routed(*[request(n) for n in range(10, 22)], providers=(first, second), name="other")
        await bench.run(first, second)
    assert (len(a.sold), len(b.sold)) == (6 + 4, 8), "the cheaper one is filled first"


async def test_a_member_whose_key_dies_leaves_its_requests_to_the_others(bench: Bench) -> None:
    def dies(body: Body) -> web.Response:
        return whole(body) if len(a.sold) < 5 else refusal(401, "invalid_api_key")

    a, b = Vendor("a", dies, latency=0.02), Vendor("b", latency=0.02)
    async with vendors(a, b):
        two = (a.provider(concurrency=4), b.provider(concurrency=1))
        bench.submit_routed(*requests(150), providers=two)
        runner = await bench.run(*two)
    assert sold_once(a, b) == 150
    assert len(a.sold) == 5
    assert set(bench.statuses().values()) == {"succeeded"}
    assert [type(stop) for stop in runner.stops] == [KeyRefused]
    assert list(runner.passed_on) == [("a", runner.stops[0])]
    (stopped,) = [event for event in bench.events if isinstance(event, Stopped)]
    assert "`a`" in stopped.what


async def test_what_no_member_may_serve_stays_in_the_queue(bench: Bench) -> None:
    a = Vendor("a", lambda _body: refusal(401, "invalid_api_key"))
    b = Vendor("b", lambda _body: refusal(401, "invalid_api_key"))
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(*requests(4), providers=two)
        await bench.run(*two)
    assert set(bench.statuses().values()) == {"pending"}


async def test_a_member_that_answers_429_for_ever_delays_nothing(bench: Bench) -> None:
    a, b = Vendor("a", lambda _body: refusal(429, "rate_limit_exceeded", Retry_After="30")), Vendor("b", latency=0.01)
    async with vendors(a, b):
        two = (a.provider(concurrency=4), b.provider(concurrency=2))
        bench.submit_routed(*requests(30), providers=two)
        began = time.monotonic()
        await bench.run(*two)
    assert time.monotonic() - began < 10
    assert sold_once(a, b) == 30
    assert bench.one("SELECT max(attempts) FROM request") <= 3
    assert set(bench.statuses().values()) == {"succeeded"}


async def test_a_member_that_goes_away_for_a_while_comes_back(bench: Bench) -> None:
    away = asyncio.Event()

    def goes(body: Body) -> web.Response:
        if len(a.sold) == 3 and not away.is_set():
            return refusal(500, "server_error")
        return whole(body)

    a, b = Vendor("a", goes, latency=0.01), Vendor("b", latency=0.1)
    bench.retry = RetryRules(attempts=1000, max_wait_seconds=0.01)  # however long it is away
    async with vendors(a, b):
        two = (a.provider(concurrency=6), b.provider(concurrency=1))
        bench.submit_routed(*requests(60), providers=two)
        run = asyncio.create_task(bench.run(*two))
        await until(lambda: len(b.sold) >= 12)
        away.set()
        await run
    assert sold_once(a, b) == 60
    assert len(a.sold) > 3
    assert set(bench.statuses().values()) == {"succeeded"}


async def test_attempts_count_over_all_members(bench: Bench) -> None:
    a, b = (Vendor(name, lambda _body: refusal(500, "server_error")) for name in "ab")
    bench.retry = RetryRules(attempts=8, max_wait_seconds=0.2)  # waits in which the other one is asked
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(request(1), providers=two)
        await bench.run(*two)
    assert set(bench.statuses().values()) == {"failed"}
    assert len(a.prompts) + len(b.prompts) == bench.retry.attempts
    assert a.prompts
    assert b.prompts


async def test_a_503_counts_once_all_members_have_answered_so(bench: Bench) -> None:
    a, b = (Vendor(name, lambda _body: refusal(503, "overloaded")) for name in "ab")
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(request(1), providers=two)
        await bench.run(*two)
    assert set(bench.statuses().values()) == {"failed"}
    assert min(len(a.prompts), len(b.prompts)) == bench.retry.attempts


@pytest.mark.parametrize("after", [{}, {"Retry_After": "60"}])
async def test_a_503_moves_a_request_of_a_fallback_too(bench: Bench, after: dict[str, str]) -> None:
    a, b = Vendor("a", lambda _body: refusal(503, "overloaded", **after)), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(*requests(3), providers=two, rules={"policy": "fallback"})
        async with asyncio.timeout(15):
            await bench.run(*two)
    assert sold_once(b) == len(b.prompts) == 3
    assert len(a.prompts) == 3 if after else len(a.prompts) >= 3


@pytest.mark.parametrize("policy", ["spread", "fallback"])
async def test_a_503_of_a_home_counts_since_nobody_else_is_asked(bench: Bench, policy: str) -> None:
    two = [Vendor(name, lambda _body: refusal(503, "overloaded")) for name in "ab"]
    async with vendors(*two):
        members = tuple(one.provider() for one in two)
        alike = replace(request(1), variables={"style": "noir"})
        bench.submit_routed(alike, providers=members, rules={"policy": policy, "same": ("style",)})
        async with asyncio.timeout(15):
            await bench.run(*members)
    assert set(bench.statuses().values()) == {"failed"}
    assert sorted(len(one.prompts) for one in two) == [0, bench.retry.attempts]


async def test_a_retry_after_holds_for_its_member_alone(bench: Bench) -> None:
    a = Vendor("a", lambda _body: refusal(503, "overloaded", Retry_After="60"))
    b = Vendor("b")
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(request(1), providers=two)
        began = time.monotonic()
        await bench.run(*two)
    assert time.monotonic() - began < 5
    assert (a.prompts, b.sold) == (["prompt 1"], ["prompt 1"])


async def test_requests_go_only_to_members_that_serve_them(bench: Bench) -> None:
    a, b = Vendor("a"), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(models=frozenset({"gpt-image-1"})), b.provider(operations=frozenset({"generation"})))
        bench.submit_routed(*requests(5), providers=two)
        await bench.run(*two)
    assert (len(a.prompts), len(b.sold)) == (0, 5)


async def test_a_model_that_one_member_does_not_know_is_asked_of_the_others(bench: Bench) -> None:
    a, b = Vendor("a", lambda _body: refusal(404, "model_not_found")), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(*requests(5), providers=two)
        await bench.run(*two)
    assert sold_once(a, b) == 5
    assert set(bench.statuses().values()) == {"succeeded"}


async def test_fallback_asks_the_next_one_only_in_an_outage_and_goes_back(bench: Bench) -> None:
    mended = asyncio.Event()
    a = Vendor("a", lambda body: whole(body) if len(a.sold) < 4 or mended.is_set() else refusal(500, "server_error"))
    b = Vendor("b", latency=0.05)
    bench.retry = RetryRules(attempts=10, max_wait_seconds=0.3)
    async with vendors(a, b):
        two = (a.provider(concurrency=1), b.provider(concurrency=1))
        bench.submit_routed(*requests(40), providers=two, rules={"policy": "fallback"})
        run = asyncio.create_task(bench.run(*two))
        await until(lambda: len(a.sold) == 4)
        assert not b.prompts
        await until(lambda: len(b.sold) >= 3)
        mended.set()
        await until(lambda: len(a.sold) > 4)
        at_return = len(b.prompts)
        await run
    assert sold_once(a, b) == 40
    assert len(b.prompts) <= at_return + 1


async def test_requests_alike_have_one_home_and_move_for_good_if_it_stops(bench: Bench) -> None:
    a, b, c = Vendor("a", latency=0.01), Vendor("b", latency=0.01), Vendor("c", latency=0.01)
    styles = ["ukiyo-e", "bauhaus", "noir", "pop", "deco", "dada"]

    def styled(first: int, count: int) -> list[Any]:
        return [replace(request(n), variables={"style": styles[n % 6], "n": n}) for n in range(first, first + count)]

    async with vendors(a, b, c):
        three = tuple(one.provider(concurrency=2) for one in (a, b, c))
        bench.submit_routed(*styled(0, 60), providers=three, rules={"same": ("style",)})
        await bench.run(*three)
        homes = _homes(bench)
        assert all(len(found) == 1 for found in homes.values())
        assert len({next(iter(found)) for found in homes.values()}) > 1
        lost = next(iter(homes["bauhaus"]))
        gone = next(one for one in (a, b, c) if one.name == lost)
        gone.answer = lambda _body: refusal(401, "invalid_api_key")
        bench.submit_routed(*styled(0, 120), providers=three, rules={"same": ("style",)})
        await bench.run(*three)
        new = bench.one("SELECT provider FROM home WHERE alike = '[\"bauhaus\"]'")
        gone.answer = whole
        bench.submit_routed(*styled(0, 180), providers=three, rules={"same": ("style",)})
        await bench.run(*three)
    assert sold_once(a, b, c) == 180
    assert new != lost
    assert _homes(bench)["bauhaus"] == {lost, new}
    assert len(_homes(bench, 120)["bauhaus"]) == 1, "not back again"
    for style in styles:
        if homes[style] != {lost}:
            assert _homes(bench)[style] == homes[style]


def _homes(bench: Bench, first: int = 0) -> dict[str, set[str]]:
    rows = bench.ask(
        "SELECT json_extract(r.variables, '$.style'), a.provider FROM attempt a JOIN request r ON r.pk = a.request"
        " WHERE a.outcome = 'answered' AND r.position >= ?",
        first,
    )
    found: dict[str, set[str]] = {}
    for style, provider in rows:
        found.setdefault(style, set()).add(provider)
    return found


@pytest.mark.parametrize(("moderation", "asked"), [("refuse", ["a"]), ("next", ["a", "b", "c"])])
async def test_what_one_policy_refuses_is_asked_of_the_next_if_that_is_wished(
    bench: Bench, moderation: str, asked: list[str]
) -> None:
    def refuses(_body: Body) -> web.Response:
        return refusal(400, "moderation_blocked")

    three = [Vendor(name, refuses) for name in "abc"]
    async with vendors(*three):
        members = tuple(one.provider() for one in three)
        bench.submit_routed(request(1), providers=members, rules={"moderation": moderation})
        await bench.run(*members)
    assert bench.statuses() == {request(1).id: "failed"}
    assert [one.name for one in three if one.prompts] == asked
    assert all(len(one.prompts) <= 1 for one in three)
    assert "Moderated" in bench.one("SELECT error FROM request")


async def test_what_one_policy_refuses_another_may_make(bench: Bench) -> None:
    a, b = Vendor("a", lambda _body: refusal(400, "moderation_blocked")), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(*requests(3), providers=two, rules={"moderation": "next"})
        await bench.run(*two)
    assert set(bench.statuses().values()) == {"succeeded"}
    assert len(b.sold) == 3


@pytest.mark.parametrize("policy", ["spread", "fallback"])
@pytest.mark.parametrize(("status", "code"), [(400, "moderation_blocked"), (402, "payment")])
async def test_what_a_home_does_not_take_another_makes_and_the_home_stays(
    bench: Bench, policy: str, status: int, code: str
) -> None:
    def picky(body: Body) -> web.Response:
        return refusal(status, code) if body["prompt"] == "prompt 3" else whole(body)

    three = [Vendor(name, picky, latency=0.02) for name in "abc"]
    bench.retry = RetryRules(attempts=10, max_wait_seconds=0.01)
    async with vendors(*three):
        members = tuple(one.provider(concurrency=2) for one in three)
        alike = [replace(one, variables={"style": "noir"}) for one in requests(30)]
        rules = {"policy": policy, "same": ("style",), "moderation": "next"}
        bench.submit_routed(*alike, providers=members, rules=rules)
        async with asyncio.timeout(15):
            runner = bench.runner(*members)
            run = asyncio.create_task(runner.run())
            await until(lambda: bench.ask("SELECT 1 FROM home"))
            home = next(one for one in three if one.name == bench.one("SELECT provider FROM home"))
            for other in three:
                other.answer = picky if other is home else whole
            await run
    assert set(bench.statuses().values()) == {"succeeded"}
    assert sold_once(*three) == 30
    assert len(home.sold) == 29
    assert bench.ask("SELECT provider FROM home") == [(home.name,)]


def withhold(count: int) -> Callable[[Body], web.Response]:
    """Answer with whole images, but for so many of each call."""

    def answer(body: Body) -> web.Response:
        kept = [{"respect_moderation": False}] * min(count, body["n"])
        return answer_with(*kept, *[{"b64_json": PNG_BASE64}] * (body["n"] - len(kept)))

    return answer


@pytest.mark.parametrize(
    ("moderation", "withheld", "asked", "ending", "received"),
    [
        ("next", (1, 1, 0), [4, 1, 1], "succeeded", 4),
        ("next", (4, 0, 0), [4, 4, 0], "succeeded", 4),
        ("next", (2, 2, 1), [4, 2, 2], "partial", 3),
        ("next", (4, 4, 4), [4, 4, 4], "failed", 0),
        ("refuse", (1, 0, 0), [4, 0, 0], "partial", 3),
    ],
)
async def test_images_that_one_policy_withholds_are_asked_of_the_next(
    bench: Bench, moderation: str, withheld: tuple[int, ...], asked: list[int], ending: str, received: int
) -> None:
    numbers = {name: list[int]() for name in "abc"}

    def answering(name: str, count: int) -> Callable[[Body], web.Response]:
        def answer(body: Body) -> web.Response:
            numbers[name].append(body["n"])
            return withhold(count)(body)

        return answer

    three = [Vendor(name, answering(name, count)) for name, count in zip("abc", withheld, strict=True)]
    async with vendors(*three):
        members = tuple(one.provider() for one in three)
        bench.submit_routed(request(1, n=4), providers=members, rules={"moderation": moderation})
        async with asyncio.timeout(15):
            await bench.run(*members)
    assert numbers == {name: [count] * (count > 0) for name, count in zip("abc", asked, strict=True)}
    assert bench.ask("SELECT status, received FROM request") == [(ending, received)]


async def test_the_last_member_is_asked_for_what_its_small_calls_leave(bench: Bench) -> None:
    a, b = Vendor("a", withhold(1)), Vendor("b", withhold(1))
    async with vendors(a, b):
        two = (a.provider(images_per_call=2), b.provider(images_per_call=2))
        bench.submit_routed(request(1, n=6), providers=two, rules={"moderation": "next", "policy": "fallback"})
        async with asyncio.timeout(15):
            await bench.run(*two)
    assert (len(a.prompts), len(b.prompts)) == (1, 3), "of one image and one withheld there, and of 2, 2 and 1 here"
    assert bench.ask("SELECT status, received, moderated FROM request") == [("partial", 3, 3)]


async def _refuse_and_stop(bench: Bench, a: Vendor, b: Vendor, *members: Provider) -> None:
    """Have one member refuse a request, and the next one stop."""
    bench.submit_routed(request(1), providers=members, rules={"moderation": "next", "policy": "fallback"})
    async with asyncio.timeout(15):
        await bench.run(*members)
    assert bench.statuses() == {request(1).id: "pending"}
    assert (len(a.prompts), len(b.prompts)) == (1, 1)


@pytest.mark.parametrize("refuses", [lambda _body: refusal(400, "moderation_blocked"), withhold(1)])
async def test_the_next_run_does_not_ask_a_member_again_whose_policy_refused(
    bench: Bench, refuses: Callable[[Body], web.Response]
) -> None:
    a, b = Vendor("a", refuses), Vendor("b", lambda _body: refusal(401, "invalid_api_key"))
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        await _refuse_and_stop(bench, a, b, *two)
        b.answer = whole
        await bench.run(*two)
    assert bench.statuses() == {request(1).id: "succeeded"}
    assert (len(a.prompts), len(b.sold)) == (1, 1)


async def test_what_all_policies_refused_is_asked_of_all_again_by_resume(bench: Bench) -> None:
    a, b = (Vendor(name, lambda _body: refusal(400, "moderation_blocked")) for name in "ab")
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(request(1), providers=two, rules={"moderation": "next"})
        for times in (1, 2):
            async with asyncio.timeout(15):
                await bench.run(*two)
            assert (len(a.prompts), len(b.prompts)) == (times, times)
            assert bench.statuses() == {request(1).id: "failed"}
            bench.set("UPDATE request SET status = 'pending'")


async def test_the_budget_counts_the_price_of_whoever_serves(bench: Bench) -> None:
    a, b = Vendor("a"), Vendor("b")
    cheap = {"dall-e-2": {"prices": {"per_image": {"standard": {"256x256": PRICE / 4}}}}}
    async with vendors(a, b):
        two = (a.provider(concurrency=1), b.provider(concurrency=1, own_models=cheap))
        bench.submit_routed(*requests(9), providers=two, budget_usd=2.5 * PRICE)
        runner = await bench.run(*two)
    spent = len(a.sold) * PRICE + len(b.sold) * PRICE / 4
    assert spent <= 2.5 * PRICE
    assert bench.one("SELECT total(cost_usd) FROM request") == pytest.approx(spent)
    assert len(a.sold) + len(b.sold) < 9 or not runner.stops
    assert all(isinstance(stop, BudgetSpent) for stop in runner.stops)


async def test_a_paid_url_is_fetched_though_its_member_has_stopped(bench: Bench) -> None:
    a, b = Vendor("a"), Vendor("b")
    async with vendors(a, b):
        rules = Dialect(picture_hosts=frozenset({"localhost"}))  # of the one that stops, not of the other
        two = (a.provider(concurrency=1, dialect=rules), b.provider(concurrency=1))
        bench.submit_routed(*requests(2), providers=two)
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome)"
            " VALUES (1, 'a', 1, 0, 0, 'answered')"
        )
        bench.set(
            "INSERT INTO image (request, attempt, job, state, number, url, expires_at)"
            " VALUES (1, 1, 1, 'paid', 1, ?, ?)",
            f"{a.base_url.removesuffix('/v1')}/picture/one.png".replace("127.0.0.1", "localhost"),
            time.time() + 3600,
        )
        runner = bench.runner(*two)
        runner._stops.stop_provider("a", KeyRefused("the key was refused"))
        await runner.run()
    assert set(bench.statuses().values()) == {"succeeded"}
    assert (len(a.prompts), len(b.sold)) == (0, 1)


async def test_a_request_that_waits_at_a_member_is_given_back_if_that_pauses(bench: Bench) -> None:
    a = Vendor("a", lambda _body: refusal(429, "rate_limit_exceeded", Retry_After="40"), latency=0.2)
    b = Vendor("b", latency=0.1)
    async with vendors(a, b):
        two = (a.provider(rate_limit=RateLimit(1, 40.0)), b.provider(concurrency=1))
        bench.submit_routed(*requests(4), providers=two)
        began = time.monotonic()
        await bench.run(*two)
    assert time.monotonic() - began < 10
    assert (len(a.prompts), sold_once(b)) == (1, 4)


async def test_requests_beside_a_route_are_made_too(bench: Bench) -> None:
    a, b = Vendor("a"), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(concurrency=2), b.provider(concurrency=2))
        bench.submit(*(request(number) for number in range(100, 110)), provider=two[1], name="plain")
        bench.submit_routed(*requests(10), providers=two)
        await bench.run(*two)
    assert sold_once(a, b) == 20
    assert bench.ask("SELECT DISTINCT provider FROM attempt a JOIN request r ON r.pk = a.request WHERE r.job = 1") == [
        ("b",)
    ]


async def test_what_one_member_refuses_for_one_request_alone_another_makes(bench: Bench) -> None:
    def picky(body: Body) -> web.Response:
        return refusal(402, "payment") if body["prompt"] == "prompt 3" else whole(body)

    a, b = Vendor("a", picky, latency=0.3), Vendor("b")
    bench.retry = RetryRules(attempts=10, max_wait_seconds=0.01)
    async with vendors(a, b):
        two = (a.provider(concurrency=4), b.provider(concurrency=1))
        bench.submit_routed(*requests(40), providers=two, rules={"policy": "fallback"})
        await bench.run(*two)
    assert set(bench.statuses().values()) == {"succeeded"}
    assert sold_once(a, b) == 40
    assert "prompt 3" in b.sold


async def test_unknown_outcomes_count_over_all_members(bench: Bench) -> None:
    a, b = (Vendor(name, lambda _body: refusal(504, "timeout")) for name in "ab")
    bench.retry = RetryRules(attempts=50, unknown=2, max_wait_seconds=0.01)
    async with vendors(a, b):
        two = (a.provider(), b.provider())
        bench.submit_routed(request(1), providers=two)
        await bench.run(*two)
    assert set(bench.statuses().values()) == {"failed"}
    assert len(a.prompts) + len(b.prompts) == 3


async def test_what_is_missing_after_a_download_is_for_whoever_has_room(bench: Bench) -> None:
    a, b = Vendor("a"), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(models=frozenset()), b.provider())
        bench.submit_routed(request(1, n=2), providers=two)
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome)"
            " VALUES (1, 'a', 1, 0, 0, 'answered')"
        )
        bench.set(
            "INSERT INTO image (request, attempt, job, state, number, url, expires_at)"
            " VALUES (1, 1, 1, 'paid', 1, ?, ?)",
            f"{a.base_url.removesuffix('/v1')}/picture/one.png",
            time.time() + 3600,
        )
        await bench.run(*two)
    assert (len(a.prompts), len(b.sold)) == (0, 1)
    assert bench.one("SELECT received FROM request") == 2


async def test_fallback_with_homes_stays_where_the_first_was_made(bench: Bench) -> None:
    a, b = Vendor("a", latency=0.01), Vendor("b")
    async with vendors(a, b):
        two = (a.provider(concurrency=2), b.provider(concurrency=2))
        alike = [replace(one, variables={"style": "noir"}) for one in requests(12)]
        bench.submit_routed(*alike, providers=two, rules={"policy": "fallback", "same": ("style",)})
        await bench.run(*two)
    assert (len(a.sold), len(b.sold)) == (12, 0)
    assert bench.ask("SELECT alike, provider FROM home") == [('["noir"]', "a")]


async def test_what_a_member_has_taken_when_it_stops_is_for_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = Vendor("a"), Vendor("b", latency=0.01)
    async with vendors(a, b):
        two = (a.provider(concurrency=4), b.provider(concurrency=1))
        bench.submit_routed(*requests(12), providers=two)
        runner = bench.runner(*two)
        choose = Routing.choose

        def stopping(self: Routing, name: str, *rest: Any) -> list[QueuedRequest]:
            chosen = choose(self, name, *rest)
            if name == "a" and chosen:
                runner._stops.stop_provider("a", KeyRefused("the key was refused"))
            return chosen

        monkeypatch.setattr(Routing, "choose", stopping)
        async with asyncio.timeout(15):
            await runner.run()
    assert (len(a.prompts), sold_once(b)) == (0, 12)

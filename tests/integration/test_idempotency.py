"""One idempotency key per purchase: what is sent, with which key, and what a server that honours keys charges."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from pipeline.config.load import RetryRules
from pipeline.engine import circuit_breaker
from pipeline.engine.admission import Admission
from pipeline.engine.caller import LocalCaller
from pipeline.engine.stop_policy import Withdrawn
from pipeline.ledger.put_back import Selection, put_back
from pipeline.ledger.recovery import recover, requeue_lost_images
from tests.support.sandbox_client import calling
from tests.support.workbench import PNG_BASE64, PRICE, answer_with, lab, request, sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.stage import Stage
    from tests.support.workbench import Bench

HERE = {"b64_json": PNG_BASE64}
PATIENT = RetryRules(attempts=20, unknown=20, max_wait_seconds=0.01)


def good(**more: Any) -> web.Response:
    """Answer with one image."""
    return answer_with(HERE, **more)


def refuse(status: int) -> web.Response:
    """Refuse with a status, and no wait."""
    return web.json_response({"error": {"message": "no", "type": "x", "code": None}}, status=status)


def replayed(response: web.Response) -> web.Response:
    """Mark a response as a replay."""
    response.headers["Idempotent-Replayed"] = "true"
    return response


@dataclass
class Shop:
    """An Images API that answers the calls in turn, the last answer for all that follow; None drops the connection."""

    answers: list[Callable[[], web.Response] | None]
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)  # key, X-Client-Request-Id, body

    @property
    def keys(self) -> list[str]:
        """The keys of the calls, each named by a letter in the order of their first appearance."""
        names: dict[str, str] = {}
        return [names.setdefault(key, chr(ord("a") + len(names))) for key, _, _ in self.seen]

    async def call(self, http: web.Request) -> web.StreamResponse:
        answer = self.answers[min(len(self.seen), len(self.answers) - 1)]
        named = http.headers["Idempotency-Key"], http.headers["X-Client-Request-Id"]
        self.seen.append((*named, await http.read()))
        if answer is None:
            assert http.transport is not None
            http.transport.close()
            return web.Response()
        return answer()


@pytest.fixture
async def shop() -> AsyncIterator[Callable[..., Any]]:
    """Open shops."""
    servers: list[TestServer] = []

    async def open_shop(*answers: Any) -> tuple[Shop, str]:
        made, app = Shop(list(answers)), web.Application()
        app.router.add_post("/v1/images/{operation}", made.call)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return made, str(servers[-1].make_url("/v1"))

    yield open_shop
    for server in servers:
        await server.close()


def _resume(bench: Bench) -> None:
    put_back(bench.connection, Selection(("job",)))


async def test_all_retries_of_a_purchase_carry_one_key_and_the_number_of_their_attempt(
    bench: Bench, shop: Callable[..., Any]
) -> None:
    bench.retry = PATIENT
    refusals = (lambda: refuse(500), lambda: refuse(504), lambda: refuse(429))
    made, base_url = await shop(None, *refusals, answer_with, good)
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert made.keys == ["a"] * 6
    assert [number for _, number, _ in made.seen] == [f"{made.seen[0][0]}-{number}" for number in range(1, 7)]
    assert bench.ask("SELECT DISTINCT idempotency_key FROM attempt") == [(made.seen[0][0],)]
    assert len({body for _, _, body in made.seen}) == 1


async def test_the_key_is_in_the_ledger_before_the_call_arrives(bench: Bench, shop: Callable[..., Any]) -> None:
    found: list[str] = []

    def look() -> web.Response:
        found.append(bench.one("SELECT idempotency_key FROM attempt WHERE outcome IS NULL"))
        return good()

    made, base_url = await shop(look)
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert found == [made.seen[0][0]]


async def test_two_requests_never_share_a_key(bench: Bench, shop: Callable[..., Any]) -> None:
    made, base_url = await shop(good)
    bench.submit(*(request(number) for number in range(20)))
    await bench.run(lab(base_url))
    assert len(set(made.keys)) == 20


async def test_after_an_answer_the_rest_is_another_purchase(bench: Bench, shop: Callable[..., Any]) -> None:
    made, base_url = await shop(good)
    bench.submit(request(1, n=3))
    await bench.run(lab(base_url))
    assert made.keys == ["a", "b", "c"]


async def test_an_image_whose_url_died_is_bought_under_a_new_key(bench: Bench, shop: Callable[..., Any]) -> None:
    dead = {"url": "https://pictures.invalid/a.png?se=2020-01-01T00:00:00Z"}
    made, base_url = await shop(lambda: answer_with(dead), good)
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert made.keys == ["a", "b"]
    assert bench.statuses() == {request(1).id: "succeeded"}


async def test_an_image_that_is_repaired_is_bought_under_a_new_key(bench: Bench, shop: Callable[..., Any]) -> None:
    made, base_url = await shop(good)
    bench.submit(request(1))
    await bench.run(lab(base_url))
    requeue_lost_images(bench.connection, [1])
    await bench.run(lab(base_url))
    assert made.keys == ["a", "b"]


async def test_another_provider_of_a_route_is_another_purchase(bench: Bench, shop: Callable[..., Any]) -> None:
    bench.retry = PATIENT
    first, first_url = await shop(lambda: refuse(503))
    second, second_url = await shop(None, good)
    members = (lab(first_url, "first"), lab(second_url, "second"))
    bench.submit_routed(request(1), providers=members)
    await bench.run(*members)
    assert bench.statuses() == {request(1).id: "succeeded"}
    keys = [[key for key, _, _ in one.seen] for one in (first, second)]
    assert keys[0]
    assert not set(keys[0]) & set(keys[1])


async def test_a_request_that_goes_back_to_the_queue_within_a_run_keeps_its_count(
    bench: Bench, shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.retry = dataclasses.replace(PATIENT, unknown=1)
    made, base_url = await shop(None)
    bench.submit(request(1))
    sleep = Admission.sleep
    given_back: list[float] = []

    async def give_back(self: Admission, seconds: float) -> None:
        given_back.append(seconds)
        await sleep(self, 0)
        raise Withdrawn

    monkeypatch.setattr(Admission, "sleep", give_back)
    await bench.run(lab(base_url))
    assert (len(given_back), made.keys) == (1, ["a", "a"])
    assert bench.one("SELECT json_extract(error, '$.kind') FROM request") == "OutcomeUnknown"


async def test_another_body_is_another_purchase(bench: Bench, shop: Callable[..., Any]) -> None:
    """The request is the same: its body changes with the dialect, and with the number of images."""
    bench.retry = dataclasses.replace(PATIENT, unknown=0)
    made, base_url = await shop(None, None, None, None, good)
    bench.submit(request(1, n=2))
    provider = lab(base_url)
    as_width = dataclasses.replace(provider, dialect=dataclasses.replace(provider.dialect, size_as="width_height"))
    fewer = dataclasses.replace(provider, images_per_call=1)
    for one in (provider, provider, as_width, fewer, fewer):
        await bench.run(one)
        _resume(bench)
    assert made.keys == ["a", "a", "b", "c", "c", "d"]


@pytest.mark.parametrize("answer", ["unusable", "refused"])
async def test_a_replay_that_brings_no_image_ends_its_purchase(
    bench: Bench, shop: Callable[..., Any], answer: str
) -> None:
    bench.retry = PATIENT
    made, base_url = await shop(None, lambda: replayed(answer_with() if answer == "unusable" else refuse(500)), good)
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert made.keys == ["a", "a", "b"]
    assert bench.one("SELECT maybe_paid FROM request") == (answer == "unusable")


async def test_a_replay_that_arrives_cut_is_asked_for_again_under_its_key(
    bench: Bench, shop: Callable[..., Any]
) -> None:
    bench.retry = PATIENT
    cut = lambda: web.Response(body=b'{"data": [{"b64_', headers={"Idempotent-Replayed": "1"})  # noqa: E731
    made, base_url = await shop(None, cut, lambda: replayed(good()))
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert made.keys == ["a", "a", "a"]
    assert bench.ask("SELECT status, maybe_paid FROM request") == [("succeeded", 0)]


async def test_a_replay_clears_what_may_have_been_paid_and_frees_the_budget(
    bench: Bench, shop: Callable[..., Any]
) -> None:
    bench.retry = PATIENT
    made, base_url = await shop(None, None, lambda: replayed(good()))
    bench.submit(request(1), request(2), budget_usd=3 * PRICE)
    runner = await bench.run(lab(base_url, concurrency=1))
    assert runner.stops == []
    assert bench.ask("SELECT status, attempts, maybe_paid, cost_usd FROM request ORDER BY pk") == [
        ("succeeded", sum(key == name for key in made.keys), 0, PRICE) for name in "ab"
    ]
    assert bench.ask("SELECT outcome, settled, cost_usd FROM attempt WHERE outcome = 'unknown'") == [
        ("unknown", "replayed", 0.0)
    ] * (len(made.keys) - 2)


async def test_without_the_mark_of_a_replay_nothing_is_cleared(bench: Bench, shop: Callable[..., Any]) -> None:
    bench.retry = PATIENT
    _, base_url = await shop(None, good)
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert bench.ask("SELECT status, maybe_paid FROM request") == [("succeeded", 1)]


async def test_a_held_request_that_is_resumed_is_the_same_purchase(bench: Bench, shop: Callable[..., Any]) -> None:
    bench.retry = dataclasses.replace(PATIENT, unknown=0)
    made, base_url = await shop(None, lambda: replayed(good()))
    bench.submit(request(1))
    await bench.run(lab(base_url))
    assert bench.ask("SELECT status, json_extract(error, '$.kind') FROM request") == [("failed", "OutcomeUnknown")]
    _resume(bench)
    await bench.run(lab(base_url))
    assert made.keys == ["a", "a"]
    assert bench.ask("SELECT status, maybe_paid FROM request") == [("succeeded", 0)]


async def _die_during_the_call(bench: Bench, base_url: str, calls: int = 1) -> None:
    """Leave the ledger as a death leaves it: calls are recorded and sent, and nothing else is."""
    sent, never = asyncio.Semaphore(0), asyncio.Event()
    whole = LocalCaller.call

    async def call(self: LocalCaller, *arguments: Any) -> Any:
        await whole(self, *arguments)
        sent.release()
        await never.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalCaller, "call", call)
        task = asyncio.create_task(bench.runner(lab(base_url)).run())
        for _ in range(calls):
            await sent.acquire()
        bench.set("CREATE TEMP TABLE dead AS SELECT pk FROM attempt WHERE outcome IS NULL")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    bench.set("UPDATE attempt SET outcome = NULL, ended_at = NULL, error = NULL WHERE pk IN (SELECT pk FROM dead)")
    bench.set(
        "UPDATE request SET status = 'running', maybe_paid = 0, cut_off = 0 WHERE pk IN (SELECT request FROM attempt)"
    )
    bench.set("DROP TABLE dead")


@pytest.mark.parametrize("unknown", [0, 1])
async def test_a_call_that_our_own_death_cut_off_counts_and_is_the_same_purchase(
    bench: Bench, shop: Callable[..., Any], unknown: int
) -> None:
    bench.retry = dataclasses.replace(PATIENT, unknown=unknown)
    made, base_url = await shop(good, None, good)
    bench.submit(request(1))
    await _die_during_the_call(bench, base_url)
    recover(bench.connection)
    await bench.run(lab(base_url))
    assert made.keys == ["a"] * (1 + unknown), "with one repeat, the second unknown outcome is held"
    row = "SELECT status, json_extract(error, '$.kind'), maybe_paid FROM request"
    assert bench.ask(row) == [("failed", "OutcomeUnknown", 1 + unknown)]
    _resume(bench)
    await bench.run(lab(base_url))
    await bench.run(lab(base_url))
    assert made.keys == ["a"] * (2 + unknown), "a person has decided to send it again"
    assert bench.one("SELECT count(*) FROM request WHERE status = 'succeeded'") == unknown


async def test_after_our_own_death_another_request_is_tried_first(bench: Bench, shop: Callable[..., Any]) -> None:
    made, base_url = await shop(good)
    bench.submit(request(0))
    await _die_during_the_call(bench, base_url)
    bench.submit(request(0), request(1), request(2))
    await bench.run(lab(base_url, concurrency=1))
    prompts = [json.loads(body)["prompt"] for _, _, body in made.seen]
    assert prompts[:3] == ["prompt 0", "prompt 1", "prompt 0"]
    assert set(bench.statuses().values()) == {"succeeded"}


async def test_a_probe_in_an_outage_counts_too(
    bench: Bench, shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five requests whose responses all get lost look like an outage, and each probe of it may be paid."""
    for name in ("FIRST_PROBE", "LONGEST_PROBE", "LONGEST_PAID_PROBE"):
        monkeypatch.setattr(circuit_breaker, name, 0.02)
    bench.retry = dataclasses.replace(PATIENT, unknown=1)
    made, base_url = await shop(good, None)
    bench.submit(*(request(number) for number in range(7)))
    await bench.run(lab(base_url, concurrency=1))
    assert max(made.keys.count(key) for key in set(made.keys)) == 2
    assert bench.one("SELECT count(*) FROM request WHERE json_extract(error, '$.kind') = 'OutcomeUnknown'") == 6


async def test_an_edit_is_sent_again_byte_by_byte(stage: Stage, shop: Callable[..., Any]) -> None:
    """A form has a boundary: a server that compares whole bodies would refuse another one under the same key."""
    made, base_url = await shop(lambda: refuse(500), good)
    Image.new("RGBA", (64, 64)).save(stage.folder / "in.png")
    job = stage.job(
        "edits", [{"operation": "edit", "image": "in.png", "prompt": "a", "model": "gpt-image-1", "size": "1024x1024"}]
    )
    stage.provider("lab", base_url)
    stage.settings["retry"] = {"max_wait_seconds": 0.01}
    stage.write_config()
    await asyncio.to_thread(stage.run, "run", job)
    assert made.keys == ["a", "a"]
    assert made.seen[0][2] == made.seen[1][2]
    assert b"in.png" in made.seen[0][2] or b"filename" in made.seen[0][2]


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("honours", [True, False])
async def test_dropped_responses_cost_nothing_at_a_server_that_honours_keys(
    bench: Bench, tmp_path: Path, seed: int, honours: bool
) -> None:
    """The long form, of a thousand dropped responses, is in drills/test_reconcile.py."""
    bench.retry = PATIENT
    books = tmp_path / "books.jsonl"
    faults = {"drop_after": 0.25, "drop_before": 0.05, "http_500": 0.05, "broken_json": 0.05}
    async with sandbox(books, seed=seed, faults=faults, idempotency=honours) as base_url:
        bench.submit(*(request(number, response_format="b64_json") for number in range(60)))
        await bench.run(lab(base_url))
    calls = [json.loads(line) for line in books.read_text().splitlines()]
    assert set(bench.statuses().values()) == {"succeeded"}
    charged = sum(call["charged"] for call in calls)
    assert (charged == 60) is honours
    assert sum(call["fault"] in {"drop_after", "broken_json"} for call in calls) > 10
    assert {call["idempotency_key"] for call in calls} == {
        key for (key,) in bench.ask("SELECT idempotency_key FROM attempt")
    }


async def test_the_sandbox_answers_a_known_key_with_the_response_that_it_keeps(tmp_path: Path) -> None:
    named = {"Authorization": "Bearer sk-test", "Idempotency-Key": "k1"}
    body = {"prompt": "a cat", "size": "256x256", "response_format": "b64_json"}
    async with calling(tmp_path, idempotency=True) as caller:
        several = [caller.call("POST", "/images/generations", json=body, headers=named) for _ in range(3)]
        replies = await asyncio.gather(*several)
        assert len({reply.content for reply in replies}) == 1
        assert sorted(reply.headers.get("Idempotent-Replayed", "") for reply in replies) == ["", "true", "true"]
        assert [entry["charged"] for entry in caller.entries("call")].count(1) == 1
        other = await caller.call("POST", "/images/generations", json={**body, "prompt": "a dog"}, headers=named)
        assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
        assert len({entry["client_request_id"] for entry in caller.entries("call")}) == 1


async def test_the_sandbox_ignores_keys_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    named = {"Authorization": "Bearer sk-test", "Idempotency-Key": "k1"}
    body = {"prompt": "a cat", "size": "256x256"}
    async with calling(tmp_path) as caller:
        for _ in range(2):
            reply = await caller.call("POST", "/images/generations", json=body, headers=named)
            assert "Idempotent-Replayed" not in reply.headers
        assert [entry["charged"] for entry in caller.entries("call")] == [1, 1]

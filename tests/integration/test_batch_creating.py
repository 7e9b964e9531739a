"""The create of a batch: lost, refused, not visible yet; looked for, adopted, and never sent twice by accident."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from pipeline.engine.events import BatchSent
from pipeline.errors import BatchRefused, KeyRefused, ModelUnknown, QuotaSpent
from tests.support.batch_server import (
    DROPPED,
    LOST,
    LOST_500,
    MODEL,
    batch_lab,
    batch_service,
    edited,
    fates,
    kinds,
    outcomes,
    painted,
    queue,
    refusal,
)
from tests.support.workbench import models

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.batch_server import BatchServer
    from tests.support.workbench import Bench

LOST_FILE = refusal("Cannot find file file-0000000000000000000000, or project proj-1 does not have access to it.")
NO_ROOM = refusal(
    "Enqueued token limit reached for M in organization O. Limit: 1,000 enqueued tokens.", "token_limit_exceeded"
)


def tokens(server: BatchServer) -> list[str]:
    return [batch["metadata"]["pipeline"] for batch in server.batches]


def made_of(bench: Bench) -> Sequence[Any]:
    return bench.ask("SELECT id, ended_at IS NOT NULL FROM batch ORDER BY pk")


@pytest.mark.parametrize("how", [LOST, LOST_500])
@pytest.mark.parametrize("page", [1, 100])
async def test_a_create_whose_answer_is_lost_is_found_through_all_pages_and_adopted(
    bench: Bench, how: str, page: int
) -> None:
    async with batch_service(page=page) as server:
        provider = batch_lab(server.url, most_requests=2)
        server.script("POST /batches", how)
        queue(bench, provider, *(painted(number) for number in range(6)))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 6}
        assert server.count("POST /batches") == len(server.batches) == 3
        assert {one for one, _ in made_of(bench)} == {batch["id"] for batch in server.batches}
        assert len(kinds(bench, BatchSent)) == 3
        assert outcomes(bench) == {"answered": 6}


async def test_a_create_that_never_arrived_is_sent_again_after_three_looks_with_the_same_token(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, poll_seconds=(0.1, 0.1))
        server.script("POST /batches", DROPPED)
        moments: list[tuple[str, float]] = []
        server.at_call = lambda call: moments.append((call, time.monotonic()))
        queue(bench, provider, painted(1))
        await bench.run(provider)
        first, second = (moment for call, moment in moments if call == "POST /batches")
        looks = [moment for call, moment in moments if call == "GET /batches"]
        assert len(looks) >= 3
        assert looks[-1] - first >= 0.3
        assert second > looks[-1]
        assert len(server.of("batch")) == 1
        assert tokens(server) == [bench.one("SELECT token FROM batch")]
        assert fates(bench) == {"succeeded": 1}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524, 599])
async def test_a_5xx_says_nothing_of_a_create(bench: Bench, status: int) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        body: Any = {"error": {"message": "Your quota is exceeded", "code": "insufficient_quota"}}
        server.script("POST /batches", (status, body))
        queue(bench, provider, painted(1))
        runner = await bench.run(provider)
        assert runner.stops == []
        assert server.count("GET /batches") >= 3
        assert len(tokens(server)) == 1
        assert bench.one("SELECT count(*) FROM batch") == 1
        assert fates(bench) == {"succeeded": 1}


@pytest.mark.parametrize("status", [408, 409, 444, 460, 499])
async def test_a_gateway_that_lost_the_call_says_nothing_of_a_create(bench: Bench, status: int) -> None:
    async with batch_service() as server:

        async def lost(http: web.Request) -> web.Response:
            await server._create(http)
            return web.json_response({"error": {"message": "client closed request"}}, status=status)

        server.script("POST /batches", lost)
        queue(bench, batch_lab(server.url), painted(1))
        await bench.run(batch_lab(server.url))
        assert len(server.batches) == 1
        assert fates(bench) == {"succeeded": 1}


@pytest.mark.parametrize("body", ["<html>", [], {"object": "list"}])
async def test_a_success_that_cannot_be_read_says_nothing_of_a_create(bench: Bench, body: Any) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", (200, body))
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert server.count("GET /batches") >= 3
        assert fates(bench) == {"succeeded": 1}


async def test_a_create_that_times_out_is_looked_for(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, more={"timeout_seconds": 0.3})

        async def never(http: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "10"})
            await response.prepare(http)
            return response

        made: list[web.Request] = []

        def answer(http: web.Request) -> Any:
            made.append(http)
            return never(http)

        server.script("POST /batches", answer)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert len(made) == 1
        assert fates(bench) == {"succeeded": 1}


async def test_a_death_after_the_create_finds_the_batch_and_a_death_before_it_sends_again(bench: Bench) -> None:
    async with batch_service(course=("in_progress",)) as server:
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1))
        await bench.run(provider, waits=False)
        bench.set("UPDATE batch SET id = NULL, status = NULL, sent_at = NULL, expires_at = NULL")
        server._left[server.batches[0]["id"]] = ["completed"]
        await bench.run(provider)
        assert (fates(bench), len(server.batches)) == ({"succeeded": 1}, 1)
        queue(bench, provider, painted(2), name="second")
        await bench.run(provider, waits=False)
        file = server.batches.pop()["input_file_id"]
        bench.set("UPDATE batch SET id = NULL, status = NULL, create_sent_at = NULL WHERE ended_at IS NULL")
        server.course = ("completed",)
        await bench.run(provider)
        assert fates(bench, "second") == {"succeeded": 1}
        assert server.files[file].is_deleted
        assert bench.one("SELECT attempts FROM request WHERE job = 2") == 2  # the batch that was lost here was valid


@pytest.mark.parametrize("same", ["token", "input"])
async def test_a_batch_of_another_token_or_input_is_not_adopted(bench: Bench, same: str) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        other = server.add("batch", "other.jsonl", b"", 9)
        foreign = {
            "id": "batch_other",
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "endpoint": "/v1/images/generations",
        }

        def resemble(batch: dict[str, Any]) -> None:
            if batch["id"] == foreign["id"]:
                ours = server.of("batch")[-1]
                token = ours.name.removesuffix(".jsonl") if same == "token" else "another"
                batch["input_file_id"] = ours.id if same == "input" else other.id
                batch["metadata"] = {"pipeline": token}

        server.batches.append(foreign)
        server.change = resemble
        server.script("POST /batches", DROPPED)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}
        assert "batch_other" not in {one for one, _ in made_of(bench)}


async def test_a_failed_batch_is_never_adopted_and_sending_again_is_a_new_row_and_token(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.courses = [("failed",)]
        server.errors = [{"code": "server_error", "message": "an internal error", "line": None}]
        server.script("POST /batches", LOST)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}
        assert len(set(tokens(server))) == 2
        assert made_of(bench) == [(None, 1), (server.batches[1]["id"], 1)]
        assert [one.id for one in kinds(bench, BatchSent)] == [server.batches[1]["id"]]
        assert bench.one("SELECT attempts FROM request") == 1


async def test_a_healthy_batch_is_preferred_to_a_failed_one_of_the_same_token(bench: Bench) -> None:
    async with batch_service(course=("in_progress", "in_progress", "completed")) as server:
        provider = batch_lab(server.url)

        def duplicate(call: str) -> None:
            if call == "GET /batches" and len(server.batches) == 1:
                server.batches.append({**server.batches[0], "id": "batch_failed", "status": "failed"})

        server.at_call = duplicate
        server.script("POST /batches", LOST)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert made_of(bench) == [(server.batches[0]["id"], 1)]
        assert fates(bench) == {"succeeded": 1}


async def test_looks_count_over_restarts_and_one_look_is_made_without_waiting(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, poll_seconds=(0.05, 0.05))
        server.script("POST /batches", DROPPED)
        queue(bench, provider, painted(1))
        for looks in (1, 2, 3):
            bench.set("UPDATE batch SET create_sent_at = create_sent_at + 0.02")  # too short a time for another create
            await bench.run(provider, waits=False)
            assert bench.one("SELECT looks FROM batch") == looks
            assert server.count("POST /batches") == 1
            bench.set("UPDATE batch SET create_sent_at = ?", time.time() - 0.1)
        bench.set("UPDATE batch SET create_sent_at = ?", time.time() - 9)
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}


async def test_a_clock_that_was_set_back_does_not_send_a_create_at_once(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, poll_seconds=(0.1, 0.1))
        server.script("POST /batches", DROPPED)
        queue(bench, provider, painted(1))
        await bench.run(provider, waits=False)
        bench.set("UPDATE batch SET create_sent_at = ?, looks = 9", time.time() + 86_400)
        began = time.monotonic()
        await bench.run(provider)
        assert time.monotonic() - began >= 0.3
        assert fates(bench) == {"succeeded": 1}


async def test_cannot_find_file_right_after_the_upload_is_tried_five_times_with_the_same_upload(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", *[LOST_FILE] * 4)
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert server.count("POST /batches") == 5
        assert len(server.of("batch")) == 1
        assert fates(bench) == {"succeeded": 1}


@pytest.mark.parametrize("mode", ["batch", "auto"])
async def test_cannot_find_a_file_that_is_there_is_a_spend_cap_in_auto_too(bench: Bench, mode: str) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", *[LOST_FILE] * 5)
        queue(bench, provider, painted(1), mode=mode)
        runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [QuotaSpent]
        assert server.count("GET /files/*") == 1
        assert fates(bench) == {"pending": 1}
        assert server.count("POST /images/generations") == 0


async def test_a_file_that_the_service_has_lost_is_uploaded_anew(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", *[LOST_FILE] * 5)
        server.script("GET /files/*", refusal("No such File object", status=404))
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert len(server.of("batch")) == 2
        assert bench.one("SELECT count(DISTINCT token) FROM batch") == 2
        assert fates(bench) == {"succeeded": 1}


async def test_a_file_that_is_lost_again_and_again_ends(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, poll_seconds=(0.005, 0.01))
        server.script("POST /batches", *[LOST_FILE] * 25)
        server.script("GET /files/*", *[refusal("No such File object", status=404)] * 5)
        queue(bench, provider, painted(1))
        runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [BatchRefused]
        assert fates(bench) == {"pending": 1}


async def test_a_picture_that_the_service_has_lost_is_uploaded_anew(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        queue(bench, provider, edited(bench, 1, 16))

        def lose(_http: web.Request) -> Any:
            picture = server.of("vision")[0]
            picture.is_deleted = True
            server.batches[-1]["errors"] = {
                "data": [{"code": "invalid_request", "message": f"Cannot find file {picture.id}, or"}]
            }
            server.batches[-1]["status"] = "failed"
            return server.plain(server.batches[-1])

        server.courses = [("validating",)]
        server.script("GET /batches/*", lose)
        await bench.run(provider)
        assert len(server.of("vision")) == 2
        assert fates(bench) == {"succeeded": 1}


@pytest.mark.parametrize("answer", [NO_ROOM, refusal("Rate limit reached for requests", "rate_limit_exceeded", 429)])
async def test_a_full_queue_at_create_waits_and_sends_a_new_batch(bench: Bench, answer: Any) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, poll_seconds=(0.02, 0.2))
        moments: list[float] = []
        server.at_call = lambda call: moments.append(time.monotonic()) if call == "POST /batches" else None
        server.script("POST /batches", answer, answer)
        queue(bench, provider, painted(1), painted(2))
        await bench.run(provider)
        assert [later - earlier >= 0.2 for earlier, later in itertools.pairwise(moments)] == [True, True]
        assert bench.one("SELECT count(DISTINCT token) FROM batch") == 3
        assert fates(bench) == {"succeeded": 2}
        assert bench.one("SELECT max(attempts) FROM request") == 1


@pytest.mark.parametrize(
    ("answer", "stop", "in_auto"),
    [
        (refusal("no such key", status=401), KeyRefused, "pending"),
        (refusal("You exceeded your quota", "insufficient_quota", 429), QuotaSpent, "pending"),
        (refusal("Billing hard limit has been reached", "billing_hard_limit_reached"), QuotaSpent, "pending"),
        (refusal("The provided model 'x' is not supported by the Batch API."), BatchRefused, "succeeded"),
        (refusal("The model does not exist", "model_not_found", 404), ModelUnknown, "succeeded"),
        (refusal("Not found", status=404), BatchRefused, "succeeded"),
    ],
)
@pytest.mark.parametrize("mode", ["batch", "auto"])
async def test_refusals_of_a_create_stop_at_once(
    bench: Bench, answer: Any, stop: type, in_auto: str, mode: str
) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", answer)
        queue(bench, provider, painted(1), mode=mode)
        runner = await bench.run(provider)
        is_realtime = mode == "auto" and in_auto == "succeeded"
        assert [type(one) for one in runner.stops] == ([] if is_realtime else [stop])
        assert fates(bench) == {"succeeded" if is_realtime else "pending": 1}
        assert server.count("POST /batches") == 1
        assert outcomes(bench) == {"not_sent": 1, **({"answered": 1} if is_realtime else {})}


@pytest.mark.parametrize("mode", ["batch", "auto"])
async def test_any_other_refusal_is_tried_once_more(bench: Bench, mode: str) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /batches", *[refusal("Unknown parameter: 'metadata'.")] * 2)
        queue(bench, provider, painted(1), mode=mode)
        runner = await bench.run(provider)
        assert server.count("POST /batches") == 2
        assert bench.one("SELECT count(DISTINCT token) FROM batch") == 2
        if mode == "auto":
            assert fates(bench) == {"succeeded": 1}
        else:
            assert [type(one) for one in runner.stops] == [BatchRefused]
            assert fates(bench) == {"pending": 1}


async def test_a_provider_without_a_files_api_is_refused_and_auto_goes_in_realtime(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("POST /files", (404, {"error": {"message": "no such path"}}))
        queue(bench, provider, painted(1), mode="auto")
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}
        assert server.count("POST /images/generations") == 1


async def test_a_refused_batch_gives_its_money_back(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        one = painted(1)
        model = models().find(MODEL)
        assert model is not None
        most = model.max_cost("generation", one.prompt, one.params, 1, [])
        assert most is not None
        server.script("POST /batches", refusal("The provided model 'x' is not supported by the Batch API."))
        queue(bench, provider, one, mode="auto", budget_usd=most * 1.2)
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}


async def test_what_asks_for_no_picture_is_tried_again_until_it_is_answered(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.script("GET /batches/*", (500, {}), DROPPED, (429, {}))
        server.script("DELETE /files/*", (500, {}))
        queue(bench, provider, painted(1))
        await bench.run(provider)
        assert fates(bench) == {"succeeded": 1}

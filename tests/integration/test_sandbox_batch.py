"""The sandbox's Batch API over HTTP: a healthy service."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.batch_client import (
    EDITS,
    FINAL,
    GENERATIONS,
    QUICK,
    SMALL,
    content,
    create,
    jsonl,
    line,
    lines,
    patient,
    reaching,
    results,
    retrieve,
    send,
    upload,
)
from tests.support.sandbox_client import calling, decoded, hole, png

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.sandbox_client import Caller, Reply

SLOW: dict[str, Any] = {"seconds": [1e4, 1e4], "finalizing_seconds": 1e4}
MOMENTS = [f"{name}_at" for name in (*("in_progress", "finalizing", "completed", "failed"), *FINAL, "cancelling")]


# Create, and the way of a batch


async def test_a_batch_goes_from_validating_to_two_files(tmp_path: Path) -> None:
    asked = [*lines(4), line("bad", size="1000x1000"), line("blocked", prompt="a forbidden cat")]
    async with patient(tmp_path, **SLOW) as caller:
        batch = await send(caller, asked, metadata={"run": "7"})
        assert re.fullmatch("batch_[0-9a-f]{32}", batch["id"])
        now = int(caller.time.now)
        assert batch["status"] == "validating"
        assert (batch["created_at"], batch["expires_at"]) == (now, now + 86400)
        assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
        assert {batch[name] for name in MOMENTS} == {None}
        assert (batch["object"], batch["endpoint"], batch["completion_window"]) == ("batch", GENERATIONS, "24h")
        assert (batch["metadata"], batch["errors"], batch["usage"]) == ({"run": "7"}, None, None)

        caller.time.now += 1e4
        batch = await reaching(caller, batch["id"], "in_progress")
        assert (batch["status"], batch["in_progress_at"], batch["model"]) == ("in_progress", now + 10000, "gpt-image-2")
        assert batch["request_counts"] == {"total": 6, "completed": 0, "failed": 0}

        caller.time.now += 1e4
        batch = await reaching(caller, batch["id"], "finalizing")
        assert (batch["status"], batch["finalizing_at"]) == ("finalizing", now + 20000)
        assert batch["request_counts"] == {"total": 6, "completed": 4, "failed": 2}, "all done, and no file yet"
        assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)

        caller.time.now += 1e4
        batch = await reaching(caller, batch["id"])
        assert (batch["status"], batch["completed_at"]) == ("completed", now + 30000)
        good = await results(caller, batch["output_file_id"])
        bad = await results(caller, batch["error_file_id"])
        found = (await caller.call("GET", f"/files/{batch['output_file_id']}")).json
    assert {one["custom_id"] for one in good} == {f"line-{place}" for place in range(4)}
    assert {one["custom_id"] for one in bad} == {"bad", "blocked"}
    assert (found["purpose"], found["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")
    assert found["expires_at"] == found["created_at"] + 30 * 86400


async def test_progress_is_counted_line_by_line(tmp_path: Path) -> None:
    async with patient(tmp_path, **SLOW) as caller:
        batch = await send(caller, lines(4))
        caller.time.now += 1e4 + 5e3
        await reaching(caller, batch["id"], "in_progress")
        while (counts := (await retrieve(caller, batch["id"]))["request_counts"])["completed"] < 2:
            pass
        assert counts == {"total": 4, "completed": 2, "failed": 0}


async def test_a_good_line_is_what_a_call_at_once_answers(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        at_once = await caller.call("POST", "/images/generations", json=SMALL)
        batch = await reaching(caller, (await send(caller, [line("one")]))["id"])
        assert batch["error_file_id"] is None
        (got,) = await results(caller, batch["output_file_id"])
    assert got.keys() == {"id", "custom_id", "response", "error"}
    assert (got["custom_id"], got["error"]) == ("one", None)
    assert re.fullmatch("batch_req_[0-9a-f]{32}", got["id"])
    response = got["response"]
    assert re.fullmatch("[0-9a-f]{32}", response["request_id"])
    assert (response["status_code"], response["body"]) == (200, at_once.json)
    assert response["body"]["usage"]["output_tokens"] == 107
    assert decoded(base64.b64decode(response["body"]["data"][0]["b64_json"])).size == (1024, 640)


async def test_a_bad_line_is_in_the_error_file_with_what_a_call_at_once_answers(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        wrong: list[dict[str, Any]] = [
            {"size": "1000x1000"},
            {"prompt": "forbidden"},
            {"colour": 1},
            {"n": 11},
            {"prompt": ""},
        ]
        at_once = [await caller.call("POST", "/images/generations", json={**SMALL, **one}) for one in wrong]
        batch = await send(caller, [line(str(place), **one) for place, one in enumerate(wrong)])
        batch = await reaching(caller, batch["id"])
        got = {one["custom_id"]: one for one in await results(caller, batch["error_file_id"])}
    assert (batch["status"], batch["output_file_id"]) == ("completed", None), "also when every line failed"
    assert batch["request_counts"] == {"total": 5, "completed": 0, "failed": 5}
    for place, reply in enumerate(at_once):
        one = got[str(place)]
        assert one["error"] is None
        assert one["response"]["status_code"] == reply.status == 400
        assert one["response"]["body"] == reply.json


async def test_a_stream_is_not_for_batches(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        batch = await reaching(caller, (await send(caller, [line("one", stream=True)]))["id"])
        (got,) = await results(caller, batch["error_file_id"])
    assert got["response"]["body"]["error"]["param"] == "stream"


async def test_edits_take_uploaded_pictures_and_data_urls(tmp_path: Path) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    async with patient(tmp_path) as caller:
        image, mask = [
            (await upload(caller, picture, "x.png", purpose="vision")).json["id"] for picture in (png(), hole())
        ]
        asked = [
            line("file", EDITS, images=[{"file_id": image}], mask={"file_id": mask}),
            line("url", EDITS, images=[{"image_url": url}]),
            line("both", EDITS, images=[{"file_id": image}, {"image_url": url}]),
            line("gone", EDITS, images=[{"file_id": "file-x"}]),
            line("bare", EDITS, images=[image]),
            line("type", EDITS, images=[{"type": "file", "file_id": image}]),
            line("none", EDITS),
        ]
        batch = await reaching(caller, (await send(caller, asked, endpoint=EDITS))["id"])
        good = {one["custom_id"]: one["response"]["body"] for one in await results(caller, batch["output_file_id"])}
        bad = {one["custom_id"]: one["response"]["body"] for one in await results(caller, batch["error_file_id"])}
    assert good.keys() == {"file", "url", "both"}
    assert {name: body["error"]["param"] for name, body in bad.items()} == {
        "gone": "images[0].file_id",
        "bare": "images[0]",
        "type": "images[0].type",
        "none": "images",
    }
    masked = decoded(base64.b64decode(good["file"]["data"][0]["b64_json"])).convert("RGB")
    assert masked.getpixel((100, 100)) == (0xC0, 0x49, 0x6B), "the masked half is the uploaded picture"
    assert good["both"]["usage"]["input_tokens_details"]["image_tokens"] == 8


async def test_lines_come_in_an_order_of_the_seed(tmp_path: Path) -> None:
    orders = []
    for number, seed in enumerate((1, 1, 2)):
        async with patient(tmp_path / str(number), seed=seed) as caller:
            batch = await reaching(caller, (await send(caller, lines(12)))["id"])
            orders.append([one["custom_id"] for one in await results(caller, batch["output_file_id"])])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(one["custom_id"] for one in lines(12)) != orders[0]


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in "012":
        (tmp_path / name).mkdir()


async def test_an_input_that_is_deleted_meanwhile_is_still_worked(tmp_path: Path) -> None:
    async with patient(tmp_path, **SLOW) as caller:
        batch = await send(caller, lines(1))
        await caller.call("DELETE", f"/files/{batch['input_file_id']}")
        caller.time.now += 1e4
        await reaching(caller, batch["id"], "in_progress")
        caller.time.now += 1e4
        await reaching(caller, batch["id"], "finalizing")
        caller.time.now += 1e4
        assert (await reaching(caller, batch["id"]))["status"] == "completed"


async def test_outputs_expire_when_the_create_says(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        kept = {"anchor": "created_at", "seconds": 3600}
        batch = await reaching(caller, (await send(caller, lines(1), output_expires_after=kept))["id"])
        assert (await content(caller, batch["output_file_id"])).status == 200
        caller.time.now += 3600
        assert (await content(caller, batch["output_file_id"])).status == 404


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"input_file_id": "file-nowhere"}, "file_id"),
        ({"input_file_id": None}, "input_file_id"),
        ({"endpoint": "/v1/images/variations"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"metadata": "x"}, "metadata"),
        ({"output_expires_after": {"seconds": 3600}}, "output_expires_after.anchor"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_wrong_create_is_refused_at_once(tmp_path: Path, changed: dict[str, Any], param: str) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, jsonl(lines(1)))).json["id"]
        reply = await create(caller, file_id, **changed)
        assert (reply.status, reply.error["param"]) == (400, param)
        assert (await caller.call("GET", "/batches")).json["data"] == []
        assert caller.entries("batch") == []


async def test_a_picture_is_no_input(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, png(), "x.png", purpose="vision")).json["id"]
        reply = await create(caller, file_id)
    assert (reply.status, reply.error["param"]) == (400, "input_file_id")


# Validation


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (b"\n", [("empty_file", None, None)]),
        (b"{not json}\n" + jsonl(lines(1)), [("invalid_json_line", None, 1)]),
        (b"\xef\xbb\xbf" + jsonl(lines(2)), [("invalid_json_line", None, 1)]),
        (jsonl([line("a"), line("b"), line("a")]), [("duplicate_custom_id", "custom_id", 3)]),
        (jsonl([line("a", EDITS)]), [("url_mismatch", "url", 1)]),
        (jsonl([line("a"), line("b", model="gpt-image-1.5")]), [("model_mismatch", "body.model", 2)]),
        (jsonl([line("a", model="dall-e-2")]), [("model_not_found", "body.model", 1)]),
        (jsonl([line("a", model="gpt-9")]), [("model_not_found", "body.model", 1)]),
        (jsonl([line("a", model=None)]), [("missing_required_parameter", "body.model", 1)]),
        (
            jsonl([{"custom_id": "a", "body": {}}]),
            [("missing_required_parameter", name, 1) for name in ("method", "url")],
        ),
        (jsonl([{**line("a"), "method": "GET"}]), [("invalid_request", "method", 1)]),
        (jsonl([{**line("a"), "body": []}]), [("invalid_request", "body", 1)]),
        (jsonl([{**line("a"), "custom_id": 7}]), [("invalid_request", "custom_id", 1)]),
    ],
)
async def test_a_wrong_file_fails_its_batch_after_the_create(tmp_path: Path, asked: bytes, found: list[Any]) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, asked)).json["id"]
        created = await create(caller, file_id)
        assert (created.status, created.json["status"]) == (200, "validating")
        batch = await reaching(caller, created.json["id"])
        assert caller.entries("batch_line") == []
    assert batch["status"] == "failed"
    assert batch["failed_at"] == int(caller.time.now)
    assert (batch["output_file_id"], batch["error_file_id"], batch["in_progress_at"]) == (None, None, None)
    assert batch["request_counts"]["total"] == 0
    assert batch["errors"]["object"] == "list"
    assert [(one["code"], one["param"], one["line"]) for one in batch["errors"]["data"]] == found
    assert all(one["message"] for one in batch["errors"]["data"])


async def test_more_than_50000_lines_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sandbox.batch.validation.MAX_LINES", 3)
    async with patient(tmp_path) as caller:
        batch = await reaching(caller, (await send(caller, lines(4)))["id"])
        assert [one["code"] for one in batch["errors"]["data"]] == ["too_many_tasks"]
        assert (await reaching(caller, (await send(caller, lines(3)))["id"]))["status"] == "completed"


async def test_a_model_that_is_shut_down_is_not_supported(tmp_path: Path) -> None:
    async with calling(tmp_path, today="2026-12-01", batch=QUICK) as caller:
        batch = await reaching(caller, (await send(caller, lines(1, model="gpt-image-1.5")))["id"])
    (error,) = batch["errors"]["data"]
    assert error["message"] == "The provided model 'gpt-image-1.5' is not supported by the Batch API."


async def test_living_batches_of_one_model_share_its_enqueued_tokens(tmp_path: Path) -> None:
    asked = lines(3, prompt="x" * 400)
    async with patient(tmp_path, **SLOW, enqueued_tokens=500) as caller:
        first = await send(caller, asked)
        caller.time.now += 1e4
        assert (await reaching(caller, first["id"], "in_progress"))["status"] == "in_progress"
        second = await send(caller, asked)
        other = await send(caller, lines(3, prompt="x" * 400, model="gpt-image-1.5", size="1024x1024"))
        caller.time.now += 1e4
        second, other = [await reaching(caller, one["id"], "in_progress") for one in (second, other)]
        assert other["status"] == "in_progress", "another model has its own"
        (error,) = second["errors"]["data"]
        assert (error["code"], error["param"], error["line"]) == ("token_limit_exceeded", None, None)
        assert error["message"] == (
            "Enqueued token limit reached for gpt-image-2 in organization org-sandbox. Limit: 500 enqueued tokens. "
            "Please try again once some in_progress batches have been completed."
        )
        await reaching(caller, first["id"], "finalizing")
        caller.time.now += 1e4
        await reaching(caller, first["id"])
        again = await send(caller, asked)
        caller.time.now += 1e4
        assert (await reaching(caller, again["id"], "in_progress"))["status"] == "in_progress", "the first has ended"


async def test_of_batches_that_are_validated_together_only_some_fit(tmp_path: Path) -> None:
    async with patient(tmp_path, **{**SLOW, "seconds": [0, 1e4]}, enqueued_tokens=250) as caller:
        file_id = (await upload(caller, jsonl(lines(3, prompt="x" * 160)))).json["id"]
        made = await asyncio.gather(*(create(caller, file_id) for _ in range(8)))
        caller.time.now += 1e4
        ended = [await reaching(caller, one.json["id"], "in_progress", "finalizing") for one in made]
    statuses = [one["status"] for one in ended]
    assert (statuses.count("failed"), len(statuses)) == (6, 8), "two have 120 tokens each, a third is too many"


async def test_a_spent_quota_fails_a_batch(tmp_path: Path) -> None:
    async with calling(tmp_path, quota_images=1, batch=QUICK) as caller:
        assert (await reaching(caller, (await send(caller, lines(2)))["id"]))["status"] == "completed"
        batch = await reaching(caller, (await send(caller, lines(2)))["id"])
        assert (await caller.generate()).error["code"] == "insufficient_quota", "batches use the quota, too"
    assert [one["code"] for one in batch["errors"]["data"]] == ["billing_hard_limit_reached"]


async def test_lines_are_outside_the_rate_limit(tmp_path: Path) -> None:
    async with calling(tmp_path, rate_limit={"images": 1, "per_seconds": 60}, batch=QUICK) as caller:
        batch = await reaching(caller, (await send(caller, lines(3)))["id"])
        assert batch["request_counts"]["completed"] == 3
        assert (await caller.generate()).status == 200


async def test_faults_of_calls_that_are_errors_hit_lines(tmp_path: Path) -> None:
    async with calling(tmp_path, faults={"http_429": 0.4, "http_500": 0.4}, batch=QUICK) as caller:
        batch = await reaching(caller, (await send(caller, lines(20)))["id"])
        bad = await results(caller, batch["error_file_id"])
        entries = caller.entries("batch_line")
    assert {one["response"]["status_code"] for one in bad} == {429, 500}
    assert {entry["fault"] for entry in entries} == {None, "http_429", "http_500"}
    assert sum(entry["charged"] for entry in entries) == 20 - len(bad)


# Lists, expiry, cancel


async def test_the_list_is_newest_first_in_pages_of_20(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        file_id = (await upload(caller, jsonl(lines(1)))).json["id"]
        ids = [(await create(caller, file_id)).json["id"] for _ in range(23)][::-1]

        async def listed(query: str = "") -> tuple[list[str], bool]:
            page = (await caller.call("GET", f"/batches{query}")).json
            assert (page["object"], page["first_id"]) == ("list", page["data"][0]["id"])
            assert page["last_id"] == page["data"][-1]["id"]
            return [one["id"] for one in page["data"]], page["has_more"]

        assert await listed() == (ids[:20], True)
        assert await listed(f"?after={ids[19]}") == (ids[20:], False)
        assert await listed("?limit=23") == (ids, False)
        assert await listed(f"?limit=1&after={ids[0]}") == ([ids[1]], True)
        for query, status in (("limit=0", 400), ("limit=101", 400), ("after=batch_x", 404)):
            assert (await caller.call("GET", f"/batches?{query}")).status == status


async def test_an_unknown_batch_is_not_found(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        for method, path in (("GET", ""), ("POST", "/cancel")):
            reply = await caller.call(method, f"/batches/batch_x{path}")
            assert (reply.status, reply.error["message"]) == (404, "No batch found with id 'batch_x'.")


async def test_finished_lines_of_an_expired_batch_are_delivered_and_billed(tmp_path: Path) -> None:
    async with patient(tmp_path, **SLOW, expires_seconds=1.5e4) as caller:
        batch = await send(caller, lines(10))
        for _ in range(2):
            caller.time.now += 1e4
            batch = await reaching(caller, batch["id"], "in_progress")
        batch = await reaching(caller, batch["id"])
        good = await results(caller, batch["output_file_id"])
        rest = await results(caller, batch["error_file_id"])
        charged = [entry["custom_id"] for entry in caller.entries("batch_line") if entry["charged"]]
    assert (batch["status"], batch["expired_at"]) == ("expired", int(caller.time.now))
    assert batch["request_counts"] == {"total": 10, "completed": 5, "failed": 0}, "those that were not run failed not"
    assert [one["custom_id"] for one in good] == charged
    assert len(good) == len(rest) == 5
    assert {one["custom_id"] for one in good + rest} == {one["custom_id"] for one in lines(10)}
    assert {(one["response"], one["error"]["code"]) for one in rest} == {(None, "batch_expired")}


async def test_a_batch_may_expire_while_it_is_finalizing(tmp_path: Path) -> None:
    async with patient(tmp_path, **SLOW, expires_seconds=2.5e4) as caller:
        batch = await send(caller, lines(2))
        for status in ("in_progress", "finalizing"):
            caller.time.now += 1e4
            batch = await reaching(caller, batch["id"], status)
            assert batch["status"] == status
        caller.time.now += 1e4
        batch = await reaching(caller, batch["id"])
        assert (batch["status"], batch["error_file_id"]) == ("expired", None)
        assert len(await results(caller, batch["output_file_id"])) == 2


async def test_cancel_delivers_what_is_done_and_names_the_rest(tmp_path: Path) -> None:
    async with patient(tmp_path, **SLOW) as caller:
        batch = await send(caller, lines(8))
        caller.time.now += 1e4 + 5e3
        while (await retrieve(caller, batch["id"]))["request_counts"]["completed"] < 4:
            pass
        reply = await _cancel(caller, batch)
        assert (reply.status, reply.json["status"]) == (200, "cancelling")
        assert (reply.json["cancelling_at"], reply.json["cancelled_at"]) == (int(caller.time.now), None)
        assert (reply.json["output_file_id"], reply.json["error_file_id"]) == (None, None)
        again = await _cancel(caller, batch)
        assert (again.status, again.json["status"]) == (200, "cancelling")
        caller.time.now += 1e4
        batch = await reaching(caller, batch["id"])
        good, rest = [await results(caller, batch[name]) for name in ("output_file_id", "error_file_id")]
        last = await _cancel(caller, batch)
        assert (last.status, last.json) == (200, batch), "one that is cancelled is answered as it is"
    assert (batch["status"], batch["cancelled_at"]) == ("cancelled", int(caller.time.now))
    assert batch["request_counts"] == {"total": 8, "completed": 4, "failed": 0}
    assert (len(good), len(rest)) == (4, 4)
    assert {one["custom_id"] for one in good + rest} == {one["custom_id"] for one in lines(8)}
    assert {(one["response"], one["error"]["code"]) for one in rest} == {(None, "batch_cancelled")}


async def _cancel(caller: Caller, batch: Any) -> Reply:
    return await caller.call("POST", f"/batches/{batch['id']}/cancel")


async def test_a_batch_that_is_cancelled_before_it_is_validated_has_no_files(tmp_path: Path) -> None:
    async with patient(tmp_path, **SLOW) as caller:
        batch = await send(caller, lines(2))
        await _cancel(caller, batch)
        caller.time.now += 1e4
        batch = await reaching(caller, batch["id"])
        assert caller.entries("batch_line") == []
    assert (batch["status"], batch["output_file_id"], batch["error_file_id"]) == ("cancelled", None, None)


async def test_a_batch_that_has_ended_cannot_be_cancelled(tmp_path: Path) -> None:
    async with patient(tmp_path) as caller:
        batch = await reaching(caller, (await send(caller, lines(1)))["id"])
        reply = await _cancel(caller, batch)
    assert (reply.status, reply.error["message"]) == (409, "Cannot cancel a batch with status 'completed'.")
    assert (reply.error["type"], reply.error["param"], reply.error["code"]) == ("invalid_request_error", None, None)


async def test_a_batch_that_is_finalizing_cannot_be_cancelled(tmp_path: Path) -> None:
    async with patient(tmp_path, **{**SLOW, "seconds": [0, 0]}) as caller:
        batch = await reaching(caller, (await send(caller, lines(1)))["id"], "finalizing")
        reply = await _cancel(caller, batch)
        assert (reply.status, reply.error["message"]) == (409, "Cannot cancel a batch with status 'finalizing'.")


# Money


async def test_a_line_costs_half_of_a_call_at_once(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [{}, {"n": 3}, {"quality": "high"}, {"prompt": "x" * 1000}]
    async with patient(tmp_path) as caller:
        for one in asked:
            await caller.call("POST", "/images/generations", json={**SMALL, **one})
        batch = await send(
            caller, [line(str(place), **one) for place, one in enumerate(asked)], metadata={"pipeline": "t"}
        )
        batch = await reaching(caller, batch["id"])
        calls = caller.entries("call")
        entries = {entry["custom_id"]: entry for entry in caller.entries("batch_line")}
        (made,) = caller.entries("batch")
    assert calls[0]["cost_usd"] == pytest.approx((2 * 5 + 107 * 30) / 1e6)
    for place, call in enumerate(calls):
        entry = entries[str(place)]
        assert entry["cost_usd"] == pytest.approx(call["cost_usd"] / 2)
        assert (entry["charged"], entry["n"], entry["model"]) == (call["charged"], call["n"], "gpt-image-2")
        assert (entry["batch"], entry["prompt"], entry["status"]) == (batch["id"], call["prompt"], 200)
    assert (made["batch"], made["input_file"], made["metadata"]) == (
        batch["id"],
        batch["input_file_id"],
        {"pipeline": "t"},
    )

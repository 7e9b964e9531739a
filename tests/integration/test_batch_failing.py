"""Batches that fail validation: what each reason means for their requests."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.engine.batches.verdicts import classify_errors, classify_refusal, stated_limit
from pipeline.engine.events import RequestEnded
from pipeline.errors import BatchRefused, Invalid, KeyRefused, ModelUnknown, QuotaSpent
from tests.support.batch_server import OTHER, batch_lab, batch_service, fates, kinds, outcomes, painted, queue, refusal

if TYPE_CHECKING:
    from tests.support.batch_server import BatchServer
    from tests.support.workbench import Bench

FULL = (
    "Enqueued token limit reached for M in organization O. Limit: {} enqueued tokens. Please try again once some end."
)
CAP = "Cannot find file file-9, or organization org-1 does not have access to it."


def error(code: str, message: str = "no", param: str | None = None, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}


async def failing(server: BatchServer, bench: Bench, *errors: dict[str, Any], times: int = 1, **how: Any) -> Any:
    """Run while the next batches fail with these errors; return the runner."""
    server.errors = list(errors)
    server.courses = [("validating", "failed")] * times
    provider = batch_lab(server.url, **how.pop("rules", {}))
    queue(bench, provider, *(painted(number) for number in range(how.pop("count", 4))), **how)
    return await bench.run(provider)


@pytest.mark.parametrize("mode", ["batch", "auto"])
async def test_a_full_queue_waits_and_spends_no_attempt(bench: Bench, mode: str) -> None:
    async with batch_service() as server:
        moments: list[float] = []
        server.at_call = lambda call: moments.append(time.monotonic()) if call == "POST /batches" else None
        rules = {"poll_seconds": (0.02, 0.2)}
        full = error("token_limit_exceeded", FULL.format("1,000,000"))
        await failing(server, bench, full, times=3, mode=mode, rules=rules)
        assert fates(bench) == {"succeeded": 4}
        assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(moments))
        assert (bench.one("SELECT max(attempts) FROM request"), len(server.batches)) == (1, 4)
        assert outcomes(bench) == {"not_sent": 12, "answered": 4}
        assert server.count("POST /images/generations") == 0


async def test_a_full_queue_has_room_again_when_a_batch_of_the_model_ends(bench: Bench) -> None:
    async with batch_service() as server:
        server.errors = [error("token_limit_exceeded", FULL.format("1,000,000"))]
        server.courses = [("validating", *["in_progress"] * 5, "completed"), ("failed",)]
        provider = batch_lab(server.url, poll_seconds=(0.02, 30.0), most_requests=2)
        queue(bench, provider, *(painted(number) for number in range(4)))
        async_began = time.monotonic()
        await bench.run(provider)
        assert time.monotonic() - async_began < 10
        assert fates(bench) == {"succeeded": 4}


async def test_the_limit_that_the_service_states_bounds_the_next_batches(bench: Bench) -> None:
    async with batch_service() as server:
        await failing(server, bench, error("token_limit_exceeded", FULL.format("10")), count=6)
        assert [len(lines) for lines in server.inputs()] == [6, 2, 2, 2]
        assert fates(bench) == {"succeeded": 6}


async def test_a_lone_line_above_the_limit_fails(bench: Bench) -> None:
    async with batch_service() as server:
        await failing(server, bench, error("token_limit_exceeded", FULL.format("3")), count=1)
        assert fates(bench) == {"failed": 1}
        assert "Enqueued token limit" in bench.one("SELECT error FROM request")
        assert [type(one.error) for one in kinds(bench, RequestEnded)] == [Invalid]


async def test_a_lone_line_below_the_limit_waits(bench: Bench) -> None:
    async with batch_service() as server:
        await failing(server, bench, error("token_limit_exceeded", FULL.format("900")), count=1, times=2)
        assert fates(bench) == {"succeeded": 1}


async def test_errors_of_lines_in_their_bodies_fail_these_requests_alone(bench: Bench) -> None:
    async with batch_service() as server:
        wrong = [error("invalid_value", f"line {line} is wrong", "body.size", line) for line in (2, 4)]
        await failing(server, bench, *wrong)
        assert list(bench.statuses().values()) == ["succeeded", "failed", "succeeded", "failed"]
        assert "line 2 is wrong" in bench.one("SELECT error FROM request WHERE position = 1")
        assert [len(lines) for lines in server.inputs()] == [4, 2]
        assert bench.ask("SELECT attempts, maybe_paid, cost_usd IS NULL FROM request ORDER BY position") == [
            (1, 0, 0), (0, 0, 1), (1, 0, 0), (0, 0, 1),
        ]  # fmt: skip


async def test_an_error_of_one_line_fails_a_request_of_several_lines(bench: Bench) -> None:
    async with batch_service() as server:
        server.errors = [error("invalid_value", "wrong", "body.size", 2)]
        server.courses = [("failed",)]
        provider = batch_lab(server.url, more={"images_per_call": 1})
        queue(bench, provider, painted(1, n=3), painted(2))
        await bench.run(provider)
        assert list(bench.statuses().values()) == ["failed", "succeeded"]


@pytest.mark.parametrize("line", [0, 99])
async def test_an_error_of_a_line_that_is_not_there_does_not_go_on_for_ever(bench: Bench, line: int) -> None:
    async with batch_service() as server:
        runner = await failing(server, bench, error("invalid_value", "no", "body.size", line), times=2)
        assert [type(stop) for stop in runner.stops] == [BatchRefused]
        assert fates(bench) == {"pending": 4}


@pytest.mark.parametrize(
    "errors",
    [
        [error("duplicate_custom_id", line=1, param="custom_id")],
        [error("url_mismatch", line=1, param="url")],
        [error("invalid_json_line", line=2)],
        [error("model_mismatch", line=2)],
        [error("server_error", "an internal error")],
        [],
    ],
)
@pytest.mark.parametrize("mode", ["batch", "auto"])
async def test_what_is_ours_or_unknown_is_sent_once_more_and_then_refused(
    bench: Bench, errors: list[dict[str, Any]], mode: str
) -> None:
    async with batch_service() as server:
        runner = await failing(server, bench, *errors, times=2, mode=mode)
        assert len(server.batches) == 2
        assert len({batch["metadata"]["pipeline"] for batch in server.batches}) == 2
        if mode == "auto":
            assert fates(bench) == {"succeeded": 4}
            assert (server.count("POST /images/generations"), runner.stops) == (4, [])
        else:
            assert fates(bench) == {"pending": 4}
            assert [type(stop) for stop in runner.stops] == [BatchRefused]


async def test_what_fails_once_is_sent_again_in_the_same_run(bench: Bench) -> None:
    async with batch_service() as server:
        runner = await failing(server, bench, error("server_error"))
        assert (fates(bench), runner.stops, len(server.batches)) == ({"succeeded": 4}, [], 2)


async def test_each_group_and_each_run_may_fail_once(bench: Bench) -> None:
    async with batch_service() as server:
        server.errors = [error("server_error")]
        server.courses = [("failed",)] * 2
        provider = batch_lab(server.url)
        queue(bench, provider, painted(1), painted(2, model=OTHER))
        assert (await bench.run(provider)).stops == []
        server.courses = [("failed",)]
        queue(bench, provider, painted(1), painted(2, model=OTHER), painted(3))
        assert (await bench.run(provider)).stops == []
        assert fates(bench) == {"succeeded": 3}


@pytest.mark.parametrize("mode", ["batch", "auto"])
@pytest.mark.parametrize(
    "one",
    [
        error("model_not_found", param="body.model", line=1),
        error("x", "'M' is not supported by the Batch API.", line=1),
    ],
)
async def test_a_model_that_batches_do_not_take_is_refused_at_once(
    bench: Bench, mode: str, one: dict[str, Any]
) -> None:
    async with batch_service() as server:
        runner = await failing(server, bench, one, mode=mode)
        assert len(server.batches) == 1
        assert fates(bench) == {"succeeded" if mode == "auto" else "pending": 4}
        assert [type(stop) for stop in runner.stops] == ([] if mode == "auto" else [ModelUnknown])


@pytest.mark.parametrize("mode", ["batch", "auto"])
@pytest.mark.parametrize(
    ("one", "stop"),
    [
        (error("billing_hard_limit_reached", "Billing hard limit has been reached."), QuotaSpent),
        (error("insufficient_quota", "You exceeded your current quota."), QuotaSpent),
        (error("invalid_api_key", "Incorrect API key provided."), KeyRefused),
    ],
)
async def test_money_and_key_stop_as_in_realtime(bench: Bench, mode: str, one: dict[str, Any], stop: type) -> None:
    async with batch_service() as server:
        runner = await failing(server, bench, one, mode=mode)
        assert [type(found) for found in runner.stops] == [stop]
        assert fates(bench) == {"pending": 4}
        assert server.count("POST /images/generations") == 0


async def test_a_quota_stop_collects_what_is_out_and_sends_nothing_new(bench: Bench) -> None:
    async with batch_service() as server:
        server.errors = [error("insufficient_quota", "You exceeded your current quota.")]
        server.courses = [("validating", *["in_progress"] * 8, "completed"), ("failed",)]
        provider = batch_lab(server.url, most_requests=2)
        queue(bench, provider, *(painted(number) for number in range(4)))
        runner = await bench.run(provider)
        assert [type(stop) for stop in runner.stops] == [QuotaSpent]
        assert fates(bench) == {"succeeded": 2, "pending": 2}
        assert len(server.batches) == 2


@pytest.mark.parametrize("mode", ["batch", "auto"])
async def test_a_batch_that_fails_for_a_file_that_is_there_is_a_spend_cap(bench: Bench, mode: str) -> None:
    async with batch_service() as server:
        server.add("batch", "x", b"")
        server.files["file-9"] = server.files.popitem()[1]
        server.files["file-9"].id = "file-9"
        runner = await failing(server, bench, error("invalid_request", CAP), mode=mode)
        assert [type(stop) for stop in runner.stops] == [QuotaSpent]
        assert "monthly budget" in str(runner.stops[0])
        assert (fates(bench), len(server.batches)) == ({"pending": 4}, 1)


async def test_the_input_file_is_looked_for_if_the_message_names_none(bench: Bench) -> None:
    async with batch_service() as server:
        runner = await failing(server, bench, error("invalid_request", "Cannot find file, or access is denied"))
        assert [type(stop) for stop in runner.stops] == [QuotaSpent]
        place = server.calls.index("GET /files/*")
        assert "DELETE /files/*" not in server.calls[:place]


async def test_a_batch_that_fails_for_a_file_that_is_gone_is_uploaded_anew(bench: Bench) -> None:
    async with batch_service() as server:
        await failing(server, bench, error("invalid_request", CAP))
        assert (fates(bench), len(server.batches)) == ({"succeeded": 4}, 2)


def test_a_limit_is_read_from_a_message() -> None:
    assert stated_limit(FULL.format("1,234,567")) == 1_234_567
    assert stated_limit("nothing") is None


def test_verdicts_prefer_what_reaches_furthest() -> None:
    from pipeline.client.batch_objects import BatchError

    full = BatchError("token_limit_exceeded", "full", None, None)
    cap = BatchError("invalid_request", CAP, None, None)
    line = BatchError("invalid_value", "no", "body.n", 1)
    assert classify_errors([line, cap, full]).fate == "wait for room"
    assert classify_errors([line, cap]).fate == "check file"
    assert classify_errors([line, BatchError("x", "", None, None)]).fate == "fail lines"
    assert classify_errors([BatchError(None, "", None, None)]).error.message.endswith(": None")
    assert classify_refusal(Invalid("no", http_status=400), "lab").fate == "again"
    assert refusal("a")[0] == 400

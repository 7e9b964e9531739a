"""What final batches bring: both files, every kind of line, downloads that break, and money that is booked once."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.load import Config, DownloadRules, RetryRules
from pipeline.engine.events import BatchCollected, BatchLineIgnored, BatchSent, RequestEnded
from pipeline.errors import KeyRefused, NotDelivered, QuotaSpent
from tests.support.batch_server import (
    attempts,
    batch_lab,
    batch_service,
    by_prompt,
    collected,
    done,
    failed,
    fates,
    kinds,
    outcomes,
    painted,
    queue,
    unanswered,
)
from tests.support.workbench import PNG_BASE64, picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.workbench import Bench

    Line = dict[str, Any]


async def test_both_files_are_read_and_lines_are_told_by_their_id(bench: Bench) -> None:
    async with batch_service() as server:
        pictures = {f"prompt {number}": picture(8 + number) for number in range(4)}
        server.work = lambda line: [done(line, base64.b64encode(pictures[line["body"]["prompt"]]).decode())]
        await collected(bench, server)
        for position, content in enumerate(pictures.values()):
            file = bench.one(
                "SELECT file FROM image i JOIN request r ON r.pk = i.request WHERE r.position = ?", position
            )
            assert (bench.folder / "job" / file).read_bytes() == content


async def test_a_batch_of_which_every_line_failed_has_an_error_file_alone(bench: Bench) -> None:
    async with batch_service(work=lambda line: [failed(line, 400, "wrong size")]) as server:
        await collected(bench, server)
        assert server.batches[0]["output_file_id"] is None
        assert fates(bench) == {"failed": 4}
        assert bench.one("SELECT count(*) FROM request WHERE error LIKE '%wrong size%'") == 4
        assert outcomes(bench) == {"refused": 4}


@pytest.mark.parametrize("status", ["expired", "cancelled"])
async def test_what_was_not_run_is_pending_at_no_cost_and_is_no_failure(bench: Bench, status: str) -> None:
    bench.retry = RetryRules(attempts=2, unknown=0, max_wait_seconds=0.01)
    async with batch_service() as server:
        code = "batch_expired" if status == "expired" else None

        def work(line: Line) -> list[Any]:
            name = line["body"]["prompt"]
            if len(server.batches) > 4 or name in {"prompt 0", "prompt 3"}:
                return [done(line)]
            return [unanswered(line, code)] if name == "prompt 1" else []

        server.work = work
        server.courses = [("in_progress", status)] * 4
        await collected(bench, server)
        assert [len(lines) for lines in server.inputs()] == [4, 2, 2, 2, 2]
        assert fates(bench) == {"succeeded": 4}
        assert attempts(bench) == [1, 5, 5, 1]
        assert bench.one("SELECT sum(maybe_paid) FROM request") == 0
        assert bench.one("SELECT count(*) FROM attempt WHERE cost_usd IS NOT NULL") == 4


@pytest.mark.parametrize("status", ["expired", "cancelled"])
async def test_pictures_of_a_batch_that_ended_early_are_kept(bench: Bench, status: str) -> None:
    async with batch_service(work=by_prompt(p0=lambda _line: [])) as server:
        server.courses = [("in_progress", status)]
        await collected(bench, server)
        assert outcomes(bench) == {"answered": 4, "refused": 1}
        first, last = kinds(bench, BatchCollected)
        assert (first.succeeded, first.failed, first.returned, last.succeeded) == (3, 0, 1, 1)


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        ("completed", "server_error", "refused"),
        ("completed", None, "refused"),
        ("expired", "server_error", "refused"),
        ("cancelled", "whatever", "refused"),
    ],
)
async def test_other_codes_without_a_response_are_as_a_500(
    bench: Bench, status: str, code: str | None, outcome: str
) -> None:
    bench.retry = RetryRules(attempts=2, max_wait_seconds=0.01)
    async with batch_service(work=lambda line: [unanswered(line, code)]) as server:
        server.courses = [("in_progress", status)] * 2
        server.course = ("completed",)
        await collected(bench, server, 1)
        counts = status != "cancelled"
        assert len(server.batches) == (2 if counts else 4)
        assert fates(bench) == {"failed": 1}
        assert set(outcomes(bench)) == {outcome}
        assert bench.one("SELECT maybe_paid FROM request") == 0


async def test_a_line_that_a_completed_batch_lacks_is_unknown_within_retry_unknown(bench: Bench) -> None:
    bench.retry = RetryRules(attempts=9, unknown=2, max_wait_seconds=0.01)
    async with batch_service(work=lambda line: [] if line["body"]["prompt"] == "prompt 1" else [done(line)]) as server:
        await collected(bench, server)
        assert fates(bench) == {"succeeded": 3, "failed": 1}
        assert [len(lines) for lines in server.inputs()] == [4, 1, 1]
        assert bench.one("SELECT maybe_paid FROM request WHERE position = 1") == 3
        assert outcomes(bench) == {"answered": 3, "unknown": 3}


BAD: dict[str, Callable[[Line], bytes | Line]] = {
    "half": lambda line: json.dumps(done(line)).encode()[:60],
    "not an object": lambda _line: b"[1, 2]",
    "no JSON": lambda _line: b"\x00\xff",
    "NaN": lambda line: json.dumps({**done(line), "x": float("nan")}).encode(),
    "foreign": lambda line: {**done(line), "custom_id": "another-1"},
    "foreign number": lambda line: {**done(line), "custom_id": line["custom_id"].split("-")[0] + "-99999"},
    "huge number": lambda line: {**done(line), "custom_id": line["custom_id"].split("-")[0] + "-" + "9" * 40},
    "no id": lambda line: {**done(line), "custom_id": None},
    "no status": lambda line: {**done(line), "response": {"status_code": "200", "body": {}}},
    "oversized": lambda line: json.dumps({**done(line), "x": "y" * 3_000_000}).encode(),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_malformed_or_unknown_line_is_reported_and_harms_no_other(bench: Bench, name: str) -> None:
    async with batch_service() as server:
        server.work = by_prompt(p1=lambda line: [BAD[name](line)])
        provider = batch_lab(server.url)
        queue(bench, provider, *(painted(number) for number in range(4)))
        config = Config(
            None, bench.folder, None, {"lab": provider}, retry=bench.retry, download=DownloadRules(max_bytes=9_000)
        )
        runner = bench.runner(provider)
        runner._config = config
        await runner.run()
        assert fates(bench) == {"succeeded": 4}
        assert outcomes(bench) == {"answered": 4, "unknown": 1}
        ignored = kinds(bench, BatchLineIgnored)
        assert len(ignored) == (0 if name == "foreign number" else 1)


@pytest.mark.parametrize("status", ["expired", "cancelled"])
async def test_a_malformed_line_of_a_batch_that_ended_early_is_unknown_and_others_were_not_run(
    bench: Bench, status: str
) -> None:
    async with batch_service() as server:
        server.courses = [("in_progress", status)]
        server.work = by_prompt(p1=lambda line: [json.dumps(done(line)).encode()[:90]], p2=lambda _line: [])
        await collected(bench, server)
        assert bench.ask("SELECT maybe_paid FROM request ORDER BY position") == [(0,), (1,), (0,), (0,)]
        assert outcomes(bench) == {"answered": 4, "unknown": 1, "refused": 1}


async def test_a_success_that_the_service_counts_and_no_file_has_is_unknown_in_an_expired_batch_too(
    bench: Bench,
) -> None:
    async with batch_service() as server:
        server.courses = [("in_progress", "expired")]
        server.work = by_prompt(p1=lambda _line: [], p2=lambda line: [unanswered(line)])

        def count(batch: dict[str, Any]) -> None:
            if batch["status"] == "expired":
                batch["request_counts"]["completed"] = 3

        server.change = count
        await collected(bench, server)
        assert bench.ask("SELECT maybe_paid FROM request ORDER BY position") == [(0,), (1,), (0,), (0,)]


async def test_a_duplicate_line_is_booked_once(bench: Bench) -> None:
    async with batch_service(work=lambda line: [done(line), done(line)]) as server:
        await collected(bench, server, 6, n=2)
        assert outcomes(bench) == {"answered": 6}
        assert bench.one("SELECT count(*) FROM image") == 12
        each = bench.one("SELECT cost_usd FROM attempt LIMIT 1")
        assert bench.one("SELECT sum(cost_usd) FROM request") == pytest.approx(6 * each)
        assert len(list((bench.folder / "job" / "images").iterdir())) == 12


@pytest.mark.parametrize("is_first", [True, False])
async def test_with_a_success_and_an_error_for_one_id_the_success_counts(bench: Bench, is_first: bool) -> None:
    async with batch_service() as server:

        def both(line: Line) -> list[Any]:
            wrong = [failed(line, 400), unanswered(line, "server_error")]
            found = [done(line), *wrong, *(json.dumps(one).encode() for one in wrong)]  # these in the output file
            return found if is_first else found[::-1]

        server.work = both
        await collected(bench, server)
        assert fates(bench) == {"succeeded": 4}
        assert outcomes(bench) == {"answered": 4}


async def test_errors_in_lines_have_the_classes_of_realtime(bench: Bench) -> None:
    blocked = "Your request was rejected by the safety system."
    async with batch_service() as server:
        server.work = by_prompt(
            p0=lambda line: [failed(line, 400, blocked, "moderation_blocked")],
            p1=lambda line: [failed(line, 400, "Invalid size", "invalid_value")],
            p2=lambda line: [failed(line, 500, "oops")],
            p3=lambda line: [failed(line, 429, "Rate limit reached", "rate_limit_exceeded")],
        )
        await collected(bench, server, 6)
        assert list(bench.statuses().values()) == ["failed", "failed", *["succeeded"] * 4]
        kinds_of = bench.ask("SELECT json_extract(error, '$.kind') FROM request WHERE status = 'failed'")
        assert kinds_of == [("Moderated",), ("Invalid",)]
        assert [len(lines) for lines in server.inputs()] == [6, 2]
        assert {event.id: event.status for event in kinds(bench, RequestEnded)} == bench.statuses()


async def test_a_500_in_lines_counts_against_retry_attempts_and_a_429_does_not(bench: Bench) -> None:
    bench.retry = RetryRules(attempts=2, max_wait_seconds=0.01)
    rounds = {"prompt 0": 0}
    async with batch_service() as server:

        def work(line: Line) -> list[Any]:
            if line["body"]["prompt"] == "prompt 1":
                return [failed(line, 500)]
            rounds["prompt 0"] += 1
            return [failed(line, 429, "Rate limit reached")] if rounds["prompt 0"] < 5 else [done(line)]

        server.work = work
        await collected(bench, server, 2)
        assert list(bench.statuses().values()) == ["succeeded", "failed"]
        assert attempts(bench) == [5, 2]
        assert bench.one("SELECT total(paused_until) FROM provider") == 0  # no pause was recorded


async def test_a_429_in_lines_does_not_shorten_the_tries_after_a_500(bench: Bench) -> None:
    bench.retry = RetryRules(attempts=2, max_wait_seconds=0.01)
    answers: list[Callable[[Line], Line]] = [
        lambda line: failed(line, 429, "Rate limit reached"),
        lambda line: failed(line, 429, "Rate limit reached"),
        lambda line: failed(line, 500),
        done,
    ]
    async with batch_service(work=lambda line: [answers.pop(0)(line)]) as server:
        await collected(bench, server, 1)
        assert fates(bench) == {"succeeded": 1}


async def test_what_comes_back_is_sent_together_after_the_last_living_batch_of_its_group(bench: Bench) -> None:
    async with batch_service() as server:
        slow = ("validating", *["in_progress"] * 30, "completed")
        server.courses = [("completed",), ("completed",), slow]
        first: set[str] = set()

        def once(line: Line) -> list[Any]:
            is_first = line["body"]["prompt"] not in first
            first.add(line["body"]["prompt"])
            return [failed(line, 500)] if is_first else [done(line)]

        server.work = once
        await collected(bench, server, 6, most_requests=2)
        assert [len(lines) for lines in server.inputs()] == [2, 2, 2, 2, 2, 2]
        place = [event.id for event in bench.events if isinstance(event, BatchSent | BatchCollected)]
        assert place.index(server.batches[2]["id"], place.index(server.batches[2]["id"]) + 1) < place.index(
            server.batches[3]["id"]
        )
        assert fates(bench) == {"succeeded": 6}


async def test_what_comes_back_from_several_batches_shares_the_next_one(bench: Bench) -> None:
    async with batch_service() as server:
        server.work = by_prompt(p0=lambda line: [failed(line, 500)], p2=lambda line: [failed(line, 500)])
        await collected(bench, server, 4, most_images=2)
        assert sorted(len(lines) for lines in server.inputs()) == [2, 2, 2]


@pytest.mark.parametrize(
    ("status", "code", "stop"), [(401, "invalid_api_key", KeyRefused), (429, "insufficient_quota", QuotaSpent)]
)
async def test_refusals_of_all_lines_stop_and_their_requests_are_pending(
    bench: Bench, status: int, code: str, stop: type
) -> None:
    async with batch_service(work=lambda line: [failed(line, status, "no", code)]) as server:
        runner = await collected(bench, server)
        assert {type(one) for one in runner.stops} == {stop}
        assert fates(bench) == {"pending": 4}
        assert len(server.batches) == 1


async def test_a_refusal_of_one_line_fails_it_alone_unless_it_is_of_money(bench: Bench) -> None:
    async with batch_service() as server:
        server.work = by_prompt(p1=lambda line: [failed(line, 403, "verify your organization")])
        runner = await collected(bench, server)
        assert (runner.stops, fates(bench)) == ([], {"succeeded": 3, "failed": 1})
    async with batch_service() as server:
        provider = batch_lab(server.url)
        server.work = by_prompt(p5=lambda line: [failed(line, 429, "no", "insufficient_quota")])
        queue(bench, provider, *(painted(number) for number in range(4, 8)), name="second")
        runner = await bench.run(provider)
        assert [type(one) for one in runner.stops] == [QuotaSpent]
        assert fates(bench, "second") == {"succeeded": 3, "pending": 1}


async def test_a_batch_that_was_paid_and_brought_no_picture_stops_the_provider(bench: Bench) -> None:
    async with batch_service(work=lambda line: [done(line, "bm8gcGljdHVyZQ==")]) as server:
        runner = await collected(bench, server)
        assert [type(one) for one in runner.stops] == [NotDelivered]
        assert (len(server.batches), outcomes(bench)) == (1, {"unknown": 4})


async def test_a_broken_picture_beside_whole_ones_is_made_again_within_retry_unknown(bench: Bench) -> None:
    bench.retry = RetryRules(unknown=1, max_wait_seconds=0.01)
    async with batch_service() as server:
        server.work = lambda line: [done(line, *[PNG_BASE64] * (line["body"]["n"] - 1), "bm8=")]
        await collected(bench, server, 1, n=3)
        assert fates(bench) == {"partial": 1}
        assert bench.one("SELECT received FROM request") == 2
        assert len(server.batches) == 2


async def test_fewer_pictures_than_asked_for_are_completed_by_the_next_batch(bench: Bench) -> None:
    async with batch_service(work=lambda line: [done(line, PNG_BASE64)]) as server:
        await collected(bench, server, 2, n=3)
        assert fates(bench) == {"succeeded": 2}
        assert [[line["body"]["n"] for line in lines] for lines in server.inputs()] == [[3, 3], [2, 2], [1, 1]]


async def test_two_lines_of_one_request_share_its_numbers(bench: Bench) -> None:
    async with batch_service() as server:
        provider = batch_lab(server.url, more={"images_per_call": 1})
        queue(bench, provider, painted(1, n=5))
        await bench.run(provider)
        assert [row[0] for row in bench.ask("SELECT number FROM image ORDER BY number")] == [1, 2, 3, 4, 5]
        assert attempts(bench) == [5]

"""What is written down on a request's way, and what each entry changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import Moderated, NotSent, OutcomeUnknown, RequestError, ServerFault
from pipeline.ledger import attempts, recovery
from pipeline.ledger.attempts import ImageUrl, ResponseRecord
from pipeline.storage import StoredImage
from tests.support.workbench import request

if TYPE_CHECKING:
    from pipeline.ledger.queue import QueuedRequest
    from tests.support.workbench import Bench

ROW = "SELECT status, attempts, maybe_paid, received, moderated, cost_usd, finished_at FROM request"


def _begin(bench: Bench, n: int = 1) -> tuple[QueuedRequest, int]:
    queued = bench.works()[0]
    begun = attempts.begin(bench.connection, queued.pk, "lab", "http://x/v1", n, 0.5, 100)
    assert begun is not None
    return queued, begun[0]


def _reply(**more: Any) -> ResponseRecord:
    plain = {
        "http_status": 200,
        "request_id": "req_1",
        "usage": None,
        "cost_usd": 0.25,
        "sent_at": 101,
        "ended_at": 110,
    }
    return ResponseRecord(**{**plain, **more})


def _file(number: int) -> StoredImage:
    return StoredImage(number, f"images/a-{number}.png", "0" * 64, 5, 16, 16, "png", None)


def test_a_call_is_written_down_before_it_is_sent(bench: Bench) -> None:
    bench.submit(request(1, n=3))
    _begin(bench, 3)
    assert bench.ask(ROW) == [("running", 1, 0, 0, 0, None, None)]
    assert bench.ask("SELECT request, provider, n, estimate_usd, sent_at, outcome FROM attempt") == [
        (1, "lab", 3, 0.5, 100, None)
    ]
    assert bench.one("SELECT endpoint FROM request") == "http://x/v1"


@pytest.mark.parametrize(
    ("error", "counted", "maybe_paid", "sent_at"),
    [
        (NotSent("no way"), 0, 0, 100),
        (ServerFault("busy", http_status=503, request_id="req_9"), 1, 0, 102),
        (OutcomeUnknown("cut"), 1, 1, 102),
    ],
)
def test_a_failed_call_is_counted_as_what_it_was(
    bench: Bench, error: RequestError, counted: int, maybe_paid: int, sent_at: float
) -> None:
    bench.submit(request(1))
    _, attempt = _begin(bench)
    attempts.record_failure(bench.connection, attempt, error, error.outcome, None if counted == 0 else 102, 103)
    assert bench.ask(ROW) == [("running", counted, maybe_paid, 0, 0, None, None)]
    assert bench.ask("SELECT outcome, sent_at, ended_at, http_status, request_id FROM attempt") == [
        (error.outcome, sent_at, 103, error.http_status, error.request_id)
    ]
    assert json.loads(bench.one("SELECT error FROM request"))["message"] == error.message


def test_a_call_that_was_called_off_is_none(bench: Bench) -> None:
    bench.submit(request(1))
    _, attempt = _begin(bench)
    attempts.record_withdrawal(bench.connection, attempt, 101)
    assert bench.ask("SELECT outcome, ended_at FROM attempt") == [("not_sent", 101)]
    assert bench.one("SELECT attempts FROM request") == 0


def test_an_answers_urls_are_written_down_as_paid(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    queued, attempt = _begin(bench, 2)
    urls = [ImageUrl(number, f"http://x/{number}", 900, "revised") for number in (1, 2)]
    paid, succeeded = attempts.record_response(
        bench.connection, queued, attempt, _reply(usage={"input_tokens": 3}), urls, []
    )
    assert not succeeded
    assert [(url.number, url.url, url.expires_at) for url in paid] == [(1, "http://x/1", 900), (2, "http://x/2", 900)]
    assert bench.ask("SELECT pk, state, url, revised_prompt FROM image") == [
        (paid[0].image_pk, "paid", "http://x/1", "revised"),
        (paid[1].image_pk, "paid", "http://x/2", "revised"),
    ]
    assert bench.ask(ROW) == [("running", 1, 0, 0, 0, 0.25, None)]
    assert bench.ask("SELECT outcome, request_id, usage, cost_usd, sent_at FROM attempt") == [
        ("answered", "req_1", '{"input_tokens": 3}', 0.25, 101)
    ]


def test_the_picture_that_completes_a_request_ends_it(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    queued, attempt = _begin(bench, 2)
    paid, succeeded = attempts.record_response(
        bench.connection, queued, attempt, _reply(), [ImageUrl(2, "http://x", 900, None)], [_file(1)]
    )
    assert (succeeded, bench.one("SELECT status FROM request")) == (False, "running")
    assert attempts.record_download(bench.connection, queued.pk, paid[0].image_pk, _file(2), 120)
    assert bench.ask(ROW) == [("succeeded", 1, 0, 2, 0, 0.25, 120)]
    assert bench.ask("SELECT state, url, file FROM image ORDER BY number") == [
        ("stored", None, "images/a-1.png"),
        ("stored", None, "images/a-2.png"),
    ]


def test_costs_of_several_answers_add_up_and_an_unknown_one_takes_nothing_away(bench: Bench) -> None:
    bench.submit(request(1, n=9))
    for cost in (0.25, None, 0.5):
        queued, attempt = _begin(bench)
        attempts.record_response(bench.connection, queued, attempt, _reply(cost_usd=cost, moderated=1), [], [])
        recovery.requeue(bench.connection, queued.pk)
    assert bench.ask("SELECT cost_usd, moderated FROM request") == [(0.75, 3)]


def test_a_lost_url_is_forgotten_and_its_number_is_free_again(bench: Bench) -> None:
    bench.submit(request(1))
    queued, attempt = _begin(bench)
    paid, _ = attempts.record_response(
        bench.connection, queued, attempt, _reply(), [ImageUrl(1, "http://x", 900, None)], []
    )
    attempts.record_expired_url(bench.connection, paid[0].image_pk)
    recovery.requeue(bench.connection, queued.pk)
    (again,) = bench.works()
    assert (again.numbers, again.missing, again.urls) == (frozenset(), 1, ())


@pytest.mark.parametrize(
    ("n", "received", "moderated", "error", "ending"),
    [
        (2, 0, 0, ServerFault("busy", http_status=503), "failed"),
        (2, 1, 0, ServerFault("busy", http_status=503), "partial"),
        (2, 2, 0, ServerFault("busy", http_status=503), "succeeded"),  # n was lowered meanwhile
        (2, 2, 0, None, "succeeded"),
        (2, 1, 0, None, "pending"),  # n was raised meanwhile
        (3, 1, 1, None, "pending"),
        (2, 1, 1, None, "partial"),
        (2, 0, 2, None, "failed"),
    ],
)
def test_how_a_request_ends_is_reckoned_from_what_the_job_asks_for_now(
    bench: Bench, n: int, received: int, moderated: int, error: RequestError | None, ending: str
) -> None:
    bench.submit(request(1, n=n))
    bench.set("UPDATE request SET status = 'running', received = ?, moderated = ?", received, moderated)
    said = attempts.finish(bench.connection, 1, error, 150)
    assert said[0] == bench.one("SELECT status FROM request") == ending
    assert bench.one("SELECT finished_at FROM request") == (None if ending == "pending" else 150)
    assert (said[1] is None) == (bench.one("SELECT error FROM request") is None) == (ending in {"succeeded", "pending"})
    if moderated and ending != "pending":
        assert isinstance(said[1], Moderated)
        assert f"{moderated} of {n}" in said[1].message


def test_an_end_does_not_undo_what_somebody_else_decided(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET status = 'cancelled'")
    attempts.finish(bench.connection, 1, ServerFault("busy"), 150)
    recovery.requeue(bench.connection, 1)
    assert bench.one("SELECT status FROM request") == "cancelled"


def test_what_was_sent_within_the_window_is_remembered_by_provider_and_unsent_calls_are_not(bench: Bench) -> None:
    bench.submit(request(1))
    for provider, sent_at, n, outcome in [
        ("lab", 10, 1, "answered"),
        ("lab", 60, 3, "refused"),
        ("lab", 55, 2, "unknown"),
        ("lab", 70, 4, "not_sent"),
        ("lab", 80, 5, None),
        ("openai", 75, 6, "answered"),
    ]:
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES (1, ?, ?, ?, ?, ?)",
            *(provider, n, sent_at, None if outcome is None else 99, outcome),
        )
    assert attempts.sent_since(bench.connection, "lab", 50) == [(55, 2), (60, 3), (80, 5)]


def test_the_longest_pause_holds(bench: Bench) -> None:
    assert attempts.paused_until(bench.connection, "lab") == 0
    for until in (100, 300, 200):
        attempts.record_pause(bench.connection, "lab", until)
    assert attempts.paused_until(bench.connection, "lab") == 300

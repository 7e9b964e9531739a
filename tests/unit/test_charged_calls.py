"""What the ledger reads of calls that may have been charged, and how they are settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import OutcomeUnknown
from pipeline.ledger import purchases
from pipeline.ledger.attempts import ResponseRecord, committed_usd
from pipeline.ledger.charged_calls import called_providers, compared_until, read_charged_calls, settle_calls
from pipeline.ledger.queue import read_queued
from pipeline.ledger.recovery import recover
from pipeline.storage import StoredImage
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

ROW = "SELECT maybe_paid, cost_usd FROM request"


def _lose(bench: Bench, sent_at: float) -> int:
    begun = purchases.begin(bench.connection, 1, "lab", "http://x/v1", 2, 0.5, sent_at, "body", None)
    assert begun is not None
    lost = OutcomeUnknown("cut", type="ServerDisconnectedError")
    purchases.record_failure(bench.connection, begun.pk, lost, "unknown", sent_at, sent_at + 5)
    return begun.pk


def _answer(bench: Bench, sent_at: float, *, is_replay: bool) -> float:
    begun = purchases.begin(bench.connection, 1, "lab", "http://x/v1", 2, 0.5, sent_at, "body", None)
    assert begun is not None
    files = [StoredImage(number, f"images/a-{number}.png", "0" * 64, 5, 16, 16, "png", None) for number in (1, 2)]
    record = ResponseRecord(200, "req_1", None, 0.25, sent_at, sent_at + 5)
    (queued,) = read_queued(bench.connection, [1])
    return purchases.record_response(bench.connection, queued, begun.pk, record, [], files, is_replay=is_replay)[2]


def test_calls_that_may_have_been_charged_are_read_with_their_request(bench: Bench) -> None:
    bench.submit(request(1, n=2, quality="standard"))
    _lose(bench, 100.0)
    _answer(bench, 200.0, is_replay=False)
    lost, answered = read_charged_calls(bench.connection, ["lab"], 0.0)
    assert (lost.outcome, lost.images, lost.is_known, lost.error_type) == (
        "unknown",
        2,
        False,
        "ServerDisconnectedError",
    )
    assert (lost.model, lost.size, lost.quality, lost.operation) == ("dall-e-2", "256x256", "standard", "generation")
    assert (answered.outcome, answered.images, answered.is_known, answered.number) == ("answered", 2, True, 2)
    assert (answered.first_sent_at, answered.idempotency_key) == (200.0, lost.idempotency_key)
    assert [one.attempt_pk for one in read_charged_calls(bench.connection, ["lab"], 150.0)] == [2]
    assert read_charged_calls(bench.connection, ["other"], 0.0) == []
    assert called_providers(bench.connection) == {"lab"}


def test_a_replay_settles_the_calls_before_it_and_is_dated_to_the_first(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    _lose(bench, 100.0)
    _lose(bench, 150.0)
    assert bench.ask(ROW) == [(2, None)]
    assert _answer(bench, 200.0, is_replay=True) == 1.0
    assert bench.ask(ROW) == [(0, 0.25)]
    (answered,) = read_charged_calls(bench.connection, ["lab"], 0.0)
    assert (answered.attempt_pk, answered.first_sent_at) == (3, 100.0)


def test_a_replay_replaces_what_was_found_charged_for_its_purchase(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    first, second = _lose(bench, 100.0), _lose(bench, 150.0)
    settle_calls(bench.connection, [(first, "charged", 0.3)], ["lab"], 120.0)
    assert bench.ask(ROW) == [(1, 0.3)]
    assert _answer(bench, 200.0, is_replay=True) == 0.8, "what was charged, and the estimate of the other"
    assert bench.one("SELECT maybe_paid FROM request") == 0
    assert abs(bench.one("SELECT cost_usd FROM request") - 0.25) < 1e-9
    assert committed_usd(bench.connection, 1) == 0.25
    assert bench.ask("SELECT pk, settled FROM attempt WHERE outcome = 'unknown'") == [
        (first, "replayed"),
        (second, "replayed"),
    ]


def test_a_call_that_is_open_is_read_and_one_that_the_ledger_was_told_of_is_not(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    purchases.begin(bench.connection, 1, "lab", "http://x/v1", 2, 0.5, 100.0, "body", None)
    (one,) = read_charged_calls(bench.connection, ["lab"], 500.0)
    assert (one.outcome, one.ended_at, one.images) == (None, None, 2)
    bench.set("UPDATE attempt SET outcome = 'answered', ended_at = sent_at")
    assert read_charged_calls(bench.connection, ["lab"], 0.0) == []


def test_settling_records_what_was_charged_and_until_when_all_is_known(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    first, second, third = (_lose(bench, at) for at in (100.0, 200.0, 300.0))
    assert compared_until(bench.connection, ["lab", "other"]) == 100.0
    assert committed_usd(bench.connection, 1) == 1.5
    settle_calls(bench.connection, [(first, "charged", 0.2), (second, "not_charged", None)], ["lab"], 250.0)
    assert bench.ask(ROW) == [(1, 0.2)]
    assert bench.ask("SELECT settled, cost_usd FROM attempt") == [("charged", 0.2), ("not_charged", 0.0), (None, None)]
    assert committed_usd(bench.connection, 1) == 0.7
    settle_calls(bench.connection, [(first, "not_charged", None), (third, "charged", None)], ["lab"], 240.0)
    assert bench.ask(ROW) == [(0, 0.2)], "what is settled stays, and a price that is not known adds nothing"
    assert compared_until(bench.connection, ["lab"]) == 250.0
    assert [one.attempt_pk for one in read_charged_calls(bench.connection, ["lab"], 0.0)] == [first, third]


def test_nothing_is_compared_before_the_first_call(bench: Bench) -> None:
    assert compared_until(bench.connection, ["lab"]) is None


def test_a_death_is_counted_until_the_next_call(bench: Bench) -> None:
    bench.submit(request(1, n=2))
    purchases.begin(bench.connection, 1, "lab", "http://x/v1", 2, 0.5, 100.0, "body", None)
    assert recover(bench.connection, 200.0) == 1
    assert bench.works()[0].cut_off == 1
    assert recover(bench.connection, 201.0) == 0
    assert bench.works()[0].cut_off == 1
    _lose(bench, 300.0)
    recover(bench.connection, 400.0)
    assert (bench.works()[0].cut_off, bench.ask(ROW)) == (0, [(2, None)])


def test_a_request_that_was_withdrawn_is_not_begun(bench: Bench) -> None:
    bench.submit(request(1))
    assert purchases.begin(bench.connection, 1, "lab", "http://x/v1", 5, 0.5, 100.0, "body", None) is None

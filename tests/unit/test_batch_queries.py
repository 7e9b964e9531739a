"""Batches as people see them: in order, those that are out, and what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.ledger.batch_queries import BatchesOut, InBatches, read_batch_cost, read_batches
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.put_back import Selection, put_back
from tests.support.workbench import request

if TYPE_CHECKING:
    from pipeline.ledger.job_summary import JobSummary
    from tests.support.workbench import Bench

MINUTE = 1_790_000_000.0


def _summary(bench: Bench, **discounts: float) -> JobSummary:
    (summary,) = read_job_summaries(bench.connection, None, discounts)
    return summary


def _end(bench: Bench, batch_pk: int, outcome: str = "answered", cost_usd: float | None = None) -> None:
    bench.set("UPDATE batch SET ended_at = ?, status = 'completed' WHERE pk = ?", MINUTE, batch_pk)
    bench.set(
        "UPDATE attempt SET outcome = ?, ended_at = ?, cost_usd = ? WHERE batch = ?",
        *(outcome, MINUTE, cost_usd, batch_pk),
    )


def test_batches_come_in_their_order_with_those_that_are_being_sent_and_without_those_that_never_were(
    bench: Bench,
) -> None:
    bench.submit(*map(request, range(4)))
    done = bench.send_batch(1, id="batch_b")
    bench.send_batch(2, id="batch_a", status="validating")
    bench.send_batch(3, id=None, status=None)
    never = bench.send_batch(4, id=None, status=None)
    _end(bench, done)
    _end(bench, never, "not_sent")
    found = read_batches(bench.connection, 1)
    assert [(one.id, one.status, one.is_living) for one in found] == [
        ("batch_b", "completed", False),
        ("batch_a", "validating", True),
        (None, "sending", True),
    ]


def test_what_is_out_is_added_up_with_its_first_and_its_last_moment(bench: Bench) -> None:
    bench.submit(*map(request, range(6)))
    bench.send_batch(1, 2, completed=1, sent_at=MINUTE + 60, expires_at=MINUTE + 90_000)
    bench.send_batch(3, 4, completed=1, failed=1, sent_at=MINUTE, expires_at=MINUTE + 86_400)
    bench.send_batch(5, id=None, status=None)
    _end(bench, bench.send_batch(6, completed=1, sent_at=MINUTE - 60, expires_at=MINUTE + 99_000))
    assert _summary(bench).out == BatchesOut(3, 5, 2, 1, MINUTE, MINUTE + 90_000)
    assert BatchesOut.of([]) == BatchesOut()


def test_in_a_batch_is_what_has_no_result_yet_of_a_batch_that_is_out(bench: Bench) -> None:
    bench.submit(*map(request, range(5)))
    bench.send_batch(1, 2, 3)
    _end(bench, bench.send_batch(4))
    bench.set("UPDATE attempt SET outcome = 'answered', ended_at = 1 WHERE request = 1")  # collected before the others
    bench.set("UPDATE request SET status = 'succeeded' WHERE pk = 1")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (5, 'lab', 1, 1)")  # a call in flight
    bench.set("UPDATE request SET status = 'running' WHERE pk = 5")
    assert _summary(bench).in_batches == InBatches(2, 2)
    bench.submit(*map(request, (0, 1, 3, 4)))  # 2 is superseded, and out all the same
    assert _summary(bench).in_batches == InBatches(1, 1)


def test_a_request_that_is_in_two_batches_counts_once_and_each_of_its_images(bench: Bench) -> None:
    bench.submit(request(1, n=2), request(2))
    bench.send_batch(1, id="batch_1")
    bench.send_batch(1, id="batch_2")
    assert _summary(bench).in_batches == InBatches(1, 2)
    bench.set("UPDATE attempt SET outcome = 'answered', ended_at = 1 WHERE batch = 1")
    assert _summary(bench).in_batches == InBatches(1, 1), "its other line is still out"


@pytest.mark.parametrize(
    ("mode", "realtime_since", "expected"),
    [("realtime", None, 2.0), ("batch", None, 1.0), ("auto", None, 1.0), ("auto", 5.0, 2.0)],
)
def test_what_is_to_come_by_batch_costs_less(
    bench: Bench, mode: str, realtime_since: float | None, expected: float
) -> None:
    bench.submit(request(1), request(2))
    bench.set("UPDATE request SET estimate_usd = 1.0")
    bench.set("UPDATE job SET mode = ?, realtime_since = ?", mode, realtime_since)
    assert _summary(bench, lab=0.5).expected_usd == expected
    assert _summary(bench, other=0.5).expected_usd == 2.0, "this provider has no Batch API"
    bench.set("UPDATE request SET estimate_usd = NULL")
    assert _summary(bench, lab=0.5).expected_usd is None


def test_the_cost_of_batches_is_that_of_their_lines(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    assert read_batch_cost(bench.connection, "job") is None
    _end(bench, bench.send_batch(1), cost_usd=0.25)
    bench.set("INSERT INTO attempt (request, provider, n, sent_at, cost_usd) VALUES (2, 'lab', 1, 1, 7)")
    assert read_batch_cost(bench.connection, "JOB") == 0.25


def test_what_is_in_a_batch_is_not_put_back(bench: Bench) -> None:
    bench.submit(request(1), request(2), request(3))
    bench.send_batch(1, 2)
    bench.set("UPDATE request SET status = 'failed' WHERE pk = 3")
    (found,) = put_back(bench.connection, Selection(("job",)))
    assert found.requests == 1
    assert bench.ask("SELECT status FROM request ORDER BY pk") == [("running",), ("running",), ("pending",)]
    assert bench.one("SELECT count(*) FROM attempt WHERE outcome IS NULL") == 2

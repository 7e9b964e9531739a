"""Job summaries: requests by status, images, what they cost, what is missing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger.job_summary import STATUSES, read_job_summaries, received_images
from pipeline.ledger.lock import run_lock
from pipeline.ledger.recovery import recover
from pipeline.reports.report_data import read_report_data
from pipeline.reports.status import status_json, status_lines
from tests.support.workbench import LAB, request

if TYPE_CHECKING:
    from tests.support.workbench import Bench


def test_an_account_counts_each_status_once(bench: Bench) -> None:
    bench.submit(*(request(number, id=str(number), n=3) for number in range(8)))
    bench.submit(*(request(number, id=str(number), n=3) for number in range(7)))
    for number, status in enumerate(["pending", "running", "succeeded", "partial", "failed", "cancelled"]):
        bench.set("UPDATE request SET status = ?, received = 1, maybe_paid = 1 WHERE id = ?", status, str(number))
    bench.set("UPDATE request SET received = 2, cost_usd = 0.25, maybe_paid = 3 WHERE id IN ('2', '7')")
    (summary,) = read_job_summaries(bench.connection)
    assert summary.counts == {**dict.fromkeys(STATUSES, 1), "pending": 2}
    assert (summary.images, summary.missing, summary.maybe_paid) == (9, 7, 11)
    assert summary.cost_usd == pytest.approx(0.5)
    assert (summary.unfinished, summary.unsuccessful) == (3, 2)


def test_calls_in_flight_of_a_dead_run_may_be_paid(bench: Bench) -> None:
    bench.submit(request(1), request(2), request(3))
    for outcome, ended_at, pk in ((None, None, 1), (None, None, 2), ("answered", 2, 3)):
        bench.set(
            "INSERT INTO attempt (request, provider, n, sent_at, outcome, ended_at) VALUES (?, 'lab', 1, 1, ?, ?)",
            *(pk, outcome, ended_at),
        )
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        assert read_job_summaries(bench.connection)[0].maybe_paid == 0
    (summary,) = read_job_summaries(bench.connection)
    assert summary.maybe_paid == 2
    assert "2 more calls may have been paid" in "".join(status_lines([summary], {}))
    assert status_json([summary])["jobs"][0]["maybe_paid"] == 2
    assert read_report_data(bench.connection, "job")["maybe_paid"] == 2
    recover(bench.connection)
    assert read_job_summaries(bench.connection)[0].maybe_paid == 2


def test_more_images_than_asked_are_not_missing_ones_of_others(bench: Bench) -> None:
    bench.submit(request(1, n=2), request(2, n=2))
    bench.set("UPDATE request SET received = 5 WHERE prompt = 'prompt 1'")
    assert read_job_summaries(bench.connection)[0].missing == 2


def test_costs_are_unknown_where_none_is_known(bench: Bench) -> None:
    bench.submit(request(1))
    assert read_job_summaries(bench.connection)[0].cost_usd is None


def test_accounts_come_the_oldest_job_first_and_only_those_asked_for(bench: Bench) -> None:
    for name, rehearsal in (("b", {}), ("a", None)):
        bench.submit(request(1), name=name, provider=dataclasses.replace(LAB, sandbox=rehearsal))
    assert [(summary.name, summary.rehearsal) for summary in read_job_summaries(bench.connection)] == [
        ("b", True),
        ("a", False),
    ]
    assert [summary.name for summary in read_job_summaries(bench.connection, ["a"])] == ["a"]


def test_what_is_paid_and_not_here_yet_is_had(bench: Bench) -> None:
    bench.submit(request(1, n=3), request(2))
    bench.set("UPDATE request SET received = 1 WHERE pk = 1")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 3, 1)")
    for number, state, url in ((2, "paid", "http://x"), (3, "lost", None)):
        bench.set(
            "INSERT INTO image (request, attempt, job, number, state, url) VALUES (1, 1, 1, ?, ?, ?)",
            *(number, state, url),
        )
    assert received_images(bench.connection, "JOB") == {request(1).key: 2, request(2).key: 0}

"""What is put back into the queue: what a person asked for, with what it may cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import Moderated, ServerFault
from pipeline.ledger.error_kind import error_json
from pipeline.ledger.put_back import JobPutBack, Selection, find_ended, put_back
from pipeline.reports.failure_report import read_causes
from pipeline.reports.next_command import WITHOUT_OPTIONS
from pipeline.reports.put_back import put_back_lines
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

STATUSES = ("pending", "running", "succeeded", "partial", "failed", "cancelled")


def _ended(bench: Bench, name: str) -> None:
    """Make a job that has a busy server's failure, a refusal of the policy, and a cancelled request."""
    bench.submit(*(request(number, id=str(number)) for number in range(3)), name=name)
    errors = [error_json(ServerFault("busy", http_status=500)), error_json(Moderated("no", http_status=400)), None]
    for number, (status, error) in enumerate(zip(("failed", "failed", "cancelled"), errors, strict=True)):
        bench.set(
            "UPDATE request SET status = ?, error = ?, estimate_usd = 0.5"
            " WHERE id = ? AND job = (SELECT pk FROM job WHERE name = ?)",
            *(status, error, str(number), name),
        )


def test_a_named_job_gets_back_what_ended_without_all_its_images(bench: Bench) -> None:
    for name in ("one", "two"):
        bench.submit(*(request(number, id=str(number)) for number in range(6)), name=name)
    for number, status in enumerate(STATUSES):
        bench.set("UPDATE request SET status = ?, moderated = 1, finished_at = 9 WHERE id = ?", status, str(number))
    (found,) = put_back(bench.connection, Selection(("ONE",)))
    assert (found.job, found.requests) == ("one", 3)
    assert list(bench.statuses("one").values()) == ["pending", "running", "succeeded", "pending", "pending", "pending"]
    assert bench.statuses("two")["4"] == "failed"
    assert bench.ask("SELECT moderated, finished_at FROM request WHERE id = '4'") == [(0, None), (1, 9)]


def test_superseded_requests_are_left_alone(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    bench.set("UPDATE request SET status = 'failed'")
    bench.submit(request(2))
    assert [one.requests for one in put_back(bench.connection, Selection())] == [1]


@pytest.mark.parametrize(
    ("selection", "back"),
    [
        (Selection(), ["0"]),
        (Selection(cancelled=True), ["0", "2"]),
        (Selection(kinds=frozenset({"Moderated"})), ["1"]),
        (Selection(kinds=frozenset({"Moderated", "ServerFault"})), ["0", "1"]),
        (Selection(("night",)), ["0", "1", "2"]),
        (Selection(("night",), frozenset({"ServerFault"})), ["0"]),
        (Selection(("night",), frozenset({"ServerFault"}), cancelled=True), ["0", "2"]),
        (Selection(kinds=frozenset({"UrlLost"})), []),
        (Selection(statuses=frozenset({"failed"})), ["0"]),
        (Selection(("night",), statuses=frozenset({"failed"})), ["0", "1"]),
        (Selection(statuses=frozenset({"cancelled"})), ["2"]),
        (Selection(statuses=frozenset({"cancelled"}), kinds=frozenset({"ServerFault"})), []),
        (Selection(statuses=frozenset({"failed", "cancelled"}), ids=frozenset({"1", "2"})), ["1", "2"]),
        (Selection(ids=frozenset({"1"})), ["1"]),
        (Selection(ids=frozenset({"1"}), kinds=frozenset({"ServerFault"})), []),
        (Selection(ids=frozenset({"7"})), []),
    ],
)
def test_what_was_cancelled_or_refused_comes_back_only_if_it_is_asked_for(
    bench: Bench, selection: Selection, back: list[str]
) -> None:
    _ended(bench, "night")
    put_back(bench.connection, selection)
    assert [id_ for id_, status in bench.statuses("night").items() if status == "pending"] == back


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "moderation_blocked", "http_status": 400}, "Moderated"),
        ({"code": "no_such_size", "http_status": 400}, "Invalid"),
        ({"http_status": 429}, "ServerFault"),
        ({"message": "cut"}, "ServerFault"),
        ({"http_status": 400, "kind": "KeyRefused"}, "KeyRefused"),
        (None, "ServerFault"),
    ],
)
def test_an_error_of_an_old_ledger_without_a_class_has_the_class_that_its_report_names(
    bench: Bench, error: dict[str, Any] | None, kind: str
) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET status = 'failed', error = ?", None if error is None else json.dumps(error))
    (found,) = find_ended(bench.connection, Selection())
    assert (found.requests, found.moderated_left) == ((0, 1) if kind == "Moderated" else (1, 0))
    assert [one.requests for one in find_ended(bench.connection, Selection(kinds=frozenset({kind})))] == [1]
    assert [cause.kind for cause in read_causes(bench.connection, ["job"])] == [kind]


def test_cost_and_what_is_left_alone_are_said_in_lines(bench: Bench) -> None:
    _ended(bench, "night")
    bench.submit(request(9, n=4), name="paid")
    bench.set("UPDATE request SET status = 'partial', received = 1, estimate_usd = 0.4 WHERE n = 4")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) SELECT pk, 'lab', 1, 1 FROM request WHERE n = 4")
    bench.set(
        "INSERT INTO image (request, attempt, job, state, number, url)"
        " SELECT request, a.pk, r.job, 'paid', 2, 'https://a.example' FROM attempt a JOIN request r ON r.pk = request"
    )
    found = find_ended(bench.connection, Selection())
    assert found == [
        JobPutBack("night", "lab", False, 1, 1, 0, 0.5, 1, 1, 0),
        JobPutBack("paid", "lab", False, 1, 2, 1, 0.2, 0, 0, 0),
    ]
    assert list(put_back_lines(found, WITHOUT_OPTIONS)) == [
        "put back: 1 request of `night`: 1 image, about $0.50",
        "put back: 1 request of `paid`: 2 images, about $0.20, 1 image paid already and downloaded at no cost",
        "left alone: 1 cancelled request of `night`; to put back, type: pipeline resume night",
        (
            "left alone: 1 request of `night` that the content policy refused; change the prompt and run the job file,"
            " or type: pipeline resume night"
        ),
    ]
    bench.set("UPDATE request SET estimate_usd = NULL")
    assert "1 image, cost unknown" in next(put_back_lines(find_ended(bench.connection, Selection()), WITHOUT_OPTIONS))


def test_beside_a_run_of_another_job_what_is_put_back_counts_as_submitted_now(bench: Bench) -> None:
    bench.submit(request(1), name="one", now=5)
    bench.set("UPDATE request SET status = 'failed'")
    put_back(bench.connection, Selection())
    assert bench.one("SELECT submitted_at FROM job") == 5
    bench.set("UPDATE request SET status = 'failed'")
    put_back(bench.connection, Selection(), for_run_at_work=True)
    assert bench.one("SELECT submitted_at FROM job") > 5


def test_what_goes_by_batch_is_put_back_at_the_price_of_batches(bench: Bench) -> None:
    for name, mode in (("day", "realtime"), ("late", "auto"), ("night", "batch")):
        bench.submit(request(1), name=name)
        bench.set("UPDATE job SET mode = ? WHERE name = ?", mode, name)
    bench.set("UPDATE job SET realtime_since = 1 WHERE name = 'late'")
    bench.set("UPDATE request SET status = 'cancelled', estimate_usd = 0.4")
    chosen = Selection(cancelled=True)
    assert [one.cost_usd for one in find_ended(bench.connection, chosen, {"lab": 0.25})] == [0.4, 0.4, 0.4 * 0.75]
    assert [one.cost_usd for one in put_back(bench.connection, chosen)] == [0.4] * 3

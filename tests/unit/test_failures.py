"""Failures are grouped by cause, with an example, advice and the commands to type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline import errors, ledger
from pipeline.errors import Invalid, Moderated, RequestError, ServerFault, Stop, TryAgain
from pipeline.ledger import attempts
from pipeline.reports.failures import ADVICE, causes_json, read_causes
from tests.support.workbench import request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

POLICY = Moderated("the policy refused it", http_status=400, code="content_policy_violation")
BUSY = ServerFault("busy", http_status=500)


def fail(bench: Bench, number: int, error: RequestError, job: str = "job") -> None:
    """Record that the request of this number failed."""
    request_ = bench.one(
        "SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE r.prompt = ? AND j.name = ?",
        f"prompt {number}",
        job,
    )
    attempts.finish(bench.connection, request_, error, 1.0)


def test_requests_that_failed_for_one_reason_are_one_cause_whatever_the_server_s_words(bench: Bench) -> None:
    bench.submit(*(request(number, id=f"cat-{number}") for number in range(5)))
    fail(bench, 0, BUSY)
    fail(bench, 2, Moderated("refused: req_2", http_status=400, code="content_policy_violation"))
    fail(bench, 1, Moderated("refused: req_1", http_status=400, code="content_policy_violation"))
    first, second = read_causes(bench.connection, ["job"])
    assert (first.kind, first.code, first.http_status, first.count) == (
        "Moderated",
        "content_policy_violation",
        400,
        2,
    )
    assert (first.jobs[0].id, first.jobs[0].message) == ("cat-1", "refused: req_1"), (
        "the first in the order of the job file"
    )
    assert (second.kind, second.count, second.jobs[0].id) == ("ServerFault", 1, "cat-0")
    assert read_causes(bench.connection, ["another"]) == []


def test_what_succeeded_or_is_superseded_is_no_failure(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    fail(bench, 1, BUSY)
    bench.submit(request(2))
    assert read_causes(bench.connection, ["job"]) == []


def test_what_no_second_try_mends_is_edited_and_run_and_all_else_is_resumed(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "lounge.yaml"
    bench.submit(request(1), request(2), name="lounge", file=file)
    bench.submit(request(1), name="lounge.lab", file=file)
    bench.submit(request(1), name="python")
    fail(bench, 1, POLICY, "lounge")
    fail(bench, 2, BUSY, "lounge")
    fail(bench, 1, Invalid("no", http_status=400), "lounge.lab")
    fail(bench, 1, POLICY, "python")
    causes = read_causes(bench.connection, ["lounge", "lounge.lab", "python"])
    assert {(one.kind, tuple(job.job for job in one.jobs)): one.commands for one in causes} == {
        ("Moderated", ("lounge", "python")): [("run", str(file))],
        ("ServerFault", ("lounge",)): [("resume", "lounge")],
        ("Invalid", ("lounge.lab",)): [("run", str(file), "--provider", "lab")],
    }


@pytest.mark.parametrize(("status", "kind"), [(400, "Invalid"), (500, "ServerFault"), (None, "ServerFault")])
def test_an_error_of_before_classes_were_written_down_is_guessed_by_its_status(
    bench: Bench, status: int | None, kind: str
) -> None:
    bench.submit(request(1))
    said = json.dumps({"http_status": status, "type": None, "code": None, "message": "no"})
    bench.set("UPDATE request SET status = 'failed', error = ?", said)
    assert read_causes(bench.connection, ["job"])[0].kind == kind


def test_every_error_that_a_request_can_end_with_has_an_advice_of_its_own() -> None:
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, RequestError)]
    ends = [one for one in kinds if not one.__subclasses__() and not issubclass(one, Stop)]
    free = {one.__name__ for one in ends if issubclass(one, TryAgain) and not one.counted}
    assert {one.__name__ for one in ends} - free == set(ADVICE)


def test_the_causes_in_json(bench: Bench) -> None:
    bench.submit(request(1, id="cat"))
    fail(bench, 1, POLICY)
    (shown,) = causes_json(read_causes(bench.connection, ["job"]))
    assert (shown["job"], shown["kind"], shown["count"]) == ("job", "Moderated", 1)
    assert shown["example"] == {"id": "cat", "message": "the policy refused it"}


def test_messages_that_differ_by_more_than_numbers_are_causes_of_their_own(bench: Bench) -> None:
    bench.submit(*(request(number) for number in range(3)))
    for number, message in enumerate(("size 17 is unknown", "size 18 is unknown", "quality is unknown")):
        fail(bench, number, Invalid(message, http_status=400, code="invalid_value"))
    assert [(one.title, one.count) for one in read_causes(bench.connection, ["job"])] == [
        ("400 invalid_value", 2),
        ("400 invalid_value", 1),
    ]


def test_where_there_is_no_ledger_nothing_failed(tmp_path: Path) -> None:
    with ledger.reading(tmp_path) as connection:
        assert read_causes(connection, ["job"]) == []
    assert not list(tmp_path.iterdir())

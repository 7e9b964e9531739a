"""Failures are grouped by cause, with an example, advice and the commands to type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline import errors, ledger
from pipeline.engine.failed_calls import REFUSALS
from pipeline.errors import Invalid, Moderated, OutcomeUnknown, RequestError, ServerFault, Stop, TryAgain, Unusable
from pipeline.ledger import attempts
from pipeline.reports.advice import ADVICE, STOP_ADVICE
from pipeline.reports.failure_report import causes_json, read_causes
from pipeline.reports.next_command import NextCommand
from pipeline.storage import QuarantinedFile
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
        ("Invalid", ("lounge.lab",)): [("run", str(file), "--provider", "lab"), ("resume", "lounge.lab")],
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
    assert {one.__name__ for one in ends} - free | {one.__name__ for one in REFUSALS} | {"WrongPath"} == set(ADVICE)
    stops = {one.__name__ for one in kinds if issubclass(one, Stop) and one is not Stop}
    assert stops == set(STOP_ADVICE)


def test_the_causes_in_json(bench: Bench) -> None:
    bench.submit(request(1, id="cat"))
    fail(bench, 1, POLICY)
    (shown,) = causes_json(read_causes(bench.connection, ["job"]), NextCommand(None, ()))
    assert (shown["job"], shown["kind"], shown["count"]) == ("job", "Moderated", 1)
    assert shown["example"] == {"id": "cat", "message": "the policy refused it"}
    assert shown["commands"] == []  # a job made in Python has no file to edit
    bench.set("UPDATE job SET file = 'cats.yaml'")
    (shown,) = causes_json(read_causes(bench.connection, ["job"]), NextCommand(None, ("--output", "x")))
    assert shown["commands"] == ["pipeline run cats.yaml --output x"]


def test_a_job_made_in_python_is_edited_in_its_program_and_only_typed_commands_are_named(bench: Bench) -> None:
    bench.submit(request(1), request(2), request(3), name="small")
    for number, error in enumerate((POLICY, Invalid("no", http_status=400), OutcomeUnknown("cut", http_status=524)), 1):
        fail(bench, number, error, "small")
    for number in (4, 5, 6):
        bench.submit(*(request(one) for one in (1, 2, 3, number)), name="small")
        lose(bench, number, 100.0)
    causes = {cause.kind: cause for cause in read_causes(bench.connection, ["small"])}
    assert {kind: cause.commands for kind, cause in causes.items()} == {
        "Moderated": [],
        "Invalid": [("resume", "small")],
        "OutcomeUnknown": [("resume", "small")],
    }
    for cause in causes.values():
        assert "in the Python program that made the job" in cause.advice
        assert "job file" not in cause.advice
        assert "pipeline run" not in cause.advice
    bench.set("UPDATE job SET file = '/small.yaml'")
    for cause in read_causes(bench.connection, ["small"]):
        assert "in the job file and run it with `pipeline run`" in cause.advice
        assert cause.commands[0] == ("run", "/small.yaml")


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


def lose(bench: Bench, number: int, seconds: float, status: int | None = 524, kind: str = "html") -> None:
    """Record that the response to a call was lost after this long, and that its request failed with that."""
    error = OutcomeUnknown("cut", http_status=status, type=kind)
    pk = bench.one("SELECT pk FROM request WHERE prompt = ?", f"prompt {number}")
    begun = attempts.begin(bench.connection, pk, "lab", "", 1, 0.25, 100.0)
    assert begun is not None
    attempts.record_failure(bench.connection, begun[0], error, "unknown", 100.0, 100.0 + seconds)


@pytest.mark.parametrize(
    ("status", "kind", "seconds", "told"),
    [
        (524, "html", [100.4, 99.8, 100.9, 31.0], "a gateway, cuts calls after about 100 s: 3 calls ended so"),
        (504, "html", [0.41, 0.42, 0.45], "cuts calls after about 0.42 s: 3 calls"),
        (None, "ServerDisconnectedError", [60.0, 60.1, 60.2], "cuts calls after about 60.1 s: 3 calls"),
        (None, "TimeoutError", [30.0, 30.0, 30.0], "`timeout_seconds` cuts calls after 30 s: 3 calls"),
        (524, "html", [100.0, 100.5], None),
        (524, "html", [40.0, 60.0, 80.0, 100.0], None),
        (502, "html", [0.5, 0.5, 0.5], None),
    ],
)
def test_calls_that_are_cut_after_the_same_seconds_say_that_a_gateway_does_it_and_what_helps(
    bench: Bench, tmp_path: Path, status: int | None, kind: str, seconds: list[float], told: str | None
) -> None:
    bench.submit(*(request(number) for number in range(len(seconds) + 2)), file=tmp_path / "job.yaml")
    for number, one in enumerate(seconds):
        lose(bench, number, one, status, kind)
        fail(bench, number, OutcomeUnknown("cut", http_status=status, type=kind))
    lose(bench, len(seconds), 100.2, 500)  # another status is another cause
    (cause,) = read_causes(bench.connection, ["job"])
    if told is None:
        assert (cause.advice, cause.commands) == (ADVICE["OutcomeUnknown"], [("resume", "job")])
        return
    assert told in cause.advice
    assert "each may have been paid, for $0.75 at most" in cause.advice
    for helps in ("smaller `size`", "lower `quality`", "`images_per_call: 1`", "`timeout_seconds`"):
        assert helps in cause.advice
    assert cause.commands == [("run", str(tmp_path / "job.yaml")), ("resume", "job")]


def test_bytes_that_came_instead_of_an_image_are_said_with_where_they_lie(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    fail(bench, 1, Unusable("damaged", http_status=200))
    fail(bench, 2, Unusable("damaged", http_status=200))
    attempts.record_quarantine(bench.connection, 2, [QuarantinedFile("quarantine/two.bin", "0" * 64, 3, "damaged")])
    assert read_causes(bench.connection, ["job"])[0].advice == (
        f"{ADVICE['Unusable']}; what came instead is kept beside the images, in job/quarantine/two.bin"
    )

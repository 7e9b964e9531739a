"""One ledger, read by terminal, live page, report, notification and JSON: each fact is the same in all of them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import GiveUp, RequestError, TryAgain, errors
from pipeline.cli.output import summary_json
from pipeline.cli.summary import summary_lines
from pipeline.config.load import Config, Provider, RateLimit
from pipeline.engine.events import CallSent, ProviderPace, RunStarted
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.lock import find_owner, run_lock
from pipeline.models.table import Models
from pipeline.notifications.message import end_message
from pipeline.notifications.notifier import Notifier
from pipeline.progress.from_events import EventTotals
from pipeline.progress.from_ledger import read_view
from pipeline.progress.watch import _json as print_watch_json
from pipeline.reports.estimate import estimate_plan
from pipeline.reports.manifest import entries
from pipeline.reports.next_command import NextCommand
from pipeline.reports.report_data import read_report_data
from pipeline.reports.status import read_status, status_json, status_lines
from pipeline.reports.write import write_reports
from pipeline.result import Result, read_outcomes
from pipeline.web import actions
from pipeline.web.event_stream import EventStream
from pipeline.web.snapshot import read_snapshot
from tests.support.exhibits import REFUSED, asked, drawn, fail, hang
from tests.support.workbench import plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.workbench import Bench

NOW = 1_795_000_060.0  # the exhibits' calls ended in the minute before
LIMIT = RateLimit(images=7, per_seconds=30.0)
LAB = Provider("lab", "http://127.0.0.1:9/v1", rate_limit=LIMIT)
POLICY = {
    "http_status": 400,
    "type": "invalid_request_error",
    "code": "content_policy_violation",
    "message": "Rejected by our safety system (req_{}).",
    "kind": "Moderated",
}
SIZE = {"http_status": 400, "type": "invalid_request_error", "code": "invalid_value", "kind": "Invalid"}
BUSY = {"http_status": 503, "type": "server_error", "code": None, "message": "overloaded", "kind": "ServerFault"}


@dataclass
class Outputs:
    """What every output says about one job."""

    status: list[str]
    terminal: list[str]
    notification: str
    summary: Any  # of `run --json`
    watch: dict[str, Any]
    page: dict[str, Any]
    report: dict[str, Any]


@pytest.fixture
def config(bench: Bench) -> Config:
    """The config of the folder."""
    return Config(None, bench.folder, None, {"lab": LAB})


@pytest.fixture
def night(bench: Bench) -> Iterator[None]:
    """A job of a working run: images, failures of several causes, calls in flight, images to come."""
    bench.submit(*(asked(number) for number in range(14)), provider=LAB)
    for number in range(4):
        hang(bench, number, drawn(number), cost_usd=0.0123)
    for number in range(4, 7):
        fail(bench, number, {**POLICY, "message": str(POLICY["message"]).format(number)})
    fail(bench, 7, {**SIZE, "message": "`size` must be one of these"})
    fail(bench, 8, {**SIZE, "message": "`quality` must be one of those"})
    fail(bench, 9, BUSY)
    hang(bench, 10, drawn(10), status="partial", error=None, cost_usd=None)
    bench.set("UPDATE request SET n = 2 WHERE position = 10")
    bench.set("UPDATE request SET estimate_usd = 0.04 * n")
    bench.set("UPDATE request SET maybe_paid = 1 WHERE position IN (4, 9)")
    with run_lock(bench.folder, bench.images, bench.connection, lambda: None):
        bench.set("UPDATE holder SET started_at = ?", NOW - 1000)
        for ago, number in ((3, 11), (900, 12)):
            bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (?, 'lab', 5, ?)", number, NOW - ago)
        yield


def read_outputs(bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]) -> Outputs:
    """Return what every output says about the ledger."""
    connection = bench.connection
    summaries = read_job_summaries(connection)
    result = Result(config, summaries, (), None, (), {})
    command = NextCommand.anywhere(config)
    print_watch_json(read_view(config, None, NOW), NextCommand.here(config))
    return Outputs(
        status=list(status_lines(read_status(config.output, None), config.providers)),
        terminal=list(summary_lines(result, NextCommand.here(config), ["run"])),
        notification=end_message(1, summaries, [], None, command.line("run")).text,
        summary=summary_json(result),
        watch=json.loads(capsys.readouterr().out),
        page=read_snapshot(connection, config, find_owner(config.output, connection), NOW, command),
        report=read_report_data(connection, "job", command=command),
    )


@pytest.mark.usefixtures("night")
def test_speed_calls_in_flight_and_time_left_are_the_same_on_terminal_and_page(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = read_outputs(bench, config, capsys)
    (watched,), (shown,) = outputs.watch["providers"], outputs.page["providers"]
    assert watched["images_per_minute"] == pytest.approx(shown["per_minute"], abs=0.01)
    assert shown["per_minute"] == pytest.approx(5 / 60 * 60), "five images are on disk; what failed is no speed"
    assert watched["in_flight"] == shown["in_flight"] == 2, "however old, while a run holds the lock"
    assert outputs.page["minutes_left"] == pytest.approx((outputs.watch["ends_at"] - NOW) / 60)


@pytest.mark.usefixtures("night")
def test_without_a_run_at_work_neither_terminal_nor_page_has_a_call_in_flight(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ledger.lock.is_alive", lambda _pid: False)
    outputs = read_outputs(bench, config, capsys)
    assert outputs.page["run"] is None
    assert outputs.watch["providers"][0]["in_flight"] == outputs.page["providers"][0]["in_flight"] == 0


@pytest.mark.usefixtures("night")
def test_causes_of_failure_are_the_same_ones_with_the_same_numbers_everywhere(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = read_outputs(bench, config, capsys)
    expected = [
        (3, "400 content_policy_violation", "Rejected by our safety system (req_4)."),
        (1, "400 invalid_value", "`size` must be one of these"),
        (1, "400 invalid_value", "`quality` must be one of those"),
        (1, "503 server_error", "overloaded"),
        (1, "not all images came", "no reason was recorded"),
    ]
    (page,) = (job["causes"] for job in outputs.page["jobs"])
    for causes in (page, outputs.report["causes"]):
        assert [(one["count"], one["title"], one["message"]) for one in causes] == expected
    assert [(one["count"], one["example"]["message"]) for one in outputs.summary["failures"]] == [
        (count, message) for count, _, message in expected
    ]
    headings = [line.strip() for line in outputs.terminal if " × " in line]  # noqa: RUF001 - so many times
    for heading, (count, title, message) in zip(headings, expected, strict=True):
        assert heading.startswith(f"{count} × {title}, such as job/")  # noqa: RUF001 - the same
        assert heading.endswith(message)
    for shown, reported in zip(page, outputs.report["causes"], strict=True):
        assert shown["advice"] == reported["advice"]
        assert any(line.strip().rstrip(":") == shown["advice"] for line in outputs.terminal)
    assert [one["requests"] for one in outputs.report["causes"]] == [[4, 5, 6], [7], [8], [9], [10]]


@pytest.mark.usefixtures("night")
def test_a_job_s_counts_and_money_are_in_the_same_words_everywhere(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = read_outputs(bench, config, capsys)
    counts = ["3 pending", "4 succeeded", "1 partial", "6 failed"]
    money = ["$0.0492 spent", "2 more calls may have been paid (unclear: the response was lost)"]
    expected = "$0.12 expected"
    line = f"job: 14 requests: {', '.join(counts)}; 5 images; {'; '.join(money)}"
    assert outputs.terminal[0] == line
    assert line in outputs.notification.splitlines()
    assert outputs.status[1] == f"  {' · '.join(counts)}"
    assert outputs.status[2].startswith(f"  5 images · {' · '.join([*money, expected])} · 3 to come")
    (job,) = outputs.page["jobs"]
    assert [" ".join(fact) for fact in job["facts"]] == [
        *(count for count in counts if "succeeded" not in count),
        *("5 images", *money, expected),
    ]
    assert outputs.page["spent"] == "$0.0492"
    assert [f"{value} {label}" for label, value in outputs.report["spent"]] == money
    numbers = status_json(read_job_summaries(bench.connection))["jobs"][0]
    assert numbers["counts"] == job["counts"] == outputs.report["counts"] == outputs.watch["jobs"][0]["counts"]
    assert numbers["cost_usd"] == outputs.summary["jobs"][0]["cost_usd"] == pytest.approx(0.0492)


def test_the_limit_in_images_per_minute_is_one_number(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = [asked(number) for number in range(21)]
    bench.submit(*requests, provider=LAB)
    outputs = read_outputs(bench, config, capsys)
    totals = EventTotals()
    pace = ProviderPace("lab", "limit", None, LIMIT.images, LIMIT.per_seconds, 0, None)
    for event in (RunStarted(("job",)), CallSent("job", "x", "lab", 1), pace):
        totals.count(event, NOW)
    totals.read(read_job_summaries(bench.connection))
    (from_events,) = totals.view(NOW).providers
    assert LIMIT.per_minute == 14
    assert from_events.limit == outputs.watch["providers"][0]["limit_per_minute"] == 14
    assert outputs.page["providers"][0]["limit_per_minute"] == 14
    assert estimate_plan(bench.folder, plan(*requests, provider=LAB), Models.load({}))["minutes"] == 1.5
    assert outputs.status[2].endswith("21 to come, 2 min at the limit")


async def test_what_to_type_next_is_the_same_command_wherever_it_is_read(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.batch import Batch

    monkeypatch.chdir(bench.folder.parent)
    bench.submit(asked(1), asked(2), provider=LAB)
    fail(bench, 2, BUSY)
    outputs = read_outputs(bench, config, capsys)
    (report,), _ = write_reports(bench.connection, config, ["job"])
    data = json.loads(report.read_text().split('id="data">')[1].split("</script>")[0])
    commands, causes = data["commands"], data["causes"]
    stream = EventStream(config)
    notifier = Notifier(config, {}, lambda _event: None)
    runs = {
        "summary": outputs.terminal[-1].strip(),
        "report": commands["run"],
        "page": stream._command.line("run"),
        "notification": notifier._continue,
        "button": actions.resume(Batch(config, {}), "job").command or "",
    }
    for where, line in runs.items():
        assert _resolved(line, bench.folder.parent) == ["pipeline", "run", "--output", str(bench.folder)], where
    resumes = {
        "report": causes[0]["commands"][0],
        "page": outputs.page["jobs"][0]["causes"][0]["commands"][0],
        "summary": next(one.strip() for one in outputs.terminal if " resume " in one),
    }
    for where, line in resumes.items():
        wanted = ["pipeline", "resume", "job", "--output", str(bench.folder)]
        assert _resolved(line, bench.folder.parent) == wanted, where


def _resolved(line: str, folder: Path) -> list[str]:
    """Split a command as a shell in `folder` would; the path behind an option becomes absolute."""
    words = shlex.split(line)
    return [
        str(folder / word) if before.startswith("--") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


@pytest.mark.usefixtures("night")
def test_an_error_s_class_is_the_same_in_manifest_summary_and_python(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = read_outputs(bench, config, capsys)
    kinds = [entry["error"]["kind"] for entry in entries(bench.connection, "job") if entry["error"]]
    assert kinds == ["Moderated"] * 3 + ["Invalid"] * 2 + ["ServerFault"]
    assert {one["kind"] for one in outputs.summary["failures"]} == {"Moderated", "Invalid", "ServerFault"}
    found = [outcome.error for outcome in read_outcomes(config, "job") if outcome.error is not None]
    assert [type(error) for error in found] == [errors.Moderated] * 3 + [errors.Invalid] * 2 + [errors.ServerFault]
    assert isinstance(found[0], GiveUp)
    assert isinstance(found[-1], TryAgain)
    assert (found[0].http_status, found[0].code) == (400, "content_policy_violation")


@pytest.mark.parametrize(
    ("kind", "expected"), [("Moderated", errors.Moderated), ("Path", RequestError), ("OfALaterVersion", RequestError)]
)
def test_a_class_that_is_no_error_of_a_request_is_not_built(
    bench: Bench, config: Config, kind: str, expected: type[RequestError]
) -> None:
    bench.submit(asked(1))
    fail(bench, 1, {**POLICY, "kind": kind})
    (outcome,) = read_outcomes(config, "job")
    assert type(outcome.error) is expected


def test_the_class_of_an_error_that_was_recorded_before_classes_were_is_guessed_alike(
    bench: Bench, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.submit(asked(1))
    fail(bench, 1, REFUSED)
    outputs = read_outputs(bench, config, capsys)
    (entry,) = entries(bench.connection, "job")
    (outcome,) = read_outcomes(config, "job")
    assert entry["error"] is not None
    assert entry["error"]["kind"] == outputs.summary["failures"][0]["kind"] == "Moderated"
    assert type(outcome.error) is errors.Moderated

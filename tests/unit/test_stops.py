"""The last stop of a job and of a provider stays in the ledger until it is overcome."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pipeline.config.load import Config
from pipeline.errors import BatchGone, BudgetSpent, DiskFull, KeyRefused, ModelUnknown
from pipeline.ledger.database import transaction
from pipeline.ledger.queue import Block
from pipeline.ledger.stops import RecordedStop, delete_overcome_stops, read_stops, record_stop
from pipeline.reports.next_command import WITHOUT_OPTIONS
from pipeline.reports.report_data import read_report_data
from pipeline.reports.status import folder_json, folder_lines, read_folder_status
from pipeline.reports.stops import read_holding_stops, stop_lines
from pipeline.web.snapshot import read_snapshot
from tests.support.workbench import LAB, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

OTHER = dataclasses.replace(LAB, name="other")


def _answer(bench: Bench, job: str, outcome: str = "answered") -> None:
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) SELECT r.pk, j.provider, 1, 1, 2, ?"
        " FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ? LIMIT 1",
        *(outcome, job),
    )


def _reaches(bench: Bench, *jobs: str) -> list[str]:
    return [stop.reach for stop in read_stops(bench.connection, jobs or None)]


def test_a_stop_is_kept_with_its_class_its_sentence_its_moment_and_its_reach(bench: Bench) -> None:
    bench.submit(request(1))
    record_stop(bench.connection, Block(provider="lab"), KeyRefused("no", http_status=401), now=7)
    record_stop(bench.connection, Block(provider="lab"), KeyRefused("still no", http_status=401), now=8)
    assert read_stops(bench.connection) == [RecordedStop("KeyRefused", "still no", 8, "lab", None, None, None)]


def test_a_stop_is_shown_for_the_jobs_that_it_reaches(bench: Bench) -> None:
    bench.submit(request(1), name="one")
    bench.submit(request(2, model="new"), name="two")
    bench.submit(request(3), name="three", provider=OTHER)
    record_stop(bench.connection, Block(provider="lab"), KeyRefused("no"), now=1)
    record_stop(bench.connection, Block(job_pk=2, model="new"), ModelUnknown("what is new?"), now=2)
    record_stop(bench.connection, Block(job_pk=1, model="new"), ModelUnknown("no request has it"), now=3)
    record_stop(bench.connection, Block(), DiskFull("full"), now=4)
    assert _reaches(bench) == ["provider `lab`", "job `two`, model `new`", "everything"]
    assert _reaches(bench, "one") == ["provider `lab`", "everything"]
    assert _reaches(bench, "three") == ["everything"]


def test_only_a_later_answer_that_it_would_have_reached_overcomes_a_stop(bench: Bench) -> None:
    bench.submit(request(1), request(2), name="one")
    bench.submit(request(3), name="two")
    bench.submit(request(4), name="three", provider=OTHER)
    _answer(bench, "one")
    record_stop(bench.connection, Block(provider="lab"), KeyRefused("no"))
    record_stop(bench.connection, Block(job_pk=1), BudgetSpent("spent"))
    _answer(bench, "three")
    _answer(bench, "one", "refused")
    assert _reaches(bench) == ["provider `lab`", "job `one`"], "another provider's answer is none of this one's"
    _answer(bench, "two")
    assert _reaches(bench) == ["job `one`"]
    with transaction(bench.connection):
        delete_overcome_stops(bench.connection)
    assert bench.one("SELECT count(*) FROM stop") == 1
    _answer(bench, "one")
    assert _reaches(bench) == []


def test_a_stop_that_reaches_nothing_queued_is_not_shown_and_goes_at_the_end_of_a_run(bench: Bench) -> None:
    bench.submit(request(1))
    record_stop(bench.connection, Block(provider="lab"), KeyRefused("no"))
    bench.set("UPDATE request SET status = 'cancelled'")
    assert _reaches(bench) == []
    bench.set("UPDATE request SET status = 'pending'")
    assert _reaches(bench) == ["provider `lab`"], "what was cancelled and is queued again meets it again"
    bench.set("UPDATE request SET status = 'failed'")
    with transaction(bench.connection):
        delete_overcome_stops(bench.connection)
    bench.set("UPDATE request SET status = 'pending'")
    assert _reaches(bench) == []


def test_what_mends_a_stop_stands_before_the_command_in_every_output(bench: Bench, tmp_path: Path) -> None:
    bench.submit(request(1), name="night", file=tmp_path / "night.yaml")
    record_stop(bench.connection, Block(job_pk=1, model="dall-e-2"), ModelUnknown("no such model", http_status=404))
    fix, command = "correct `model` in the job file", f"pipeline run {tmp_path}/night.yaml"
    lines = list(stop_lines(read_holding_stops(bench.connection), WITHOUT_OPTIONS))
    assert lines[0].startswith("stopped at ")
    assert lines[0].endswith(", job `night`, model `dall-e-2`: no such model")
    assert lines[1:] == [f"  first: {fix}", f"  then: {command}"]
    status = read_folder_status(bench.folder, "night")
    shown = list(folder_lines(status, {}, WITHOUT_OPTIONS))
    assert shown[0] == "no run is at work; what stopped the last one, and how to continue:"
    assert shown[1:4] == lines
    (stop,) = folder_json(status, WITHOUT_OPTIONS)["stops"]
    assert (stop["kind"], stop["message"], stop["advice"]) == ("ModelUnknown", "no such model", fix)
    assert stop["commands"] == [command]
    assert read_report_data(bench.connection, "night")["stops"] == [stop]
    assert read_snapshot(bench.connection, Config(None, bench.folder, None, {}), None, 1.0)["stops"] == [stop]


def test_a_batch_that_is_gone_is_told_while_one_of_that_time_is_out_though_nothing_is_queued(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    bench.send_batch(1, sent_at=5.0)
    record_stop(bench.connection, Block(provider="lab"), BatchGone("no batch"), now=7)
    bench.send_batch(2, sent_at=9.0)
    assert _reaches(bench) == _reaches(bench, "job") == ["provider `lab`"]
    assert _reaches(bench, "other") == []
    _answer(bench, "job")
    assert _reaches(bench) == ["provider `lab`"], "an answered call says nothing of the batch"
    bench.set("UPDATE batch SET ended_at = 10 WHERE pk = 1")
    assert _reaches(bench) == [], "the other one was sent later"

"""The report as a file: written from the ledger alone, whole or not at all, without text that becomes markup."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.load import Config
from pipeline.ledger.database import open_for_reading
from pipeline.reports import write
from pipeline.reports.html_report import embed, write_report
from pipeline.reports.next_command import NextCommand
from pipeline.reports.report_data import read_report_data
from tests.support.exhibits import REFUSED, asked, drawn, fail, hang

if TYPE_CHECKING:
    from pipeline.images.fingerprint import Fingerprint
    from tests.support.workbench import Bench

PHOTOSWIPE = Path(__file__).parents[2] / "pipeline" / "reports" / "pages" / "photoswipe"


def _commands(folder: Path) -> NextCommand:
    return NextCommand.here(Config(None, folder, None, {}))


def _data(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*)</script>', path.read_text())
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_a_request_is_shown_with_all_that_the_ledger_knows_of_it(bench: Bench) -> None:
    bench.submit(asked(1, "a cat", n=2, variables={"animal": "cat"}, id="cat"), asked(2, "a dog"))
    hang(bench, 1, drawn(1), drawn(2), revised_prompt="a very fine cat", seconds=4, attempts=3)
    fail(bench, 2)
    shown = read_report_data(bench.connection, "job")
    cat, dog = shown["requests"]
    assert (cat["prompt"], cat["variables"], cat["attempts"]) == ("a cat", {"animal": "cat"}, 3)
    assert (cat["seconds"], cat["cost_usd"]) == (4, 0.016)
    assert list(cat["params"]) == ["model", "n", "size"]
    assert [one["file"] for one in cat["images"]] == ["images/cat-1.png", "images/cat-2.png"]
    assert cat["images"][0]["revised_prompt"] == "a very fine cat"
    assert (dog["status"], dog["error"], dog["images"]) == ("failed", REFUSED, [])
    assert (shown["images"], shown["counts"]["failed"], shown["left_out"]) == (2, 1, 0)


def test_requests_come_in_the_order_of_the_job_and_superseded_ones_last(bench: Bench) -> None:
    bench.submit(asked(1), asked(2), asked(3))
    bench.submit(asked(3), asked(1))
    shown = read_report_data(bench.connection, "job")["requests"]
    assert [(one["prompt"], one["status"]) for one in shown] == [
        ("prompt 3", "pending"),
        ("prompt 1", "pending"),
        ("prompt 2", "superseded"),
    ]


def test_a_page_too_large_for_a_browser_leaves_out_what_succeeded_and_says_how_much(bench: Bench) -> None:
    bench.submit(*(asked(number) for number in range(6)))
    for number in range(5):
        hang(bench, number, drawn(number))
    fail(bench, 5)
    shown = read_report_data(bench.connection, "job", most=3)
    assert [one["prompt"] for one in shown["requests"]] == ["prompt 0", "prompt 1", "prompt 5"]
    assert shown["left_out"] == 3
    assert shown["causes"][0]["requests"] == [2]


def test_failures_are_grouped_by_what_the_service_said_the_most_frequent_first(bench: Bench) -> None:
    broken = {"http_status": 500, "type": "server_error", "code": None, "message": "It broke after 12 s."}
    other = {**REFUSED, "message": str(REFUSED["message"]).replace("123456", "987654")}
    bench.submit(*(asked(number) for number in range(9)))
    fail(bench, 0, broken)
    fail(bench, 3, REFUSED)
    fail(bench, 5, other)
    hang(bench, 8, status="partial", error=None)
    causes = read_report_data(bench.connection, "job")["causes"]
    assert [(cause["count"], cause["requests"]) for cause in causes] == [(2, [3, 5]), (1, [0]), (1, [8])]
    assert [cause["title"] for cause in causes] == [
        "400 content_policy_violation",
        "500 server_error",
        "not all images came",
    ]
    assert causes[0]["message"] == REFUSED["message"]
    assert "change the prompt" in causes[0]["advice"]
    assert "try it again later" in causes[1]["advice"]
    assert [cause["commands"] for cause in causes] == [[], ["pipeline resume job"], ["pipeline resume job"]]
    bench.set("UPDATE job SET file = '/cats.yaml'")
    causes = read_report_data(bench.connection, "job")["causes"]
    assert causes[0]["commands"] == ["pipeline run /cats.yaml"], "what the policy refused is not resumed"


def test_what_is_embedded_cannot_end_a_script_and_is_read_back_as_it_was() -> None:
    hostile = {"</script><script>alert(1)</script>": "<!--<script>\u2028\u2029&amp;]]>"}
    text = embed(hostile)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == hostile


def test_the_page_runs_only_the_scripts_that_it_was_written_with(bench: Bench) -> None:
    bench.submit(asked(1, "</script><script>alert(1)</script><style>*{}</style>"))
    page = write_report(bench.connection, "job", bench.folder, _commands(bench.folder)).read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert policy[1].split(";")[1].count("sha256-") == len(scripts) == 8
    assert page.count("<style>") == 3
    assert "http://" not in re.sub(r"http://www\.w3\.org/\S+", "", page), "nothing is loaded from anywhere"


def test_half_a_character_of_a_prompt_does_not_keep_the_report_from_being_written(bench: Bench) -> None:
    bench.submit(asked(1))
    bench.set("UPDATE request SET error = ?, status = 'failed'", json.dumps({**REFUSED, "message": "half \ud83d"}))
    path = write_report(bench.connection, "job", bench.folder, _commands(bench.folder))
    assert "half" in _data(path)["causes"][0]["message"]


async def test_thumbnails_that_nobody_waits_for_any_more_are_left_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def make(
        _folder: Path, _images: object, _sources: object, _unread: object, stop: threading.Event, *_: object
    ) -> dict[str, Fingerprint]:
        begun.set()
        assert stop.wait(20)
        return {}

    bench.submit(asked(1))
    monkeypatch.setattr(write, "make_thumbnails", make)
    thumbnails = _thumbnails(bench, [])
    work = asyncio.create_task(write.make_report_thumbnails(thumbnails, [bench.folder / "job" / "report.html"]))
    await asyncio.to_thread(begun.wait)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert thumbnails.stop.is_set()


def _thumbnails(bench: Bench, counted: list[tuple[str, int, int]]) -> write.ThumbnailWork:
    return write.ThumbnailWork(Config(None, bench.folder, None, {}), lambda *one: counted.append(one))


async def test_all_thumbnails_are_made_and_what_a_stop_leaves_is_said_with_the_command(bench: Bench) -> None:
    bench.submit(*(asked(number, f"prompt {number}") for number in range(1, 4)))
    for number in range(1, 4):
        hang(bench, number, drawn(number))
    reports = [bench.folder / "job" / "report.html"]
    counted: list[tuple[str, int, int]] = []
    stopped = _thumbnails(bench, counted)
    stopped.stop.set()
    await write.make_report_thumbnails(stopped, reports)
    assert counted == [("job", 0, 3)]
    (sentence,) = stopped.unwritten
    assert sentence == (
        f"3 thumbnails of `job` not made yet; to make them, run: pipeline report job --output {bench.folder}"
    )
    whole = _thumbnails(bench, counted)
    await write.make_report_thumbnails(whole, reports)
    assert (counted[-1], whole.unwritten) == (("job", 3, 3), [])
    assert len(list((bench.folder / "job").glob("thumbnails/*.webp"))) == 3


async def test_a_run_that_was_stopped_ends_its_thumbnails_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[threading.Event] = []

    def make(
        _folder: Path, _images: object, _sources: object, _unread: object, stop: threading.Event, *_: object
    ) -> dict[str, Fingerprint]:
        stops.append(stop)
        assert stop.wait(20)
        return {}

    bench.submit(asked(1))
    monkeypatch.setattr(write, "make_thumbnails", make)
    await write.make_report_thumbnails(_thumbnails(bench, []), [bench.folder / "job" / "report.html"], 0.01)
    assert stops[0].is_set()


def test_reading_the_ledger_needs_no_right_to_write_it(bench: Bench) -> None:
    bench.submit(asked(1))
    connection = open_for_reading(bench.folder)
    assert connection is not None
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("UPDATE request SET attempts = 9")
    assert len(read_report_data(connection, "job")["requests"]) == 1
    connection.close()


def test_photoswipe_is_as_its_note_says_and_in_the_package() -> None:
    note = (PHOTOSWIPE / "README.md").read_text()
    sums = dict(re.findall(r"([0-9a-f]{64})  (\S+)", note))
    files = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in PHOTOSWIPE.iterdir()}
    del files[hashlib.sha256((PHOTOSWIPE / "README.md").read_bytes()).hexdigest()]
    assert files == sums
    version = re.search(r"PhotoSwipe (\d+\.\d+\.\d+)", note)
    assert version is not None
    assert f"PhotoSwipe {version[1]}" in (PHOTOSWIPE / "photoswipe.umd.min.js").read_text()[:200]

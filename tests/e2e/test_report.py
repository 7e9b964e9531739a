"""The report and the contact sheet as the commands write them."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import webbrowser
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.support.exhibits import asked, drawn, fail, hang
from tests.support.stage import finish
from tests.support.terminal import terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage
    from tests.support.workbench import Bench

LARGE = 60  # images


def _data(path: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*)</script>', path.read_text())
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_report_of_a_run_is_the_last_line_and_shows_what_is_in_the_ledger(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    ended = stage.run("run", stage.job("many", [{"prompt": "a cat", "n": 2}, {"prompt": "forbidden"}]), exit_code=1)
    path = stage.output / "many" / "report.html"
    assert ended.stdout.splitlines()[-1] == str(path)
    assert "thumbnails" not in ended.stderr
    data = _data(path)
    assert [one["status"] for one in data["requests"]] == ["succeeded", "failed"]
    assert data["causes"][0]["commands"] == ["pipeline run " + str(stage.folder / "many.yaml")]
    assert data["commands"]["folder"] == str(stage.folder)
    names = {f"{image['sha256']}.webp" for image in data["requests"][0]["images"]}
    assert {one.name for one in (path.parent / "thumbnails").iterdir()} == names, "all of them"
    (path.parent / "thumbnails" / min(names)).unlink()
    ended = stage.run("report", "many")
    assert (ended.stdout.splitlines(), ended.stderr) == ([str(path)], ""), "nothing is counted in a pipe"
    assert {one.name for one in (path.parent / "thumbnails").iterdir()} == names
    summary = stage.run("resume", "many", "--json", exit_code=1).stdout.splitlines()[-1]
    assert json.loads(summary)["reports"] == [str(path)]
    assert str(path) in stage.run("resume", "many", "--quiet", exit_code=1).stdout


def test_report_writes_it_again_from_the_ledger_alone(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 3))
    path = stage.output / "many" / "report.html"
    (stage.output / "many" / "manifest.jsonl").write_text("not what it was\n")
    path.unlink()
    assert stage.run("report", "MANY").stdout.splitlines() == [str(path)]
    assert len(_data(path)["requests"]) == 3


def test_an_unknown_job_is_exit_2_and_makes_nothing(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    assert "there is no job `many`" in stage.run("report", "many", exit_code=2).stderr
    assert not stage.output.exists()
    stage.run("submit", stage.prompts("many", 1))
    assert "there is no job `man`; did you mean `many`" in stage.run("report", "man", exit_code=2).stderr


def test_report_works_beside_a_working_run_and_changes_nothing_of_the_ledger(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.2, 0.2])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("run", stage.prompts("many", 6))
    while not server.books():
        assert process.poll() is None
    stage.run("report", "many")
    statuses = [one["status"] for one in _data(stage.output / "many" / "report.html")["requests"]]
    assert process.poll() is None
    assert {"pending", "running"} & set(statuses)
    assert process.wait() == 0


def test_a_report_that_cannot_be_written_is_said_and_fails_no_run(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    (stage.output / "many" / "report.html").mkdir(parents=True)
    ended = stage.run("run", stage.prompts("many", 2))
    assert "the report of `many` was not written" in ended.stderr
    assert ended.stdout.splitlines() == [str(stage.output / "many" / "manifest.jsonl")]
    (stage.output / "many" / "report.html").rmdir()
    (stage.output / "many" / "thumbnails").write_text("in the way")
    ended = stage.run("run")
    assert "the thumbnails of `many` were not written" in ended.stderr
    assert ended.stdout.splitlines()[-1] == str(stage.output / "many" / "report.html")


def test_a_run_that_is_stopped_leaves_its_report_too(stage: Stage) -> None:
    server = stage.serve(rate_limit=None, latency_seconds=[0.3, 0.3])
    stage.provider("lab", server, concurrency=1)
    process = stage.start("run", stage.prompts("many", 9))
    while not server.books():
        assert process.poll() is None
    process.terminate()
    ended = finish(process)
    assert ended.exit_code == 143
    assert ended.stdout.splitlines()[-1] == str(stage.output / "many" / "report.html")
    data = _data(stage.output / "many" / "report.html")
    assert 0 < data["unfinished"] < 9
    assert data["commands"]["run"] == "pipeline run"
    assert data["images"] > 0
    assert len(list((stage.output / "many").glob("thumbnails/*"))) <= data["images"]
    stage.run("run", exit_code=3, key="bad-key")
    again = _data(stage.output / "many" / "report.html")
    assert again["written_at"] > data["written_at"], "and so does one whose key is refused"


@pytest.mark.parametrize("command", ["--help", "status"])
def test_what_starts_fast_still_imports_no_pillow_no_jinja_and_no_aiohttp(stage: Stage, command: str) -> None:
    code = (
        "import sys; from pipeline.cli.main import _main; code = _main(sys.argv[1:]);"
        "print({'PIL', 'jinja2', 'aiohttp'} & {name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    stage.folder.joinpath("config.yaml").write_text("output: outputs\n")
    ended = subprocess.run(
        [sys.executable, "-c", code, command],
        cwd=stage.folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr.strip().endswith("set()")


def test_the_command_writes_the_sheet_beside_the_report(stage: Stage) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("many", 2))
    ended = stage.run("report", "many", "--sheet", "sheets/all.png")
    assert ended.stdout.splitlines() == [str(stage.output / "many" / "report.html"), "sheets/all.png"]
    with Image.open(stage.folder / "sheets" / "all.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet"])
def test_a_sheet_of_another_name_is_refused_before_anything_is_written(stage: Stage, name: str) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    stage.run("submit", stage.prompts("many", 1))
    assert "sheet.png" in stage.run("report", "many", "--sheet", name, exit_code=2).stderr
    assert not (stage.output / "many" / "report.html").exists()


@pytest.fixture
def large(bench: Bench) -> Bench:
    """A job of images whose thumbnails take a while, and of one request that failed."""
    bench.submit(*(asked(number) for number in range(LARGE + 1)))
    content = drawn(1, (2600, 2600))
    for number in range(LARGE):
        text = b"tEXtNumber\0" + str(number).encode()
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        hang(bench, number, content[:33] + chunk + content[33:])  # each image a file of its own
    fail(bench, LARGE)
    return bench


@pytest.mark.processes
@pytest.mark.parametrize(("command", "exit_code"), [(("report", "job"), 0), (("run",), 1)])
def test_ctrl_c_ends_thumbnails_and_neither_the_report_nor_the_exit_code(
    large: Bench, command: tuple[str, ...], exit_code: int
) -> None:
    with terminal(large.folder, *command, "--output", large.folder) as shown:
        shown.read_until(lambda: re.search(rf"thumbnails \d+/{LARGE}", shown.text))
        shown.press_ctrl_c()
        assert shown.read_to_the_end() == exit_code
    assert "thumbnails of `job` not made yet; to make them, run:" in shown.text.replace("\n", " ")
    assert "stopped at once" not in shown.text
    assert re.search(r"thumbnails \d+/", shown.text) is None, "the line is erased"
    assert len(_data(large.folder / "job" / "report.html")["requests"]) == LARGE + 1
    assert len(list((large.folder / "job" / "thumbnails").glob("*.webp"))) < LARGE


@pytest.mark.processes
def test_verify_counts_images_on_a_terminal_and_erases_the_line(large: Bench) -> None:
    with terminal(large.folder, "verify", "--output", large.folder) as shown:
        shown.read_until(lambda: re.search(rf"^checking images \d+/{LARGE} · \d s$", shown.text, re.MULTILINE))
        assert shown.read_to_the_end() == 0
    assert shown.lines == [f"{LARGE} of {LARGE} images are complete"]


def test_open_shows_the_report_in_a_browser(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    stage.run("run", stage.prompts("night", 1))
    opened: list[str] = []

    def show(url: str) -> bool:
        opened.append(url)
        return True

    monkeypatch.setattr(webbrowser, "open", show)
    ended = stage.run("report", "night", "--open")
    page = stage.output / "night" / "report.html"
    assert opened == [page.as_uri()]
    assert "warning" not in ended.stderr
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    said = stage.run("report", "night", "--open").stderr
    assert f"no browser was found; open this page in one: {page}" in said
    opened.clear()
    stage.run("report", "night")
    assert opened == []

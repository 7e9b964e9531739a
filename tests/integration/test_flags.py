"""Flags of what a server makes: blank, duplicate, of a wrong size or format; and no flag ever refuses an image."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.batch import Batch
from pipeline.config.load import Config
from pipeline.planning.python_job import make_job
from pipeline.redo.choice import Choice
from pipeline.redo.process import prepared
from pipeline.reports.html_report import write_report
from pipeline.reports.manifest import entries, write_manifest
from pipeline.reports.next_command import NextCommand
from pipeline.reports.report_data import read_report_data
from pipeline.reports.write import ThumbnailWork
from pipeline.result import read_outcomes
from tests.support.stage import HOME
from tests.support.workbench import answer_with, lab, request, vendor

if TYPE_CHECKING:
    from aiohttp import web

    from tests.support.workbench import Bench

PHOTO = Image.open(HOME / "jobs" / "images" / "corgi_and_cat_paw.png").convert("RGB").resize((256, 256))
OTHER = Image.open(HOME / "jobs" / "images" / "sunlit_lounge.png").convert("RGB").resize((256, 256))


def _encoded(image: Image.Image, name: str = "png") -> str:
    stream = io.BytesIO()
    image.save(stream, name)
    return base64.b64encode(stream.getvalue()).decode()


ANSWERS = {
    "prompt 1": _encoded(PHOTO),
    "prompt 2": _encoded(OTHER),
    "prompt 3": _encoded(PHOTO, "jpeg"),
    "prompt 4": _encoded(Image.new("RGB", (256, 256), "white")),
    "prompt 5": _encoded(Image.new("RGB", (256, 256), "white")),
    "prompt 6": _encoded(OTHER.crop((40, 0, 216, 256)), "webp"),
}


async def _answer(body: dict[str, Any]) -> web.StreamResponse:
    return answer_with({"b64_json": ANSWERS[body["prompt"]]})


def _config(bench: Bench) -> Config:
    return Config(None, bench.folder, None, {})


async def _made(bench: Bench) -> dict[str, Any]:
    """Run a job of every answer, one after the other, and return its entries by their ids."""
    bench.submit(*(request(number, id=f"r{number}", output_format="png") for number in range(1, 7)))
    async with vendor(_answer) as base_url:
        await bench.run(lab(base_url, concurrency=1))
    ThumbnailWork(_config(bench)).make(bench.connection, "job")
    return {entry["id"]: entry for entry in entries(bench.connection, "job")}


async def test_flags_are_in_the_manifest_the_report_and_the_results(bench: Bench) -> None:
    made = await _made(bench)
    assert {entry["status"] for entry in made.values()} == {"succeeded"}
    flags = {id_: entry["images"][0]["flags"] for id_, entry in made.items()}
    assert flags == {
        "r1": [],
        "r2": [],
        "r3": ["duplicate", "wrong_format"],
        "r4": ["blank"],
        "r5": ["blank"],
        "r6": ["wrong_size", "wrong_format"],
    }
    assert [entry["images"][0]["duplicate_of"] for entry in made.values()] == [
        *(None, None, "images/r1-1.png"),
        *(None, None, None),
    ]
    shown = read_report_data(bench.connection, "job")["requests"]
    assert {one["id"]: one["images"][0]["flags"] for one in shown} == flags
    outcomes = {one.id: one.images[0] for one in read_outcomes(_config(bench), "job")}
    assert (outcomes["r3"].flags, outcomes["r3"].duplicate_of) == (("duplicate", "wrong_format"), "images/r1-1.png")


async def test_a_manifest_and_a_report_of_before_the_thumbnails_are_written_again(bench: Bench) -> None:
    bench.submit(*(request(number, id=f"r{number}", output_format="png") for number in range(1, 7)))
    async with vendor(_answer) as base_url:
        await bench.run(lab(base_url, concurrency=1))
    manifest = write_manifest(bench.connection, "job", bench.folder)
    report = write_report(bench.connection, "job", bench.folder, NextCommand.here(_config(bench)))
    assert "blank" not in manifest.read_text()
    ThumbnailWork(_config(bench)).make(bench.connection, "job")
    flags = [json.loads(line)["images"][0]["flags"] for line in manifest.read_text().splitlines()]
    assert (flags[2], flags[3]) == (["duplicate", "wrong_format"], ["blank"])
    assert '"flags": ["blank"]' in report.read_text() or '"flags":["blank"]' in report.read_text()
    at = manifest.stat().st_mtime_ns
    ThumbnailWork(_config(bench)).make(bench.connection, "job")
    assert manifest.stat().st_mtime_ns == at


async def test_a_run_ends_with_flags_in_its_manifest(bench: Bench) -> None:
    async with vendor(_answer) as base_url:
        config = Config(None, bench.folder, "lab", {"lab": lab(base_url, concurrency=1)})
        job = make_job(
            "night", [{"prompt": "prompt 4"}, {"prompt": "prompt 1"}], defaults={"model": "dall-e-2", "size": "256x256"}
        )
        batch = Batch(config, {})
        result = await batch.run([job])
    (manifest,) = result.manifests
    flags = [json.loads(line)["images"][0]["flags"] for line in manifest.read_text().splitlines()]
    assert flags == [["blank"], []]
    bench.set("UPDATE image SET difference_hash = NULL, is_blank = 0")  # as if the run had been killed before
    with prepared(batch, "night", Choice(flags=("blank",))) as redo:
        assert [image.request_id[:8] for image in redo.images] == ["prompt-4"]

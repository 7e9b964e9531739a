"""Flags of what a server makes: blank, duplicate, of a wrong size or format; and no flag ever refuses an image."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.config.load import Config
from pipeline.reports.manifest import entries
from pipeline.reports.report_data import read_report_data
from pipeline.result import read_outcomes
from tests.support.stage import HOME
from tests.support.workbench import answer_with, lab, request, vendor

if TYPE_CHECKING:
    import pytest
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


async def _made(bench: Bench) -> dict[str, Any]:
    """Run a job of every answer, one after the other, and return its entries by their ids."""
    bench.submit(*(request(number, id=f"r{number}", output_format="png") for number in range(1, 7)))
    async with vendor(_answer) as base_url:
        await bench.run(lab(base_url, concurrency=1))
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
    outcomes = {one.id: one.images[0] for one in read_outcomes(Config(None, bench.folder, None, {}), "job")}
    assert (outcomes["r3"].flags, outcomes["r3"].duplicate_of) == (("duplicate", "wrong_format"), "images/r1-1.png")


async def test_an_image_whose_fingerprint_fails_is_stored_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_image: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("pipeline.images.fingerprint._eight_bits", fail)
    made = await _made(bench)
    assert {entry["status"] for entry in made.values()} == {"succeeded"}
    assert bench.one("SELECT count(*) FROM image WHERE difference_hash IS NULL AND is_blank = 0") == 6
    assert made["r5"]["images"][0]["flags"] == ["duplicate"]  # the same bytes as the fourth

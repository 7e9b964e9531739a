"""Animations and SVG, parsed by Pillow and by an XML parser."""

from __future__ import annotations

import base64
import io
import random
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from PIL import Image, ImageSequence

from pipeline.sandbox.drawing.encode import encode_svg
from pipeline.sandbox.drawing.image_spec import ImageSpec
from pipeline.sandbox.drawing.images import PALETTES, draw
from tests.support.sandbox_client import calling, decoded, png

if TYPE_CHECKING:
    from pathlib import Path

GIF: dict[str, Any] = {"model": "gpt-image-2.6-flare", "size": "1024x1024", "output_format": "gif"}
SVG: dict[str, Any] = {**GIF, "output_format": "svg"}


def nothing(sha256: str) -> bytes:
    raise LookupError(sha256)


@pytest.mark.parametrize(
    ("given", "frames", "delay"),
    [
        ({}, 9, 200),
        ({"frame_count": 2, "frame_duration_ms": 123}, 2, 120),
        ({"frame_count": 16, "frame_duration_ms": 10**6}, 16, 655_350),
        ({"frame_count": 3, "frame_duration_ms": 1}, 3, 10),
    ],
)
async def test_a_gif_has_the_requested_frames_and_delay(
    tmp_path: Path, given: dict[str, int], frames: int, delay: int
) -> None:
    async with calling(tmp_path) as caller:
        answer = (await caller.generate(**GIF, **given)).json
    assert (answer["output_format"], answer["size"]) == ("gif", "1024x1024")
    film = decoded(base64.b64decode(answer["data"][0]["b64_json"]))
    assert (film.format, film.size) == ("GIF", (1024, 1024))
    shown = [(frame.info["duration"], frame.convert("RGB").tobytes()) for frame in ImageSequence.Iterator(film)]
    assert [duration for duration, _ in shown] == [delay] * frames
    assert len({content for _, content in shown}) == frames, "all frames differ"


def test_a_gif_of_one_colour_keeps_all_frames() -> None:
    blank = {"source": png("RGB", colour="white")}
    spec = ImageSpec("1", "", 256, 256, "gif", source="source", keeps_source=True, mask="mask", frames=5, frame_ms=50)
    with Image.open(io.BytesIO(draw(spec, {**blank, "mask": png("RGB")}.__getitem__))) as film:
        assert getattr(film, "n_frames", 1) == 5


async def test_an_svg_is_xml_of_the_requested_size_with_svg_usage(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        asked = {**SVG, "svg": {"model": "some-author", "reasoning": {"effort": "low"}}, "prompt": "a <cat> & a dog"}
        answer = (await caller.generate(**asked)).json
    drawing = ET.fromstring(base64.b64decode(answer["data"][0]["b64_json"]))  # noqa: S314 - written by our own sandbox
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert (drawing.get("width"), drawing.get("viewBox")) == ("1024", "0 0 1024 1024")
    assert "a <cat> & a dog" in {element.text for element in drawing.iter()}
    bill = answer["svg_usage"]
    assert (bill["model"], bill["reasoning_tokens"]) == ("some-author", 200)
    assert bill["total_tokens"] == bill["input_tokens"] + bill["output_tokens"] > 200
    assert answer["usage"]["output_tokens"] > 0


async def test_an_image_that_is_not_an_svg_has_no_svg_usage(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        assert "svg_usage" not in (await caller.generate(**GIF)).json


async def test_an_edit_accepts_the_svg_object_as_form_fields(tmp_path: Path) -> None:
    async with calling(tmp_path) as caller:
        fields = {"prompt": "x", "model": "gpt-image-2.6-flare", "output_format": "svg", "size": "1024x1024"}
        nested = {"svg[model]": "some-author", "svg[reasoning][effort]": "high"}
        reply = await caller.upload("/images/edits", [("image", png(), "image/png")], **fields, **nested)
    assert (reply.json["svg_usage"]["model"], reply.json["svg_usage"]["reasoning_tokens"]) == ("some-author", 2000)


def test_an_svg_is_deterministic_and_needs_no_caption() -> None:
    spec = ImageSpec("1", "", 640, 1024, "svg")
    assert draw(spec, nothing) == draw(spec, nothing)
    for palette in PALETTES:
        drawing = ET.fromstring(encode_svg(spec, palette, random.Random(1)))  # noqa: S314 - as above
        assert drawing.get("height") == "1024"

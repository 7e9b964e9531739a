"""Every model family end to end: parameters sent, images made by the sandbox, and cost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pipeline.images.inspect import inspect

if TYPE_CHECKING:
    from tests.support.stage import Stage

GPT_1 = {
    "size": "1536x1024",
    "quality": "medium",
    "output_format": "webp",
    "output_compression": 70,
    "background": "transparent",
    "moderation": "low",
    "user": "someone",
}
GPT_2 = {**GPT_1, "size": "1600x1008", "background": "opaque"}
FAMILIES: list[tuple[str, dict[str, Any]]] = [
    ("dall-e-2", {"size": "512x512", "quality": "standard", "response_format": "b64_json", "user": "someone"}),
    ("dall-e-3", {"size": "1792x1024", "quality": "hd", "style": "natural", "response_format": "url", "user": "x"}),
    ("gpt-image-1", GPT_1),
    ("gpt-image-1-mini", GPT_1),
    ("gpt-image-1.5", GPT_1),
    ("gpt-image-2", GPT_2),
    ("gpt-image-2-2026-04-21", GPT_2),
    ("gpt-image-2.5-sunburst", {**GPT_2, "quality": "xhigh", "background": "transparent"}),
    ("gpt-image-2.5-flare-2026-09-08", {**GPT_2, "quality": "max"}),
    ("gpt-image-2.6-flare", {**GPT_2, "quality": "high", "safety_identifier": "someone"}),
]


@pytest.mark.parametrize(("model", "params"), FAMILIES, ids=[model for model, _ in FAMILIES])
def test_every_parameter_of_a_family_is_accepted_by_the_server(
    stage: Stage, model: str, params: dict[str, Any]
) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    job = stage.job("one", [{"prompt": "a lighthouse", "n": 2, "model": model, **params}], defaults={})
    stage.run("run", job)
    manifest = stage.manifest("one")
    assert sum(len(entry["images"]) for entry in manifest) == stage.check_files("one") == 2
    for entry in manifest:
        size = params["size"].split("x")
        assert [(image["width"], image["height"]) for image in entry["images"]] == [(int(size[0]), int(size[1]))] * len(
            entry["images"]
        )
        assert {image["format"] for image in entry["images"]} == {params.get("output_format", "png")}
        assert {name: params[name] for name in entry["settings"]} == entry["settings"]


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("dall-e-2", {"size": "256x256"}),
        ("gpt-image-1", {"size": "1024x1536", "quality": "low", "input_fidelity": "high"}),
        ("gpt-image-2", {"size": "1024x1024", "quality": "low"}),
        ("gpt-image-2.5-flare", {"size": "1024x1024", "quality": "low"}),
    ],
)
def test_an_edit_of_each_family_is_accepted_by_the_server(stage: Stage, model: str, params: dict[str, Any]) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGBA", (256, 256), "#3a7ca5").save(stage.folder / name)
    images = "a.png" if model == "dall-e-2" else ["a.png", "b.png"]
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    edit = {"operation": "edit", "image": images, "mask": {"box": [20, 20, 120, 120]}, "prompt": "a pool"}
    stage.run("run", stage.job("one", [{**edit, "model": model, **params}], defaults={}))
    assert [(call["operation"], call["status"]) for call in server.books()] == [("edit", 200)]
    assert stage.check_files("one") == 1


@pytest.mark.parametrize("quality", ["low", "medium", "high"])
@pytest.mark.parametrize("model", ["gpt-image-1", "gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-flare"])
def test_the_estimate_of_plan_and_the_cost_by_usage_agree_within_5_percent(
    stage: Stage, model: str, quality: str
) -> None:
    stage.provider("lab", stage.serve(rate_limit=None))
    prompt = "A grey heron in tall reeds at the edge of a lake, early morning, woodcut in three colours"
    request = {"prompt": prompt, "n": 3, "model": model, "quality": quality, "size": "1536x1024"}
    job = stage.job("one", [request], defaults={})
    estimate = json.loads(stage.run("plan", job, "--json").stdout)["cost_usd"]
    stage.run("run", job)
    (entry,) = stage.manifest("one")
    assert entry["usage"]["output_tokens"] > 0
    assert estimate == pytest.approx(entry["cost_usd"], rel=0.05)


@pytest.mark.parametrize(
    ("extra", "frames"),
    [
        ({"output_format": "gif", "frame_count": 3, "frame_duration_ms": 120, "complexity": "low"}, 3),
        ({"output_format": "svg", "svg": {"model": "some-author", "reasoning": {"effort": "low"}}}, 1),
    ],
    ids=["gif", "svg"],
)
def test_animations_and_svg_of_the_newest_models_become_files(stage: Stage, extra: dict[str, Any], frames: int) -> None:
    server = stage.serve(rate_limit=None)
    stage.provider("lab", server)
    Image.new("RGBA", (256, 256), "#3a7ca5").save(stage.folder / "a.png")
    wanted = {"prompt": "a lighthouse", "n": 2, "model": "gpt-image-2.6-flare", "size": "1600x1008", **extra}
    edit = {**wanted, "operation": "edit", "image": "a.png", "n": 1}
    stage.run("run", stage.job("one", [wanted, edit], defaults={}))
    assert stage.check_files("one") == 3
    for entry in stage.manifest("one"):
        for image in entry["images"]:
            assert (image["format"], image["width"], image["height"]) == (extra["output_format"], 1600, 1008)
            file = stage.output / "one" / image["file"]
            assert file.suffix == ".svg" or inspect(file.read_bytes()).frames == frames

"""A request is judged against the table before anything is called, and every mistake is named."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.models.model import Model, default_requirements
from pipeline.models.table import Models, convert
from pipeline.models.validation import FieldProblem, validate

TABLE = Models.load()
GPT = ["gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "chatgpt-image-latest", "gpt-image-2"]
NEW = ["gpt-image-2.5-sunburst", "gpt-image-2.5-flare", "gpt-image-2.6-sunburst", "gpt-image-2.6-flare"]
FAMILIES = [
    "dall-e-2",
    "dall-e-3",
    "gpt-image-1",
    "gpt-image-1-mini",
    "gpt-image-2",
    "gpt-image-2.5-flare",
    "gpt-image-2.6-flare",
]
TODAY = date(2026, 11, 22)


def model(name: str) -> Model:
    found = TABLE.find(name)
    assert found is not None
    return found


def problems(name: str, operation: str = "generation", /, **params: object) -> list[FieldProblem]:
    images = 0 if operation == "generation" else 1
    prompt = None if operation == "variation" else "a cat"
    return validate(model(name), operation, prompt, params, images, mask=False)


# One row a parameter of the fact sheet's table: family → (what it takes, what it refuses). The rest refuse all of it.
JPEG = {"output_format": "jpeg"}
GPT_1, GPT_2, GPT_25, GPT_26 = "gpt-image-1", "gpt-image-2", "gpt-image-2.5-flare", "gpt-image-2.6-flare"
ROWS: list[tuple[str, dict[str, tuple[list[Any], list[Any]]]]] = [
    (
        "size",
        {
            "dall-e-2": (["256x256", "512x512", "1024x1024"], ["1024x1536", "auto", "1024", 512]),
            "dall-e-3": (["1024x1024", "1792x1024", "1024x1792"], ["512x512", "auto"]),
            GPT_1: (["1024x1024", "1536x1024", "1024x1536", "auto"], ["512x512", "1792x1024", "2048x2048"]),
            GPT_2: (["auto", "1024x1024", "3840x2160", "1536x864"], ["512x512", "1000x1000", "4096x1024", "3840x3840"]),
            GPT_25: (["auto", "2048x1152"], ["512x512", "3200x1024", "1024*1024", "01024x1024"]),
            GPT_26: (["auto", "2048x1152"], ["512x512", "1024X1024"]),
        },
    ),
    (
        "quality",
        {
            "dall-e-2": (["standard"], ["hd", "high"]),
            "dall-e-3": (["standard", "hd"], ["high", "auto"]),
            GPT_1: (["low", "medium", "high", "auto"], ["standard", "hd", "max", True, ""]),
            GPT_2: (["low", "medium", "high", "auto"], ["xhigh", "max"]),
            GPT_25: (["low", "medium", "high", "xhigh", "max", "auto"], ["hd"]),
            GPT_26: (["xhigh", "max"], ["standard"]),
        },
    ),
    ("style", {"dall-e-3": (["vivid", "natural"], ["loud"])}),
    ("response_format", {"dall-e-2": (["url", "b64_json"], ["base64"]), "dall-e-3": (["url"], ["URL"])}),
    (
        "output_format",
        {
            GPT_1: (["png", "jpeg", "webp"], ["gif", "svg", "jpg"]),
            GPT_2: (["png"], ["gif"]),
            GPT_25: (["webp"], ["svg"]),
            GPT_26: (["png", "gif", "svg"], ["avif"]),
        },
    ),
    ("background", {name: (["auto", "opaque", "transparent"], ["white"]) for name in (GPT_1, GPT_2, GPT_25, GPT_26)}),
    ("moderation", {name: (["auto", "low"], ["high", "none"]) for name in (GPT_1, GPT_2, GPT_25, GPT_26)}),
    ("user", {name: (["u-1"], [7, True]) for name in ("dall-e-2", "dall-e-3", GPT_1, GPT_2, GPT_25, GPT_26)}),
    ("safety_identifier", {name: (["s-1"], [7]) for name in (GPT_2, GPT_25, GPT_26)}),
    ("complexity", {GPT_26: (["low", "medium", "high"], ["max"])}),
    ("stream", {}),
    ("partial_images", {}),
    ("markup", {}),
    ("seed", {}),
    ("negative_prompt", {}),
]
TAKEN = [(p, name, v) for p, row in ROWS for name, (good, _) in row.items() for v in good]
REFUSED = [(p, name, v) for p, row in ROWS for name, (_, bad) in row.items() for v in bad]
FOREIGN = [
    (p, name) for p, row in ROWS for name in ("dall-e-2", "dall-e-3", GPT_1, GPT_2, GPT_25, GPT_26) if name not in row
]


@pytest.mark.parametrize(("parameter", "name", "value"), TAKEN)
def test_a_value_of_the_table_is_taken(parameter: str, name: str, value: object) -> None:
    assert problems(name, **{parameter: value}) == []


@pytest.mark.parametrize(("parameter", "name", "value"), REFUSED)
def test_another_value_is_refused_with_field_value_and_what_is_allowed(
    parameter: str, name: str, value: object
) -> None:
    (problem,) = problems(name, **{parameter: value})
    assert problem.field == parameter
    assert f"`{str(value).lower() if isinstance(value, bool) else value}`" in problem.message
    assert f"{name} takes " in problem.message


@pytest.mark.parametrize(("parameter", "name"), FOREIGN)
def test_a_parameter_of_other_models_is_refused(parameter: str, name: str) -> None:
    (problem,) = problems(name, **{parameter: "x"})
    assert problem.field == parameter
    assert f"{name} does not take" in problem.message


@pytest.mark.parametrize("name", [*GPT, *NEW])
def test_gpt_image_takes_no_response_format_and_the_message_says_to_leave_it_out(name: str) -> None:
    (problem,) = problems(name, response_format="url")
    assert "leave it out" in problem.message


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        (GPT_1, "high", True),
        (GPT_1, "low", True),
        (GPT_1, "best", False),
        ("gpt-image-1.5", "high", True),
        ("chatgpt-image-latest", "high", True),
        ("gpt-image-1-mini", "low", True),
        ("gpt-image-1-mini", "high", False),
        (GPT_2, "high", False),
        (GPT_2, "low", False),
        (GPT_25, "high", False),
        (GPT_26, "high", False),
        ("dall-e-2", "high", False),
    ],
)
def test_input_fidelity_is_for_edits_of_the_first_gpt_models(name: str, value: str, taken: bool) -> None:
    assert (problems(name, "edit", input_fidelity=value) == []) is taken
    assert problems(name, "generation", input_fidelity=value)


@pytest.mark.parametrize("name", [GPT_1, GPT_2, GPT_25, GPT_26])
def test_compression_is_a_whole_number_from_0_to_100_for_jpeg_and_webp(name: str) -> None:
    for value in (0, 80, 100):
        assert problems(name, output_compression=value, output_format="webp") == []
        assert problems(name, output_compression=value, **JPEG) == []
    for wrong in (-1, 101, 80.0, "80", True):
        (problem,) = problems(name, output_compression=wrong, **JPEG)
        assert "a whole number from 0 to 100" in problem.message
    for others in ({}, {"output_format": "png"}):
        (problem,) = problems(name, output_compression=80, **others)
        assert "`80` with `output_format: png`" in problem.message
        assert "jpeg or webp only" in problem.message


@pytest.mark.parametrize("name", [GPT_1, GPT_2, GPT_25, GPT_26])
def test_a_transparent_jpeg_is_refused(name: str) -> None:
    (problem,) = problems(name, background="transparent", **JPEG)
    assert problem.field == "background"
    assert "png or webp only" in problem.message
    assert problems(name, background="transparent", output_format="webp") == []
    assert problems(name, background="opaque", **JPEG) == []


def test_frames_go_with_gif_only() -> None:
    assert problems(GPT_26, frame_count=16, frame_duration_ms=655_350, output_format="gif") == []
    assert {c.field for c in problems(GPT_26, frame_count=17, frame_duration_ms=5, output_format="gif")} == {
        "frame_count",
        "frame_duration_ms",
    }
    (problem,) = problems(GPT_26, frame_count=9)
    assert "output_format gif only" in problem.message
    assert problems(GPT_25, frame_count=9)


def test_svg_settings_go_with_svg_only() -> None:
    svg = {"model": "x", "reasoning": {"effort": "low"}}
    assert problems(GPT_26, svg=svg, output_format="svg") == []
    assert len(problems(GPT_26, svg=svg)) == 1
    assert len(problems(GPT_26, svg="x", output_format="svg")) == 1
    assert len(problems(GPT_26, output_compression=5, output_format="svg")) == 1


@pytest.mark.parametrize(
    ("name", "most"),
    [("dall-e-2", 10), ("dall-e-3", 1), (GPT_1, 10), (GPT_2, 10), (GPT_25, 10), (GPT_26, 10)],
)
def test_n_of_one_call_is_the_models(name: str, most: int) -> None:
    assert model(name).max_n("generation", {}) == most


def test_svg_comes_one_a_call() -> None:
    assert model(GPT_26).max_n("generation", {"output_format": "svg"}) == 1
    assert model(GPT_26).max_n("generation", {"output_format": "gif"}) == 10


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("dall-e-2", {"generation", "edit", "variation"}),
        ("dall-e-3", {"generation"}),
        *[(name, {"generation", "edit"}) for name in (*GPT, *NEW)],
    ],
)
def test_an_operation_that_the_model_does_not_offer_is_refused(name: str, operations: set[str]) -> None:
    for operation in ("generation", "edit", "variation"):
        fields = {problem.field for problem in problems(name, operation)}
        assert ("operation" in fields) is (operation not in operations)


@pytest.mark.parametrize(
    ("name", "most"), [("dall-e-2", 1000), ("dall-e-3", 4000), *[(name, 32_000) for name in (*GPT, *NEW)]]
)
def test_a_prompt_is_counted_in_characters(name: str, most: int) -> None:
    assert validate(model(name), "generation", "ü" * most, {}, 0, mask=False) == []
    (problem,) = validate(model(name), "generation", "a" * (most + 1), {}, 0, mask=False)
    assert problem == FieldProblem("prompt", f"has {most + 1:,} characters; {name} takes at most {most:,}")


@pytest.mark.parametrize("prompt", [None, "", " \n"])
def test_a_missing_prompt_is_named(prompt: str | None) -> None:
    for operation, images in (("generation", 0), ("edit", 1)):
        (problem,) = validate(model("dall-e-2"), operation, prompt, {}, images, mask=False)
        assert problem.field == "prompt"


def test_a_variation_takes_no_prompt() -> None:
    (problem,) = validate(model("dall-e-2"), "variation", "a cat", {}, 1, mask=False)
    assert problem.field == "prompt"
    assert "leave it out" in problem.message


@pytest.mark.parametrize(
    ("name", "operation", "images", "fine"),
    [
        ("dall-e-2", "edit", 0, False),
        ("dall-e-2", "edit", 1, True),
        ("dall-e-2", "edit", 2, False),
        ("dall-e-2", "variation", 0, False),
        ("dall-e-2", "variation", 2, False),
        (GPT_2, "edit", 16, True),
        (GPT_2, "edit", 17, False),
        (GPT_2, "generation", 1, False),
    ],
)
def test_input_pictures_are_counted(name: str, operation: str, images: int, fine: bool) -> None:
    prompt = None if operation == "variation" else "a cat"
    found = validate(model(name), operation, prompt, {}, images, mask=False)
    assert [problem.field for problem in found] == ([] if fine else ["image"])


@pytest.mark.parametrize(
    ("name", "operation", "fine"),
    [("dall-e-2", "edit", True), ("dall-e-2", "variation", False), (GPT_2, "edit", True), (GPT_2, "generation", False)],
)
def test_a_mask_goes_with_an_edit_only(name: str, operation: str, fine: bool) -> None:
    images, prompt = (0 if operation == "generation" else 1), (None if operation == "variation" else "a cat")
    found = validate(model(name), operation, prompt, {}, images, mask=True)
    assert [problem.field for problem in found] == ([] if fine else ["mask"])


def test_all_mistakes_are_named_at_once() -> None:
    params = {"size": "512x512", "quality": "hd", "qualty": "low", "response_format": "url", "style": "vivid"}
    found = validate(model(GPT_2), "variation", "a cat", params, 0, mask=True)
    fields = ["operation", "prompt", "image", "mask", *params]
    assert [problem.field for problem in found] == fields


@pytest.mark.parametrize("value", ["1536X1024", "1536 x 1024", "1536\u00d71024", "1536*1024"])
@pytest.mark.parametrize("model", ["gpt-image-2", "gpt-image-1.5"])
def test_a_size_in_another_form_is_suggested_as_it_is_written(model: str, value: str) -> None:
    found = TABLE.find(model)
    assert found is not None
    said = found.parameters["size"].violation(value)
    assert said == f"is `{value}` (did you mean `1536x1024`?)"
    assert "did you mean" not in str(found.parameters["size"].violation("9999 x 16"))


def test_a_misspelt_parameter_or_value_is_answered_with_the_nearest() -> None:
    (problem,) = problems(GPT_2, qualty="low")
    assert "did you mean `quality`?" in problem.message
    (problem,) = problems(GPT_2, quality="hihg")
    assert "did you mean `high`?" in problem.message


def test_model_and_what_is_null_are_passed_over() -> None:
    assert problems(GPT_2, model=GPT_2, style=None, size=None) == []


def test_a_free_size_is_refused_with_every_reason() -> None:
    (problem,) = problems(GPT_2, size="4001x1000")
    for words in ("not a multiple of 16", "longer than 3840", "longer than 3:1"):
        assert words in problem.message


def test_what_pictures_must_be_is_known_by_operation() -> None:
    dalle, gpt = model("dall-e-2"), model(GPT_2)
    edit, variation = dalle.image_requirements("edit"), dalle.image_requirements("variation")
    assert edit is not None
    assert variation is not None
    assert (edit.formats, edit.square, edit.max_bytes) == (("png",), True, 4 * 2**20)
    assert edit.own_mask_modes == ("RGBA", "LA", "L")
    assert not variation.own_mask_modes
    assert dalle.image_requirements("generation") is None
    requirements = gpt.image_requirements("edit")
    assert requirements is not None
    assert (set(requirements.formats), requirements.most, requirements.max_bytes) == (
        {"png", "webp", "jpeg"},
        16,
        50 * 2**20,
    )
    assert default_requirements().max_bytes is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dall-e-2", "dall-e-2 was shut down on 2026-05-12"),
        (GPT_1, "was shut down on 2026-10-23"),
        ("gpt-image-1.5", "is shut down on 2026-12-01 (in 9 days)"),
        ("gpt-image-1-mini", "use gpt-image-2.6-flare"),
        ("chatgpt-image-latest", "2026-12-01"),
    ],
)
def test_a_model_that_is_shut_down_or_soon_will_be_is_a_warning(name: str, words: str) -> None:
    (warning,) = model(name).warnings(TODAY)
    assert words in warning


def test_a_warning_begins_30_days_before_and_changes_on_the_day() -> None:
    mini = model("gpt-image-1-mini")
    assert mini.warnings(date(2026, 10, 31)) == []
    assert "(in 30 days)" in mini.warnings(date(2026, 11, 1))[0]
    assert "(today)" in mini.warnings(date(2026, 12, 1))[0]
    assert "(in 1 day)" in mini.warnings(date(2026, 11, 30))[0]
    assert "was shut down" in mini.warnings(date(2026, 12, 2))[0]
    assert all(model(name).warnings(TODAY) == [] for name in (GPT_2, *NEW))


def test_a_snapshot_is_its_model_and_any_other_name_is_unknown() -> None:
    assert TABLE.find("gpt-image-2-2026-04-21") is model(GPT_2)
    assert TABLE.find("gpt-image-1.5-2025-12-16") is model("gpt-image-1.5")
    assert TABLE.find("gpt-image-2.5-flare-2026-09-08") is model(GPT_25)
    assert TABLE.find("gpt-image-2-2030-01-01") is None
    assert TABLE.find(None) is None
    assert TABLE.find("sdxl") is None


def test_an_unknown_model_is_a_warning_with_the_nearest_name() -> None:
    assert "did you mean gpt-image-2?" in TABLE.unknown_model_warning("gpt-image-02")
    assert "without a price" in TABLE.unknown_model_warning("sdxl")


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        ("output_compression", "80", 80),
        ("output_compression", "80%", "80%"),
        ("output_compression", "", ""),
        ("user", "80", "80"),
        ("size", "1024x1024", "1024x1024"),
        ("quality", "high", "high"),
        ("n", "4", 4),
        ("unheard_of", "4", "4"),
        ("unheard_of", "true", "true"),
    ],
)
def test_a_text_cell_is_converted_as_the_parameter_needs(parameter: str, text: str, value: object) -> None:
    assert convert(parameter, text) == value
    assert convert(parameter, text, model(GPT_2)) == value


def test_a_text_cell_for_a_flag_becomes_true_or_false() -> None:
    lab = Models.load({"lab": {"inherits": GPT_2, "parameters": {"tiled": {"takes": "flag"}}}}).find("lab")
    assert lab is not None
    assert [convert("tiled", text, lab) for text in ("true", "False", "yes")] == [True, False, "yes"]
    assert validate(lab, "generation", "a", {"tiled": True}, 0, mask=False) == []
    assert "true or false" in validate(lab, "generation", "a", {"tiled": "yes"}, 0, mask=False)[0].message


def test_a_user_adds_a_model_and_changes_one_without_touching_code() -> None:
    table = Models.load(
        {
            "lab-flux": {
                "operations": ["generation"],
                "prompt": 500,
                "n": 4,
                "parameters": {"steps": {"takes": "whole", "range": [1, 50]}},
                "prices": {"per_image": {"standard": {"1024x1024": 0.001}}},
            },
            "my-image": {"inherits": GPT_2, "parameters": {"style": None, "user": None}, "shutdown": "2027-01-01"},
            GPT_2: {"n": 4, "parameters": {"quality": {"values": ["low", "auto"]}}},
        }
    )
    flux, mine, gpt, heir = (table.find(name) for name in ("lab-flux", "my-image", GPT_2, GPT_25))
    assert flux is not None
    assert mine is not None
    assert gpt is not None
    assert heir is not None
    assert validate(flux, "generation", "a", {"steps": 50}, 0, mask=False) == []
    assert validate(flux, "generation", "a" * 501, {"steps": 51}, 0, mask=False)
    assert (gpt.max_n("generation", {}), mine.max_n("generation", {}), heir.max_n("generation", {})) == (4, 4, 4)
    assert validate(gpt, "generation", "a", {"quality": "high"}, 0, mask=False)
    assert validate(heir, "generation", "a", {"quality": "high"}, 0, mask=False) == []
    assert "user" not in mine.parameters
    assert mine.shutdown == date(2027, 1, 1)
    assert model(GPT_2).n == 10  # the built-in table is as it was


def test_mistakes_in_the_users_models_are_named_with_their_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        Models.load(
            {
                GPT_2: {"parameters": {"size": {"valuse": ["1x1"]}}},
                "a": {"inherits": "gpt-imag-2"},
                "b": {"inherits": "c"},
                "c": {"inherits": "b"},
                "d": {"inherits": "dall-e-2", "n": "many"},
                "e": {"prompt": 5},
                "f": 7,
            }
        )
    text = str(caught.value)
    assert text.count("valuse") == 1  # though five models inherit it
    assert "models.gpt-image-2.parameters.size.valuse: is an unknown key; did you mean `values`?" in text
    assert "models.a: inherits from `gpt-imag-2`, which is not a model; did you mean `gpt-image-2`?" in text
    assert "models.b.inherits: is a cycle" in text
    assert "models.d.n: is 'many'" in text
    assert "models.e.operations: is missing" in text
    assert "models.f: is not a mapping" in text


def test_the_table_is_imported_without_pillow_aiohttp_or_pydantic() -> None:
    code = "import sys, pipeline.models.model; print({'PIL', 'aiohttp', 'pydantic'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"

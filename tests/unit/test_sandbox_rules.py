"""Validation of parameters for each model."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from pipeline.sandbox.api_errors import ApiError
from pipeline.sandbox.request_body import FilePart, RequestBody
from pipeline.sandbox.rules.validate import ImageCall, images_asked, moderate, validate_call

NEWEST = {"prompt": "x", "model": "gpt-image-2.6-flare"}


def generation(**fields: object) -> ImageCall:
    return validate_call("generation", RequestBody("json", {"prompt": "a cat", **fields}))


def api_error(operation: Any, encoding: Any, files: tuple[FilePart, ...] = (), **fields: object) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        validate_call(operation, RequestBody(encoding, dict(fields), files))
    return {"status": caught.value.status, **caught.value.error}


def test_the_defaults_are_those_of_the_guide() -> None:
    call = generation()
    assert (call.model, call.n, call.size, call.response_format) == ("dall-e-2", 1, "1024x1024", "url")
    assert generation(model="gpt-image-2").response_format == "b64_json"


def test_without_a_model_a_gpt_parameter_selects_a_gpt_model() -> None:
    assert generation(background="opaque").model == "gpt-image-1.5"
    assert validate_call("edit", RequestBody("json", {"prompt": "x", "images": []})).model == "gpt-image-1.5"
    assert validate_call("edit", RequestBody("multipart", {"prompt": "x"})).model == "dall-e-2"


def test_null_means_the_default_but_never_for_the_prompt() -> None:
    assert generation(n=None, size=None, quality=None, model=None).n == 1
    assert api_error("generation", "json", prompt=None)["code"] == "invalid_type"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "prompt"),
        ({"prompt": ""}, "string_below_min_length", "prompt"),
        ({"prompt": "x" * 1001}, "string_above_max_length", "prompt"),
        ({"prompt": "x" * 4001, "model": "dall-e-3"}, "string_above_max_length", "prompt"),
        ({"prompt": "x" * 32001, "model": "gpt-image-2"}, "string_above_max_length", "prompt"),
        ({"prompt": ["x"]}, "invalid_type", "prompt"),
        ({"prompt": "x", "n": "2"}, "invalid_type", "n"),
        ({"prompt": "x", "n": 2.0}, "invalid_type", "n"),
        ({"prompt": "x", "n": True}, "invalid_type", "n"),
        ({"prompt": "x", "n": 0}, "integer_below_min_value", "n"),
        ({"prompt": "x", "n": 11}, "integer_above_max_value", "n"),
        ({"prompt": "x", "n": 10**40}, "integer_above_max_value", "n"),
        ({"prompt": "x", "n": 2, "model": "dall-e-3"}, "integer_above_max_value", "n"),
        ({"prompt": "x", "foo": 1}, "unknown_parameter", "foo"),
        ({"prompt": "x", "style": "vivid"}, "unknown_parameter", "style"),
        ({"prompt": "x", "quality": "hd"}, "invalid_value", "quality"),
        ({"prompt": "x", "image": "x"}, "unknown_parameter", "image"),
        ({"prompt": "x", "size": "1792x1024"}, "invalid_value", "size"),
        ({"prompt": "x", "size": "256x256", "model": "dall-e-3"}, "invalid_value", "size"),
        ({"prompt": "x", "size": "1536x864", "model": "gpt-image-1"}, "invalid_value", "size"),
        ({"prompt": "x", "model": 5}, "invalid_type", "model"),
        ({"prompt": "x", "model": "gpt-image-2", "response_format": "url"}, "unknown_parameter", "response_format"),
        ({"prompt": "x", "model": "gpt-image-2", "quality": "xhigh"}, "invalid_value", "quality"),
        ({"prompt": "x", "model": "gpt-image-2", "quality": "standard"}, "invalid_value", "quality"),
        ({"prompt": "x", "model": "gpt-image-2", "stream": "true"}, "invalid_type", "stream"),
        ({"prompt": "x", "model": "gpt-image-2", "partial_images": 4}, "integer_above_max_value", "partial_images"),
        ({"prompt": "x", "model": "gpt-image-2", "output_compression": 50}, "invalid_value", "output_compression"),
        ({"prompt": "x", "model": "gpt-image-2", "output_format": "gif"}, "invalid_value", "output_format"),
        ({"prompt": "x", "model": "gpt-image-2", "input_fidelity": "low"}, "unknown_parameter", "input_fidelity"),
        ({"prompt": "x", "model": "gpt-image-2", "complexity": "low"}, "unknown_parameter", "complexity"),
        ({"prompt": "x", "model": "gpt-image-2.5-flare", "output_format": "svg"}, "invalid_value", "output_format"),
        ({"prompt": "x", "model": "gpt-image-2.5-flare", "frame_count": 4}, "unknown_parameter", "frame_count"),
        ({**NEWEST, "frame_count": 4}, "invalid_value", "frame_count"),
        ({**NEWEST, "frame_duration_ms": 100}, "invalid_value", "frame_duration_ms"),
        ({**NEWEST, "svg": {"model": "x"}}, "invalid_value", "svg"),
        ({**NEWEST, "output_format": "gif", "frame_count": 1}, "integer_below_min_value", "frame_count"),
        ({**NEWEST, "output_format": "gif", "frame_count": 17}, "integer_above_max_value", "frame_count"),
        ({**NEWEST, "output_format": "gif", "stream": True}, "invalid_value", "stream"),
        ({**NEWEST, "output_format": "gif", "partial_images": 1}, "invalid_value", "partial_images"),
        ({**NEWEST, "output_format": "gif", "output_compression": 50}, "invalid_value", "output_compression"),
        ({**NEWEST, "output_format": "gif", "background": "transparent"}, "invalid_value", "background"),
        ({**NEWEST, "output_format": "svg", "n": 2}, "invalid_value", "n"),
        ({**NEWEST, "output_format": "svg", "stream": True}, "invalid_value", "stream"),
        ({**NEWEST, "output_format": "svg", "output_compression": 100}, "invalid_value", "output_compression"),
        ({**NEWEST, "output_format": "svg", "svg": "x"}, "invalid_type", "svg"),
        ({**NEWEST, "output_format": "svg", "svg": {}}, "missing_required_parameter", "svg.model"),
        ({**NEWEST, "output_format": "svg", "svg": {"model": 1}}, "invalid_type", "svg.model"),
        ({**NEWEST, "output_format": "svg", "svg": {"model": "x", "foo": 1}}, "unknown_parameter", "svg.foo"),
        (
            {**NEWEST, "output_format": "svg", "svg": {"model": "x", "reasoning": {"effort": "huge"}}},
            "invalid_value",
            "svg.reasoning.effort",
        ),
        ({**NEWEST, "markup": "x"}, "unknown_parameter", "markup"),
        (
            {"prompt": "x", "model": "gpt-image-1", "background": "transparent", "output_format": "jpeg"},
            "invalid_value",
            "background",
        ),
    ],
)
def test_a_generation_is_refused_with_its_code_and_parameter(fields: dict[str, Any], code: str, param: str) -> None:
    refused = api_error("generation", "json", **fields)
    assert (refused["status"], refused["code"], refused["param"]) == (400, code, param)
    assert refused["type"] == "invalid_request_error"


def test_an_invalid_value_error_lists_the_supported_values() -> None:
    message = api_error("generation", "json", prompt="x", size="500x500")["message"]
    assert message == "Invalid value: '500x500'. Supported values are: '256x256', '512x512', and '1024x1024'."
    assert api_error("generation", "json", prompt="x", foo=1)["message"] == "Unknown parameter: 'foo'."


def test_an_unknown_model_is_404() -> None:
    refused = api_error("generation", "json", prompt="x", model="dall-e-9")
    assert (refused["status"], refused["code"]) == (404, "model_not_found")


def test_a_model_is_404_from_its_shutdown_date_on() -> None:
    form = RequestBody("json", {"prompt": "x", "model": "gpt-image-1"})
    assert validate_call("generation", form, today=date(2026, 10, 22)).model == "gpt-image-1"
    with pytest.raises(ApiError) as caught:
        validate_call("generation", form, today=date(2026, 10, 23))
    assert (caught.value.status, caught.value.error["code"]) == (404, "model_not_found")
    assert "`gpt-image-1` has been deprecated" in str(caught.value)


def test_after_the_shutdown_of_dall_e_2_an_edit_without_a_model_selects_a_gpt_model() -> None:
    assert (
        validate_call("edit", RequestBody("multipart", {"prompt": "x"}), today=date(2026, 6, 1)).model
        == "gpt-image-1.5"
    )
    with pytest.raises(ApiError) as caught:
        validate_call("generation", RequestBody("json", {"prompt": "x"}), today=date(2026, 6, 1))
    assert caught.value.error["code"] == "model_not_found"


def test_an_organization_that_is_not_verified_may_use_the_older_models_only() -> None:
    assert validate_call("generation", RequestBody("json", {"prompt": "x"}), verified=False).model == "dall-e-2"
    with pytest.raises(ApiError) as caught:
        validate_call("generation", RequestBody("json", {"prompt": "x", "model": "gpt-image-2"}), verified=False)
    assert (caught.value.status, caught.value.error["type"]) == (403, "invalid_request_error")
    assert (caught.value.error["code"], caught.value.error["param"]) == (None, None)
    assert "organization must be verified to use the model `gpt-image-2`" in str(caught.value)


@pytest.mark.parametrize("size", ["1536x864", "2048x2048", "3840x2160", "1024x640", "2048x688", "auto"])
def test_a_free_size_within_the_rules_is_accepted(size: str) -> None:
    assert generation(model="gpt-image-2", size=size).size == size


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ("1000x1000", "divisible by 16"),
        ("3856x2160", "longest edge"),
        ("2048x672", "aspect ratio"),
        ("512x512", "number of pixels"),
        ("3840x2176", "number of pixels"),
        ("01024x1024", "Supported values"),
        ("1024X1024", "Supported values"),
        ("\u0661024x1024", "Supported values"),
    ],
)
def test_a_free_size_error_names_the_broken_rule(size: str, rule: str) -> None:
    assert rule in api_error("generation", "json", prompt="x", model="gpt-image-2.6-flare", size=size)["message"]


def test_newer_models_accept_parameters_that_older_ones_refuse() -> None:
    assert generation(model="gpt-image-2.5-sunburst", quality="max").quality == "max"
    assert generation(model="gpt-image-2.6-flare", complexity="low").model == "gpt-image-2.6-flare"


@pytest.mark.parametrize(
    ("operation", "encoding", "model"),
    [
        ("edit", "multipart", "dall-e-3"),
        ("edit", "json", "dall-e-2"),
        ("variation", "multipart", "dall-e-3"),
        ("variation", "multipart", "gpt-image-2"),
    ],
)
def test_an_operation_that_a_model_does_not_support_is_refused(operation: str, encoding: str, model: str) -> None:
    refused = api_error(operation, encoding, prompt="x", model=model)
    assert (refused["code"], refused["param"]) == ("invalid_value", "model")


def test_a_variation_of_another_model_is_refused_after_the_shutdown_of_dall_e_2_too() -> None:
    with pytest.raises(ApiError) as caught:
        validate_call("variation", RequestBody("multipart", {"model": "gpt-image-2"}), today=date(2026, 11, 28))
    error = caught.value.error
    assert (caught.value.status, error["code"], error["param"]) == (400, "invalid_value", "model")
    assert error["message"] == "Invalid value: 'gpt-image-2'."


def test_form_fields_are_converted_to_numbers_and_booleans() -> None:
    fields: dict[str, object] = {"prompt": "x", "model": "gpt-image-1", "n": "3", "stream": "true"}
    call = validate_call("edit", RequestBody("multipart", fields))
    assert (call.n, call.stream) == (3, True)
    assert api_error("edit", "multipart", prompt="x", n="three")["code"] == "invalid_type"


def test_input_fidelity_is_for_edits_of_the_first_generation() -> None:
    fields: dict[str, object] = {"prompt": "x", "model": "gpt-image-1.5", "input_fidelity": "high"}
    assert validate_call("edit", RequestBody("multipart", fields)).model == "gpt-image-1.5"
    mini = api_error("edit", "multipart", prompt="x", model="gpt-image-1-mini", input_fidelity="high")
    assert mini["code"] == "invalid_value"
    second = api_error("edit", "multipart", prompt="x", model="gpt-image-2", input_fidelity="high")
    assert second["code"] == "invalid_input_fidelity_model"


def test_the_fields_of_an_svg_may_be_null_for_the_default() -> None:
    call = generation(model="gpt-image-2.6-flare", output_format="svg", svg={"model": "x", "reasoning": None})
    assert (call.svg_model, call.svg_effort) == ("x", "medium")
    assert generation(model="gpt-image-2.6-flare", output_format="svg", svg=None).svg_model


def test_a_safety_identifier_takes_precedence_over_the_user_unless_empty() -> None:
    for given, effective in (("one", "one"), ("", "two"), (None, "two")):
        assert generation(model="gpt-image-2", safety_identifier=given, user="two").safety_identifier == effective
    assert api_error("generation", "json", prompt="x", model="gpt-image-2", user=None)["code"] == "invalid_type"


def test_a_huge_integer_in_a_form_is_above_the_maximum() -> None:
    assert api_error("edit", "multipart", prompt="x", n="9" * 200)["code"] == "integer_above_max_value"


def test_a_file_in_a_text_field_and_text_in_a_file_field_are_refused() -> None:
    image = FilePart("prompt", b"", "image/png")
    assert api_error("edit", "multipart", (image,), prompt="x")["code"] == "invalid_type"
    assert api_error("edit", "multipart", image="x", prompt="x")["code"] == "invalid_type"
    assert api_error("edit", "multipart", (FilePart("picture", b"", None),), prompt="x")["code"] == "unknown_parameter"


def test_the_rate_limit_counts_n_or_one_if_n_is_invalid() -> None:
    assert images_asked(RequestBody("json", {"n": 7})) == 7
    assert images_asked(RequestBody("multipart", {"n": "7"})) == 7
    for wrong in (0, 11, "7", True, None, [7], 7.0):
        assert images_asked(RequestBody("json", {"n": wrong})) == 1


def test_the_content_policy_ignores_case() -> None:
    moderate(generation(prompt="a permitted cat"))
    with pytest.raises(ApiError) as caught:
        moderate(generation(prompt="a ForBidden cat"))
    assert caught.value.error["code"] == "content_policy_violation"

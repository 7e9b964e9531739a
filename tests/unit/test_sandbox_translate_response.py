"""Translation of responses into a dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.dialect import read_dialect
from pipeline.sandbox.responses import error_response, json_response
from pipeline.sandbox.translate_response import translate_response


def translated(response: Any, **dialect: object) -> tuple[int, Any]:
    answer = translate_response(response, read_dialect(dialect))
    return answer.status, json.loads(answer.chunks[0])


def test_validation_errors_of_fastapi_are_422_and_other_errors_keep_their_status() -> None:
    missing = error_response(errors.missing_parameter("prompt"))
    detail = {"type": "value_error", "loc": ["body", "prompt"], "msg": "You must provide a prompt."}
    assert translated(missing, errors="detail") == (422, {"detail": [detail]})
    unknown = error_response(errors.unknown_parameter("foo"))
    assert translated(unknown, errors="detail") == (400, {"detail": "Unknown parameter: 'foo'."})
    assert translated(missing)[1]["error"]["code"] == "missing_required_parameter"


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        ({}, {"created": 1, "data": [{"b64_json": "AA=="}, {"url": "http://host:1/a/b?c=d"}]}),
        ({"created": False}, {"data": [{"b64_json": "AA=="}, {"url": "http://host:1/a/b?c=d"}]}),
        (
            {"pictures": "data_url"},
            {"created": 1, "data": [{"b64_json": "data:image/png;base64,AA=="}, {"url": "http://host:1/a/b?c=d"}]},
        ),
        ({"pictures": "relative_url"}, {"created": 1, "data": [{"b64_json": "AA=="}, {"url": "/a/b?c=d"}]}),
    ],
)
def test_a_success_has_the_form_of_the_dialect(dialect: dict[str, Any], document: dict[str, Any]) -> None:
    success = json_response({"created": 1, "data": [{"b64_json": "AA=="}, {"url": "http://host:1/a/b?c=d"}]})
    assert translated(success, **dialect) == (200, document)

"""Translation of requests from a dialect."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.sandbox.api_errors import ApiError
from pipeline.sandbox.dialect import read_dialect
from pipeline.sandbox.request_body import RequestBody
from pipeline.sandbox.translate_request import translate_request

VALUES = {"values": {"quality": {"good": "standard"}}}


def translated(dialect: dict[str, Any], fields: dict[str, Any], encoding: Any = "json") -> dict[str, Any]:
    _, body = translate_request("generation", RequestBody(encoding, dict(fields)), read_dialect(dialect))
    return body.fields


def test_values_and_sizes_of_a_dialect_become_those_of_openai() -> None:
    assert translated(VALUES, {"quality": "good"}) == {"quality": "standard"}
    assert translated({"size_as": "aspect_ratio"}, {"aspect_ratio": "3:2"}) == {"size": "1536x1024"}
    assert translated({"size_as": "W*H"}, {"size": "256*256"}) == {"size": "256x256"}
    sides = {"width": 512, "height": 256}
    assert translated({"size_as": "width_height"}, sides) == {"size": "512x256"}
    texts = {name: str(side) for name, side in sides.items()}
    assert translated({"size_as": "width_height"}, texts, "multipart") == {"size": "512x256"}


@pytest.mark.parametrize(
    ("dialect", "fields", "code", "param"),
    [
        (VALUES, {"quality": "standard"}, "invalid_value", "quality"),
        (VALUES, {"quality": ["good"]}, "invalid_value", "quality"),
        (VALUES, {"quality": {"good": 1}}, "invalid_value", "quality"),
        ({"size_as": "aspect_ratio"}, {"aspect_ratio": ["1:1"]}, "invalid_value", "aspect_ratio"),
        ({"size_as": "aspect_ratio"}, {"aspect_ratio": {}}, "invalid_value", "aspect_ratio"),
        ({"size_as": "width_height"}, {"width": "9" * 5000, "height": "256"}, "invalid_type", "width"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(
    dialect: dict[str, Any], fields: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        translated(dialect, fields, "multipart")
    assert (caught.value.status, caught.value.error["code"], caught.value.error["param"]) == (400, code, param)

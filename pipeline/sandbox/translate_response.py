"""Translate a response in OpenAI's form into the server's own dialect."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors as errors

if TYPE_CHECKING:
    from pipeline.sandbox.dialect import Dialect
    from pipeline.sandbox.responses import Response

VALIDATION: Final = ("missing_required_parameter", "invalid_type")
"""Codes of the errors that FastAPI itself finds in a body, before the program behind it reads it."""


def withheld_images(images: int, created: int) -> dict[str, object]:
    """Return what xAI answers if its policy withholds the images."""
    return {"created": created, "data": [{"respect_moderation": False} for _ in range(images)]}


def translate_response(response: Response, dialect: Dialect) -> Response:
    """Return a success or an error in the dialect."""
    if response.content_type != errors.JSON_TYPE or len(response.chunks) != 1:
        return response
    failed = response.status >= 400
    plain = dialect.errors == "vendor" if failed else dialect.pictures == "plain" and dialect.created
    if plain:
        return response
    content = json.loads(response.chunks[0])
    if not failed:
        return _with(response, response.status, _translate_success(content, dialect))
    error = content["error"]
    if error["code"] not in VALIDATION:
        return _with(response, response.status, {"detail": error["message"]})
    detail = {"type": "value_error", "loc": ["body", error["param"]], "msg": error["message"]}
    return _with(response, 422, {"detail": [detail]})


def _with(response: Response, status: int, content: dict[str, object]) -> Response:
    return replace(response, status=status, chunks=(json.dumps(content).encode(),))


def _translate_success(content: dict[str, object], dialect: Dialect) -> dict[str, object]:
    if not dialect.created:
        content.pop("created", None)
    data = content.get("data")
    for item in data if isinstance(data, list) else ():
        if dialect.pictures == "data_url" and "b64_json" in item:
            item["b64_json"] = f"data:image/png;base64,{item['b64_json']}"
        if dialect.pictures == "relative_url" and "url" in item:
            item["url"] = "/" + item["url"].split("/", 3)[3]
    return content

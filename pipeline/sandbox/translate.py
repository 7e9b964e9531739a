"""A call in the server's own dialect becomes OpenAI's call, and OpenAI's answer one in the dialect.

What is not said in the dialect is refused, as the servers that have it would.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.sandbox.rules import errors
from pipeline.sandbox.rules.fields import json_type

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.dialect import Dialect, Uploads
    from pipeline.sandbox.request_body import FilePart, Form
    from pipeline.sandbox.responses import Answer
    from pipeline.sandbox.rules.models import Operation

MULTIPART: Final = "multipart/form-data"
ACCEPTED: Final[dict[Operation, tuple[str, ...]]] = {
    "generation": (errors.JSON_TYPE,),
    "edit": (MULTIPART, errors.JSON_TYPE),
    "variation": (MULTIPART,),
}
VALIDATION: Final = ("missing_required_parameter", "invalid_type")
"""Codes of what FastAPI itself finds wrong with a body, before the program behind it sees it."""
SIZES: Final = {"1:1": "1024x1024", "3:2": "1536x1024", "2:3": "1024x1536", "16:9": "1792x1024", "9:16": "1024x1792"}


def accepted(operation: Operation, dialect: Dialect) -> tuple[str, ...]:
    """Say which content types an operation's body may have."""
    if operation == "generation" or dialect.uploads is None:
        return ACCEPTED[operation]
    return (MULTIPART if dialect.uploads.encoding == "multipart" else errors.JSON_TYPE,)


def check_query(request: web.Request, dialect: Dialect) -> None:
    """Refuse an address without the query that every call must carry. Raises ApiError."""
    for name, value in dialect.query.items():
        if request.query.get(name) != value:
            raise errors.ApiError("Resource not found", status=404, code="404", kind="not_found")  # as Azure


def translate(operation: Operation, form: Form, dialect: Dialect) -> tuple[Operation, Form]:
    """Turn a call in the dialect into OpenAI's. Raises ApiError."""
    fields = dict(form.fields)
    _take_required(fields, dialect)
    _take_model(fields, dialect)
    _take_values(fields, dialect)
    _take_size(fields, dialect, multipart=form.encoding == "multipart")
    form = replace(form, fields=fields)
    if dialect.uploads is None:
        return operation, form
    if operation == "generation" and dialect.paths["edit"] == dialect.paths["generation"]:
        operation = "edit" if fields.keys() & dialect.uploads.fields else "generation"
    if operation == "generation":
        return operation, form
    return operation, _take_files(form, dialect.uploads)


def _take_required(fields: dict[str, object], dialect: Dialect) -> None:
    for name, value in dialect.body.items():
        if str(fields.get(name)) != str(value):  # in a form everything is text
            raise errors.invalid_value(name, str(fields.get(name))[:100], [str(value)])
        if name != "response_format":  # the service's own word, which the rules know
            del fields[name]


def _take_model(fields: dict[str, object], dialect: Dialect) -> None:
    if dialect.serves is None:
        return
    if "model" in fields:  # as Azure's deployments, and vLLM-Omni with another name than its own
        raise errors.unknown_parameter("model")
    fields["model"] = dialect.serves


def _take_values(fields: dict[str, object], dialect: Dialect) -> None:
    for name, words in dialect.values.items():
        said = fields.get(name)
        if said is None:
            continue
        if said not in words:
            raise errors.invalid_value(name, str(said)[:100], list(words))
        fields[name] = words[str(said)]


def _take_size(fields: dict[str, object], dialect: Dialect, *, multipart: bool) -> None:
    match dialect.size_as:
        case "W*H" if "size" in fields:
            if not re.fullmatch(r"[0-9]{1,5}\*[0-9]{1,5}", str(fields["size"])):
                raise errors.invalid_value("size", str(fields["size"])[:100], ["WIDTH*HEIGHT"])
            fields["size"] = str(fields["size"]).replace("*", "x")
        case "width_height":
            _refuse_size(fields)
            sides = [fields.pop(name, None) for name in ("width", "height")]
            if multipart:
                sides = [int(side) if isinstance(side, str) and side.isdecimal() else side for side in sides]
            if any(side is not None for side in sides):
                for name, side in zip(("width", "height"), sides, strict=True):
                    if type(side) is not int:
                        raise errors.invalid_type(name, "an integer", json_type(side))
                fields["size"] = f"{sides[0]}x{sides[1]}"
        case "aspect_ratio":
            _refuse_size(fields)
            ratio = fields.pop("aspect_ratio", "1:1")
            if ratio not in SIZES:
                raise errors.invalid_value("aspect_ratio", str(ratio)[:100], list(SIZES))
            fields["size"] = SIZES[str(ratio)]


def _refuse_size(fields: dict[str, object]) -> None:
    if "size" in fields:
        raise errors.unknown_parameter("size")


def _take_files(form: Form, words: Uploads) -> Form:
    if words.encoding == "multipart":
        several = sum(part.field in {words.image, words.images} for part in form.files) > 1
        return replace(
            form, files=tuple(replace(part, field=_field(part, words, several=several)) for part in form.files)
        )
    fields = dict(form.fields)
    images: list[object] = []
    single = fields.pop(words.image, None) if words.image not in {None, words.images} else None
    if single is not None:
        images = [single]
    elif words.images in fields:
        several_images = fields.pop(words.images)
        if not isinstance(several_images, list):
            raise errors.invalid_type(words.images, "an array", json_type(several_images))
        images = several_images
    mask = fields.pop(words.mask, None)
    fields["images"] = [_reference(words, words.images, image) for image in images]
    if mask is not None:
        fields["mask"] = _reference(words, words.mask, mask)
    return replace(form, fields=fields)


def _field(part: FilePart, words: Uploads, *, several: bool) -> str:
    if part.field == words.mask:
        return "mask"
    if part.field != (words.images if several or words.image is None else words.image):
        raise errors.unknown_parameter(part.field[:200])
    return "image[]" if several else "image"


def _reference(words: Uploads, name: str, value: object) -> dict[str, object]:
    match words.reference:
        case "data_url" | "base64":
            if not isinstance(value, str):
                raise errors.invalid_type(name, "a string", json_type(value))
            plain = words.reference == "base64"
            if plain == value.startswith("data:"):
                raise errors.unsupported(f"Invalid '{name}': expected {words.reference}.", name)
            return {"image_url": f"data:image/png;base64,{value}" if plain else value}
        case key:
            if not isinstance(value, dict) or set(value) != {key}:
                raise errors.unsupported(f"Invalid '{name}': expected an object with '{key}'.", name)
            return {"image_url": value[key]}


def withheld(images: int, created: int) -> dict[str, object]:
    """Answer as xAI does where its policy withheld the pictures."""
    return {"created": created, "data": [{"respect_moderation": False} for _ in range(images)]}


def restate(answer: Answer, dialect: Dialect) -> Answer:
    """Say a success or a refusal as this server does."""
    if answer.content_type != errors.JSON_TYPE or len(answer.chunks) != 1:
        return answer
    plain = dialect.errors == "vendor" if answer.status >= 400 else dialect.pictures == "plain" and dialect.created
    if plain:
        return answer
    content = json.loads(answer.chunks[0])
    if answer.status < 400:
        return _with(answer, answer.status, _given(content, dialect))
    error = content["error"]
    if error["code"] not in VALIDATION:
        return _with(answer, answer.status, {"detail": error["message"]})
    place = {"type": "value_error", "loc": ["body", error["param"]], "msg": error["message"]}
    return _with(answer, 422, {"detail": [place]})


def _with(answer: Answer, status: int, content: dict[str, object]) -> Answer:
    return replace(answer, status=status, chunks=(json.dumps(content).encode(),))


def _given(content: dict[str, object], dialect: Dialect) -> dict[str, object]:
    if not dialect.created:
        content.pop("created", None)
    data = content.get("data")
    for item in data if isinstance(data, list) else ():
        if dialect.pictures == "data_url" and "b64_json" in item:
            item["b64_json"] = f"data:image/png;base64,{item['b64_json']}"
        if dialect.pictures == "relative_url" and "url" in item:
            item["url"] = "/" + item["url"].split("/", 3)[3]
    return content

"""Translate a request in the server's own dialect into OpenAI's form.

A request that does not follow the dialect is refused, as by the servers that have it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.request_body import MAX_JSON_BYTES, MAX_JSON_EDIT_BYTES
from pipeline.sandbox.rules.fields import WHOLE_NUMBER, json_type

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.dialect import Dialect, UploadFields
    from pipeline.sandbox.request_body import FilePart, RequestBody
    from pipeline.sandbox.rules.models import Operation
    from pipeline.sandbox.settings import SandboxSettings

MULTIPART: Final = "multipart/form-data"
ACCEPTED: Final[dict[Operation, tuple[str, ...]]] = {
    "generation": (errors.JSON_TYPE,),
    "edit": (MULTIPART, errors.JSON_TYPE),
    "variation": (MULTIPART,),
}
SIZES: Final = {"1:1": "1024x1024", "3:2": "1536x1024", "2:3": "1024x1536", "16:9": "1792x1024", "9:16": "1024x1792"}


def accepted_content_types(operation: Operation, dialect: Dialect) -> tuple[str, ...]:
    """Return the content types that the body of an operation may have."""
    if operation == "generation" or dialect.uploads is None:
        return ACCEPTED[operation]
    return (MULTIPART if dialect.uploads.encoding == "multipart" else errors.JSON_TYPE,)


def max_json_bytes(operation: Operation, dialect: Dialect) -> int:
    """Return the size limit of a JSON body; one that may hold images as data URLs is larger."""
    holds_images = operation != "generation" or _edits_by_generation(dialect)
    return MAX_JSON_EDIT_BYTES if holds_images else MAX_JSON_BYTES


def _edits_by_generation(dialect: Dialect) -> bool:
    return dialect.uploads is not None and dialect.paths["edit"] == dialect.paths["generation"]


def authenticate(request: web.Request, settings: SandboxSettings) -> None:
    """Accept any key except an empty one and one that begins with `bad-`. Raises ApiError."""
    key = request.headers.get(settings.dialect.auth_header, "").strip()
    if expected := settings.dialect.auth_scheme:
        scheme, _, key = key.partition(" ")
        key = key.strip() if scheme.lower() == expected.lower() else ""
    if key.startswith("bad-"):
        raise errors.incorrect_key(key)
    if not key and settings.require_key:
        raise errors.missing_key()


def check_query(request: web.Request, dialect: Dialect) -> None:
    """Refuse a URL without the query parameters that the dialect requires. Raises ApiError."""
    for name, value in dialect.query.items():
        if request.query.get(name) != value:
            raise errors.ApiError("Resource not found", status=404, code="404", kind="not_found")  # as Azure


def translate_request(operation: Operation, body: RequestBody, dialect: Dialect) -> tuple[Operation, RequestBody]:
    """Return the operation and the body in OpenAI's form. Raises ApiError."""
    fields = dict(body.fields)
    _check_required(fields, dialect)
    _set_model(fields, dialect)
    _translate_values(fields, dialect)
    _translate_size(fields, dialect, multipart=body.encoding == "multipart")
    body = replace(body, fields=fields)
    if dialect.uploads is None:
        return operation, body
    if operation == "generation" and _edits_by_generation(dialect):
        operation = "edit" if fields.keys() & dialect.uploads.fields else "generation"
    if operation == "generation":
        return operation, body
    return operation, _translate_files(body, dialect.uploads)


def _check_required(fields: dict[str, object], dialect: Dialect) -> None:
    for name, value in dialect.body.items():
        if str(fields.get(name)) != str(value):  # multipart values are strings
            raise errors.invalid_value(name, str(fields.get(name))[:100], [str(value)])
        if name != "response_format":  # a parameter of OpenAI's, which the rules check
            del fields[name]


def _set_model(fields: dict[str, object], dialect: Dialect) -> None:
    if dialect.serves is None:
        return
    if "model" in fields:  # as Azure's deployments, and vLLM-Omni with another name than its own
        raise errors.unknown_parameter("model")
    fields["model"] = dialect.serves


def _translate_values(fields: dict[str, object], dialect: Dialect) -> None:
    for name, known in dialect.values.items():
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or value not in known:
            raise errors.invalid_value(name, str(value)[:100], list(known))
        fields[name] = known[value]


def _translate_size(fields: dict[str, object], dialect: Dialect, *, multipart: bool) -> None:
    match dialect.size_as:
        case "W*H" if "size" in fields:
            if not re.fullmatch(r"[0-9]{1,5}\*[0-9]{1,5}", str(fields["size"])):
                raise errors.invalid_value("size", str(fields["size"])[:100], ["WIDTH*HEIGHT"])
            fields["size"] = str(fields["size"]).replace("*", "x")
        case "width_height":
            _refuse_size(fields)
            sides = [fields.pop(name, None) for name in ("width", "height")]
            if multipart:
                sides = [
                    int(side) if isinstance(side, str) and WHOLE_NUMBER.fullmatch(side) else side for side in sides
                ]
            if any(side is not None for side in sides):
                for name, side in zip(("width", "height"), sides, strict=True):
                    if type(side) is not int:
                        raise errors.invalid_type(name, "an integer", json_type(side))
                fields["size"] = f"{sides[0]}x{sides[1]}"
        case "aspect_ratio":
            _refuse_size(fields)
            ratio = fields.pop("aspect_ratio", "1:1")
            if not isinstance(ratio, str) or ratio not in SIZES:
                raise errors.invalid_value("aspect_ratio", str(ratio)[:100], list(SIZES))
            fields["size"] = SIZES[ratio]


def _refuse_size(fields: dict[str, object]) -> None:
    if "size" in fields:
        raise errors.unknown_parameter("size")


def _translate_files(body: RequestBody, names: UploadFields) -> RequestBody:
    if names.encoding == "multipart":
        several = sum(part.field in {names.image, names.images} for part in body.files) > 1
        return replace(
            body, files=tuple(replace(part, field=_field(part, names, several=several)) for part in body.files)
        )
    fields = dict(body.fields)
    images: list[object] = []
    single = fields.pop(names.image, None) if names.image not in {None, names.images} else None
    if single is not None:
        images = [single]
    elif names.images in fields:
        several_images = fields.pop(names.images)
        if not isinstance(several_images, list):
            raise errors.invalid_type(names.images, "an array", json_type(several_images))
        images = several_images
    mask = fields.pop(names.mask, None)
    fields["images"] = [_reference(names, names.images, image) for image in images]
    if mask is not None:
        fields["mask"] = _reference(names, names.mask, mask)
    return replace(body, fields=fields)


def _field(part: FilePart, names: UploadFields, *, several: bool) -> str:
    if part.field == names.mask:
        return "mask"
    if part.field != (names.images if several or names.image is None else names.image):
        raise errors.unknown_parameter(part.field[:200])
    return "image[]" if several else "image"


def _reference(names: UploadFields, name: str, value: object) -> dict[str, object]:
    match names.reference:
        case "data_url" | "base64":
            if not isinstance(value, str):
                raise errors.invalid_type(name, "a string", json_type(value))
            plain = names.reference == "base64"
            if plain == value.startswith("data:"):
                raise errors.unsupported(f"Invalid '{name}': expected {names.reference}.", name)
            return {"image_url": f"data:image/png;base64,{value}" if plain else value}
        case key:
            if not isinstance(value, dict) or set(value) != {key}:
                raise errors.unsupported(f"Invalid '{name}': expected an object with '{key}'.", name)
            return {"image_url": value[key]}

"""Validate the fields of a request against the model's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.rules.fields import json_type
from pipeline.sandbox.rules.models import (
    DEFAULT_GPT_MODEL,
    DEFAULT_MODEL,
    GPT_ONLY,
    MODELS,
    Family,
    Operation,
    is_available,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import date

    from pipeline.sandbox.request_body import RequestBody

FILE_FIELDS: Final[dict[Operation, frozenset[str]]] = {
    "generation": frozenset(),
    "edit": frozenset({"image", "image[]", "mask", "markup"}),
    "variation": frozenset({"image"}),
}
REFERENCE_FIELDS: Final = frozenset({"images", "mask"})
"""The image fields of a JSON edit (EditImageBodyJsonParam)."""
NEVER_NULL: Final = frozenset({"prompt", "user"})
"""Every other parameter is nullable in the description; null means the default."""
FORBIDDEN_WORD: Final = "forbidden"
COMPRESSION: Final = "output_compression"
DEFAULT_FRAMES: Final = 9
DEFAULT_FRAME_MS: Final = 200
DEFAULT_SVG_MODEL: Final = "svg-author"  # the default is not published
DEFAULT_SVG_EFFORT: Final = "medium"


@dataclass(frozen=True, slots=True)
class ImageCall:
    """A valid call; `size` and `quality` may still be `auto`."""

    operation: Operation
    model: str
    family: Family
    prompt: str
    n: int
    size: str
    quality: str
    response_format: str
    output_format: str
    output_compression: int
    transparent: bool
    stream: bool
    partial_images: int
    frame_count: int
    frame_duration_ms: int
    svg_model: str
    svg_effort: str
    safety_identifier: str


def images_asked(body: RequestBody) -> int:
    """Return the images that the rate limit counts for a call: `n`, or 1 if `n` is missing or invalid."""
    n = body.fields.get("n")
    if body.encoding == "multipart" and isinstance(n, str) and n.isascii() and n.isdigit() and len(n) < 3:
        n = int(n)
    return n if type(n) is int and 1 <= n <= 10 else 1


def validate_call(
    operation: Operation, body: RequestBody, *, today: date | None = None, verified: bool = True
) -> ImageCall:
    """Check every field against the model's table. Raises ApiError for the first invalid one."""
    model = _model(operation, body, today)
    if MODELS[model].is_gpt and not verified:
        raise errors.not_verified(model)
    values = _parameters(operation, model, body)
    if "prompt" not in values and operation != "variation":
        raise errors.missing_parameter("prompt")
    call = _image_call(operation, model, values)
    _refuse_contradictions(call, values)
    return call


def _image_call(operation: Operation, model: str, values: Mapping[str, Any]) -> ImageCall:
    family = MODELS[model]
    return ImageCall(
        operation=operation,
        model=model,
        family=family,
        prompt=str(values.get("prompt", "")),
        n=int(values.get("n", 1)),
        size=str(values.get("size", "auto" if family.is_gpt else "1024x1024")),
        quality=str(values.get("quality", "auto" if family.is_gpt else "standard")),
        response_format=str(values.get("response_format", "b64_json" if family.is_gpt else "url")),
        output_format=str(values.get("output_format", "png")),
        output_compression=int(values.get("output_compression", 100)),
        transparent=values.get("background") == "transparent",
        stream=bool(values.get("stream", False)),
        partial_images=int(values.get("partial_images", 0)),
        frame_count=int(values.get("frame_count", DEFAULT_FRAMES)),
        frame_duration_ms=int(values.get("frame_duration_ms", DEFAULT_FRAME_MS)),
        svg_model=str(values.get("svg", {}).get("model", DEFAULT_SVG_MODEL)),
        svg_effort=str(values.get("svg", {}).get("reasoning", {}).get("effort", DEFAULT_SVG_EFFORT)),
        safety_identifier=str(values.get("safety_identifier") or values.get("user", "")),
    )


def moderate(call: ImageCall) -> None:
    """Refuse a prompt with the forbidden word, in the form of the model's family. Raises ApiError."""
    if FORBIDDEN_WORD in call.prompt.casefold():
        raise errors.moderation_blocked() if call.family.is_gpt else errors.content_policy_violation()


def _model(operation: Operation, body: RequestBody, today: date | None) -> str:
    model = body.fields.get("model")
    if model is None:
        # The description makes gpt-image-1.5 the default of every edit; calls without a model as in the guide win.
        edit = operation == "edit" and (body.encoding == "json" or not is_available(DEFAULT_MODEL, today))
        gpt = edit or body.fields.keys() & GPT_ONLY
        model = DEFAULT_GPT_MODEL if gpt and operation != "variation" else DEFAULT_MODEL
    if not isinstance(model, str):
        raise errors.invalid_type("model", "a string", json_type(model))
    if model not in MODELS:
        raise errors.model_not_found(model[:200])
    if not is_available(model, today):
        raise errors.model_shut_down(model)
    serving = [
        name for name, family in MODELS.items() if _serves(family, operation, body) and is_available(name, today)
    ]
    if model not in serving:
        raise errors.invalid_value("model", model, serving)
    return model


def _serves(family: Family, operation: Operation, body: RequestBody) -> bool:
    """Whether these models support the operation in this encoding; JSON edits are for GPT Image models only."""
    json_edit = operation == "edit" and body.encoding == "json"
    return operation in family.parameters and (family.is_gpt or not json_edit)


def _parameters(operation: Operation, model: str, body: RequestBody) -> dict[str, Any]:
    from_text = body.encoding == "multipart"
    table = MODELS[model].parameters[operation]
    values: dict[str, Any] = {}
    for name, value in body.fields.items():
        if name == "model" or _is_image_field(operation, name, body):
            continue
        if name == "input_fidelity" and operation == "edit" and MODELS[model].is_gpt and name not in table:
            sentence = f"The model '{model}' does not support the 'input_fidelity' parameter."
            raise errors.unsupported(sentence, name, "invalid_input_fidelity_model")
        if name not in table or (name == "moderation" and operation == "edit" and from_text):
            # CreateImageEditRequest has no `moderation`, EditImageBodyJsonParam has.
            raise errors.unknown_parameter(name[:200])
        if value is not None or name in NEVER_NULL:
            values[name] = table[name].parse(name, value, from_text=from_text)
    _refuse_stray_files(operation, MODELS[model], body)
    return values


def _is_image_field(operation: Operation, name: str, body: RequestBody) -> bool:
    if body.encoding == "json":
        return operation == "edit" and name in REFERENCE_FIELDS
    if name in FILE_FIELDS[operation]:
        raise errors.invalid_type(name, "one of an array of files or file", "a string")
    return False


def _refuse_stray_files(operation: Operation, family: Family, body: RequestBody) -> None:
    for part in body.files:
        if part.field in FILE_FIELDS[operation] and (part.field != "markup" or family.takes_markup):
            continue
        if part.field == "model" or part.field in family.parameters[operation]:
            raise errors.invalid_type(part.field, "a string", "a file")
        raise errors.unknown_parameter(part.field[:200])


def _refuse_contradictions(call: ImageCall, given: Collection[str]) -> None:
    """Refuse values that are valid alone and invalid together."""
    kind = call.output_format
    if call.transparent and kind not in {"png", "webp"}:
        message = f"Transparent background is not supported for {kind.upper()} output format."
        raise errors.unsupported(message, "background")
    if kind not in {"jpeg", "webp"} and (call.output_compression != 100 or (kind == "svg" and COMPRESSION in given)):
        message = f"Compression less than 100 is not supported for {kind.upper()} output format."
        raise errors.unsupported(message, COMPRESSION)
    for name, only in (("frame_count", "gif"), ("frame_duration_ms", "gif"), ("svg", "svg")):
        if name in given and kind != only:
            raise errors.unsupported(f"'{name}' is only supported for {only.upper()} output format.", name)
    if kind in {"gif", "svg"}:
        _refuse_streams(call)
    if kind == "svg" and call.n != 1:
        raise errors.unsupported("SVG output format requires 'n' to be 1.", "n")


def _refuse_streams(call: ImageCall) -> None:
    for name, value in (("stream", call.stream), ("partial_images", call.partial_images)):
        if value:
            message = f"'{name}' is not supported for {call.output_format.upper()} output format."
            raise errors.unsupported(message, name)

"""Build the JSON or the event stream of a response.

Pure functions; those that draw and encode images run in a thread.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pipeline.sandbox.api_errors import JSON_TYPE, ApiError
from pipeline.sandbox.drawing.image_spec import ImageSpec, caption_of, seed_of
from pipeline.sandbox.drawing.images import draw, partial_image
from pipeline.sandbox.rules.usage import TOKENS_PER_PARTIAL, output_tokens, svg_usage, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.sandbox.rules.image_files import Upload
    from pipeline.sandbox.rules.uploads import Uploads
    from pipeline.sandbox.rules.validate import ImageCall

EVENT_STREAM: Final = "text/event-stream"
AUTO_QUALITY: Final = "medium"


@dataclass(frozen=True, slots=True)
class Response:
    """One response: each chunk is one write; several chunks without a pause are sent without a length."""

    status: int
    content_type: str
    chunks: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0  # seconds between two chunks


def error_response(error: ApiError) -> Response:
    """Return the error envelope."""
    return Response(error.status, JSON_TYPE, (error.body(),), error.headers)


def image_specs(call: ImageCall, uploads: Uploads | None) -> tuple[ImageSpec, ...]:
    """Return the specs of a call's images, which share everything but the seed."""
    images = uploads.images if uploads else ()
    mask = uploads.mask if uploads else None
    width, height = map(int, _size(call, images).split("x"))
    sources = [image.sha256 for image in images]
    return tuple(
        ImageSpec(
            seed=seed_of(call.operation, call.model, call.prompt, sources, number),
            caption=caption_of(call.prompt),
            width=width,
            height=height,
            format=call.output_format,
            compression=call.output_compression,
            transparent=call.transparent,
            source=sources[0] if sources else None,
            mask=mask.sha256 if mask else None,
            keeps_source=call.operation == "edit",
            frames=call.frame_count if call.output_format == "gif" else 1,
            frame_ms=call.frame_duration_ms if call.output_format == "gif" else 0,
        )
        for number in range(call.n)
    )


def url_response(call: ImageCall, urls: Sequence[str], created: int) -> Response:
    """Return image URLs, as the dall-e family does by default."""
    return json_response({"created": created, "data": [{"url": url, **_revised(call)} for url in urls]})


def base64_response(call: ImageCall, specs: Sequence[ImageSpec], uploads: Uploads | None, created: int) -> Response:
    """Draw the images and return them as base64, in one JSON document or in a stream of events."""
    if not specs:
        return empty_response(created)
    files = {upload.sha256: upload.content for upload in uploads.all} if uploads else {}
    contents = [draw(spec, files.__getitem__) for spec in specs]
    if call.stream:
        return _stream(call, specs, contents, uploads, created)
    data = [{"b64_json": _base64(content), **_revised(call)} for content in contents]
    document: dict[str, object] = {"created": created, "data": data}
    if call.family.is_gpt:
        document |= {**_echo(call, specs[0]), **_identifier(call), "usage": usage_of(call, specs, uploads)}
    if call.output_format == "svg":
        document["svg_usage"] = svg_usage(call.svg_model, call.svg_effort, call.prompt, len(contents[0]))
    return json_response(document)


def empty_response(created: int) -> Response:
    """Return a success without an image, as LiteLLM once did (BerriAI/litellm #10811)."""
    return json_response({"created": created, "data": []})


def _stream(
    call: ImageCall, specs: Sequence[ImageSpec], contents: Sequence[bytes], uploads: Uploads | None, created: int
) -> Response:
    prefix = "image_edit" if call.operation == "edit" else "image_generation"
    events: list[bytes] = []
    for spec, content in zip(specs, contents, strict=True):
        shared = {"created_at": created, **_echo(call, spec)}
        for index in range(call.partial_images):
            partial = {"b64_json": _base64(partial_image(content, spec, index)), "partial_image_index": index}
            events.append(_event(f"{prefix}.partial_image", {**partial, **shared}))
        completed = {"b64_json": _base64(content), **shared, **_identifier(call)}
        completed["usage"] = usage_of(call, [spec], uploads)
        events.append(_event(f"{prefix}.completed", completed))
    return Response(200, EVENT_STREAM, tuple(events))


def _event(name: str, content: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **content})}\n\n".encode()


def json_response(content: dict[str, object]) -> Response:
    """Return a success with this document."""
    return Response(200, JSON_TYPE, (json.dumps(content).encode(),))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _revised(call: ImageCall) -> dict[str, str]:
    """Return the rewritten prompt of dall-e-3, the only model that reports one."""
    if call.model != "dall-e-3":
        return {}
    return {"revised_prompt": f"A finely composed picture with flat shapes and calm colours: {call.prompt}"}


def _echo(call: ImageCall, spec: ImageSpec) -> dict[str, object]:
    return {
        "background": "transparent" if call.transparent else "opaque",
        "output_format": call.output_format,
        "quality": _quality(call),
        "size": f"{spec.width}x{spec.height}",
    }


def _identifier(call: ImageCall) -> dict[str, object]:
    """Return the effective safety identifier; partial images carry none."""
    return {"safety_identifier": call.safety_identifier} if call.safety_identifier else {}


def usage_of(call: ImageCall, specs: Sequence[ImageSpec], uploads: Uploads | None) -> dict[str, object]:
    """Return the `usage` of a GPT Image call that made these images."""
    tokens = sum(
        output_tokens(call.family.generation, _quality(call), spec.width, spec.height)
        + TOKENS_PER_PARTIAL * call.partial_images * call.stream
        for spec in specs
    )
    sizes = [(upload.width, upload.height) for upload in uploads.all] if uploads else []
    return usage(call.prompt, sizes, tokens)


def _quality(call: ImageCall) -> str:
    return AUTO_QUALITY if call.quality == "auto" else call.quality


def _size(call: ImageCall, images: Sequence[Upload]) -> str:
    """Return the size; `auto` is a square, or for an edit the standard size nearest to its image's shape."""
    if call.size != "auto":
        return call.size
    shape = math.log(images[0].width / images[0].height) if images else 0.0
    if abs(shape) < math.log(1.5) / 2:
        return "1024x1024"
    return "1536x1024" if shape > 0 else "1024x1536"

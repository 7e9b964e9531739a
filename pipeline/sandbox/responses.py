"""Sketches become the JSON or the event stream of a success.

Pure functions of what they are given: they draw and encode, so they run in a thread.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pipeline.sandbox.drawing.images import Sketch, caption_of, draw, seed_of, unfinished
from pipeline.sandbox.rules.errors import JSON_TYPE, ApiError
from pipeline.sandbox.rules.usage import TOKENS_PER_PARTIAL, output_tokens, svg_usage, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.sandbox.rules.uploads import Upload, Uploads
    from pipeline.sandbox.rules.validate import ImageCall

EVENT_STREAM: Final = "text/event-stream"
AUTO_QUALITY: Final = "medium"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes out: each chunk is one write, and more than one chunk is sent without a length."""

    status: int
    content_type: str
    chunks: tuple[bytes, ...]
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0  # seconds between two chunks


def refused(refusal: ApiError) -> Answer:
    """Answer with the error envelope."""
    return Answer(refusal.status, JSON_TYPE, (refusal.body(),), refusal.headers)


def sketches(call: ImageCall, uploads: Uploads | None) -> tuple[Sketch, ...]:
    """Plan the pictures of a call: alike in subject, each another composition."""
    images = uploads.images if uploads else ()
    mask = uploads.mask if uploads else None
    width, height = map(int, _size(call, images).split("x"))
    sources = [image.sha256 for image in images]
    return tuple(
        Sketch(
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


def answer_with_urls(call: ImageCall, urls: Sequence[str], created: int) -> Answer:
    """Answer as the dall-e family does by default."""
    return answer_with({"created": created, "data": [{"url": url, **_revised(call)} for url in urls]})


def answer_with_bytes(call: ImageCall, plan: Sequence[Sketch], uploads: Uploads | None, created: int) -> Answer:
    """Draw the pictures and answer with their base64, as one JSON document or as a stream of events."""
    files = {upload.sha256: upload.content for upload in uploads.all} if uploads else {}
    pictures = [draw(sketch, files.__getitem__) for sketch in plan]
    if call.stream:
        return _stream(call, plan, pictures, uploads, created)
    data = [{"b64_json": _base64(picture), **_revised(call)} for picture in pictures]
    answer: dict[str, object] = {"created": created, "data": data}
    if call.family.is_gpt:
        answer |= {**_echo(call, plan[0]), "usage": _usage(call, plan, uploads)}
    if call.output_format == "svg":
        answer["svg_usage"] = svg_usage(call.svg_model, call.svg_effort, call.prompt, len(pictures[0]))
    return answer_with(answer)


def answer_with_nothing(created: int) -> Answer:
    """Answer 200 without a picture, as LiteLLM once did (BerriAI/litellm #10811)."""
    return answer_with({"created": created, "data": []})


def _stream(
    call: ImageCall, plan: Sequence[Sketch], pictures: Sequence[bytes], uploads: Uploads | None, created: int
) -> Answer:
    prefix = "image_edit" if call.operation == "edit" else "image_generation"
    events: list[bytes] = []
    for sketch, picture in zip(plan, pictures, strict=True):
        shared = {"created_at": created, **_echo(call, sketch)}
        for index in range(call.partial_images):
            partial = {"b64_json": _base64(unfinished(picture, sketch, index)), "partial_image_index": index}
            events.append(_event(f"{prefix}.partial_image", {**partial, **shared}))
        whole = {"b64_json": _base64(picture), **shared, "usage": _usage(call, [sketch], uploads)}
        events.append(_event(f"{prefix}.completed", whole))
    return Answer(200, EVENT_STREAM, tuple(events))


def _event(name: str, content: dict[str, object]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **content})}\n\n".encode()


def answer_with(content: dict[str, object]) -> Answer:
    """Answer 200 with this document."""
    return Answer(200, JSON_TYPE, (json.dumps(content).encode(),))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _revised(call: ImageCall) -> dict[str, str]:
    """dall-e-3 rewrites the prompt and says so; nobody else does."""
    if call.model != "dall-e-3":
        return {}
    return {"revised_prompt": f"A finely composed picture with flat shapes and calm colours: {call.prompt}"}


def _echo(call: ImageCall, sketch: Sketch) -> dict[str, object]:
    return {
        "background": "transparent" if call.transparent else "opaque",
        "output_format": call.output_format,
        "quality": _quality(call),
        "size": f"{sketch.width}x{sketch.height}",
        **({"safety_identifier": call.safety_identifier} if call.safety_identifier else {}),
    }


def _usage(call: ImageCall, plan: Sequence[Sketch], uploads: Uploads | None) -> dict[str, object]:
    tokens = sum(
        output_tokens(call.family.generation, _quality(call), sketch.width, sketch.height)
        + TOKENS_PER_PARTIAL * call.partial_images * call.stream
        for sketch in plan
    )
    sizes = [(upload.width, upload.height) for upload in uploads.all] if uploads else []
    return usage(call.prompt, sizes, tokens)


def _quality(call: ImageCall) -> str:
    return AUTO_QUALITY if call.quality == "auto" else call.quality


def _size(call: ImageCall, images: Sequence[Upload]) -> str:
    """Choose for `auto`: a square, or for an edit the standard size nearest to its picture's shape."""
    if call.size != "auto":
        return call.size
    slant = math.log(images[0].width / images[0].height) if images else 0.0
    if abs(slant) < math.log(1.5) / 2:
        return "1024x1024"
    return "1536x1024" if slant > 0 else "1024x1536"

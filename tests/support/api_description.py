"""The Images API as an OpenAPI document: parameters, types and shapes of responses, written from its reference.

It describes no error responses, and no more sizes and models than the reference lists. The shapes are strict where the
reference is: what is required, which words a field may have, and one event after another in a stream.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

GPT_MODELS = ("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2", "gpt-image-2-2026-04-21")
SQUARE, LANDSCAPE, PORTRAIT = "1024x1024", "1536x1024", "1024x1536"
FORMATS = ("png", "jpeg", "webp")
STREAM = "text/event-stream"
FORM = "multipart/form-data"
TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
FILE: Schema = {"type": "string", "format": "binary"}


def one_of(*words: str) -> Schema:
    return {"type": "string", "enum": list(words)}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def open_choice(*words: str) -> Schema:
    """Return the schema of a field that takes any text, and names these."""
    return {"anyOf": [TEXT, one_of(*words), {"type": "null"}]}


def mapping(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


def named(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


COUNT = or_null({"type": "integer", "minimum": 1, "maximum": 10})
BACKGROUND = or_null(one_of("transparent", "opaque", "auto"))
STREAMED = {
    "stream": or_null({"type": "boolean"}),
    "partial_images": or_null({"type": "integer", "minimum": 0, "maximum": 3}),
}
DRAWN = {"output_format": or_null(one_of(*FORMATS)), "output_compression": or_null(INTEGER), "background": BACKGROUND}
SENT = {"response_format": or_null(one_of("url", "b64_json")), "user": TEXT}
REFERENCE: Schema = {
    "type": "object",
    "properties": {"image_url": {"type": "string", "format": "uri"}, "file_id": TEXT},
    "oneOf": [{"required": ["image_url"]}, {"required": ["file_id"]}],
    "additionalProperties": False,
}
REQUESTS: dict[str, Schema] = {
    "Generation": mapping(
        ("prompt",),
        prompt=TEXT,
        model=open_choice("dall-e-2", "dall-e-3", *GPT_MODELS),
        n=COUNT,
        quality=or_null(one_of("standard", "hd", "low", "medium", "high", "auto")),
        size=open_choice("auto", SQUARE, LANDSCAPE, PORTRAIT, "256x256", "512x512", "1792x1024", "1024x1792"),
        moderation=or_null(one_of("low", "auto")),
        style=or_null(one_of("vivid", "natural")),
        **SENT,
        **DRAWN,
        **STREAMED,
    ),
    "Edit": mapping(
        ("prompt", "image"),
        image=FILE,
        prompt=TEXT,
        mask=FILE,
        model=open_choice("dall-e-2", "chatgpt-image-latest", *GPT_MODELS),
        n=COUNT,
        size=open_choice("auto", SQUARE, LANDSCAPE, PORTRAIT, "256x256", "512x512"),
        input_fidelity=or_null(one_of("high", "low")),
        quality=or_null(one_of("standard", "low", "medium", "high", "auto")),
        **SENT,
        **DRAWN,
        **STREAMED,
    ),
    "EditInJson": mapping(
        ("images", "prompt"),
        model=open_choice("chatgpt-image-latest", *GPT_MODELS),
        images={"type": "array", "minItems": 1, "maxItems": 16, "items": REFERENCE},
        mask=REFERENCE,
        prompt={"type": "string", "minLength": 1, "maxLength": 32_000},
        n=COUNT,
        quality=or_null(one_of("low", "medium", "high", "auto")),
        input_fidelity=or_null(one_of("high", "low")),
        size=or_null(one_of("auto", SQUARE, LANDSCAPE, PORTRAIT)),
        moderation=or_null(one_of("low", "auto")),
        user=TEXT,
        **{**DRAWN, "output_compression": or_null({"type": "integer", "minimum": 0, "maximum": 100})},
        **STREAMED,
    ),
    "Variation": mapping(
        ("image",),
        image=FILE,
        model=open_choice("dall-e-2"),
        n=COUNT,
        size=or_null(one_of("256x256", "512x512", SQUARE)),
        **SENT,
    ),
}
TOKENS = mapping(("text_tokens", "image_tokens"), text_tokens=INTEGER, image_tokens=INTEGER)
USAGE = mapping(
    ("total_tokens", "input_tokens", "output_tokens", "input_tokens_details"),
    total_tokens=INTEGER,
    input_tokens=INTEGER,
    output_tokens=INTEGER,
    input_tokens_details=TOKENS,
    output_tokens_details=TOKENS,
)
IMAGES = mapping(
    ("created",),
    created=INTEGER,
    data={
        "type": "array",
        "items": mapping((), b64_json=TEXT, url={"type": "string", "format": "uri"}, revised_prompt=TEXT),
    },
    background=one_of("transparent", "opaque"),
    output_format=one_of(*FORMATS),
    size=one_of(SQUARE, LANDSCAPE, PORTRAIT),
    quality=one_of("low", "medium", "high"),
    usage=USAGE,
)


def events(prefix: str) -> Schema:
    """Return the schema of what a stream sends: partial images, then each that is completed."""
    always = {
        "b64_json": TEXT,
        "created_at": INTEGER,
        "size": one_of(SQUARE, LANDSCAPE, PORTRAIT, "auto"),
        "quality": one_of("low", "medium", "high", "auto"),
        "background": one_of("transparent", "opaque", "auto"),
        "output_format": one_of(*FORMATS),
    }
    partial = {"type": one_of(f"{prefix}.partial_image"), **always, "partial_image_index": INTEGER}
    completed = {"type": one_of(f"{prefix}.completed"), **always, "usage": USAGE}
    return {"anyOf": [mapping(tuple(event), **event) for event in (partial, completed)]}


def operation(name: str, requests: dict[str, str], stream: str | None) -> Schema:
    content = {"application/json": {"schema": named("Images")}}
    if stream is not None:
        content[STREAM] = {"schema": named(stream)}
    body: Schema = {kind: {"schema": named(schema)} for kind, schema in requests.items()}
    if FORM in body:  # the service wants to know what a file calls itself, which the schema leaves open
        body[FORM]["encoding"] = {part: {"contentType": "image/png"} for part in ("image", "mask")}
    return {
        "post": {
            "operationId": name,
            "requestBody": {"required": True, "content": body},
            "responses": {"200": {"description": "images", "content": content}},
        }
    }


DESCRIPTION: Schema = {
    "openapi": "3.1.0",
    "info": {"title": "Images API", "version": "2"},
    "paths": {
        "/images/generations": operation("createImage", {"application/json": "Generation"}, "GenerationEvents"),
        "/images/edits": operation("createImageEdit", {FORM: "Edit", "application/json": "EditInJson"}, "EditEvents"),
        "/images/variations": operation("createImageVariation", {FORM: "Variation"}, None),
    },
    "components": {
        "schemas": {
            **REQUESTS,
            "Images": IMAGES,
            "GenerationEvents": events("image_generation"),
            "EditEvents": events("image_edit"),
        }
    },
}

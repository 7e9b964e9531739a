"""The Images, Files and Batch APIs as an OpenAPI document: parameters and responses, written from their reference.

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


NUMBER_OR_NULL = or_null(INTEGER)
EXPIRES_AFTER = mapping(
    ("anchor", "seconds"),
    anchor=one_of("created_at"),
    seconds={"type": "integer", "minimum": 3600, "maximum": 2_592_000},
)
STATUSES = ("validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled")
MOMENTS = tuple(f"{name}_at" for name in (*STATUSES[1:], "expires"))
FILE_OBJECT = mapping(
    ("id", "object", "bytes", "created_at", "filename", "purpose", "status"),
    id=TEXT,
    object=one_of("file"),
    bytes=INTEGER,
    created_at=INTEGER,
    expires_at=NUMBER_OR_NULL,
    filename=TEXT,
    purpose=one_of(
        *("assistants", "assistants_output", "batch", "batch_output", "fine-tune", "fine-tune-results"),
        *("vision", "user_data", "evals"),
    ),
    status=one_of("uploaded", "processed", "error"),
    status_details=or_null(TEXT),
)
BATCH_ERROR = mapping((), code=TEXT, message=TEXT, param=or_null(TEXT), line=NUMBER_OR_NULL)
BATCH_OBJECT = mapping(
    ("id", "object", "endpoint", "input_file_id", "completion_window", "status", "created_at"),
    id=TEXT,
    object=one_of("batch"),
    endpoint=TEXT,
    model=or_null(TEXT),
    errors=or_null(mapping((), object=one_of("list"), data={"type": "array", "items": BATCH_ERROR})),
    input_file_id=TEXT,
    completion_window=TEXT,
    status=one_of(*STATUSES),
    output_file_id=or_null(TEXT),
    error_file_id=or_null(TEXT),
    created_at=INTEGER,
    **dict.fromkeys(MOMENTS, NUMBER_OR_NULL),
    request_counts=mapping(("total", "completed", "failed"), total=INTEGER, completed=INTEGER, failed=INTEGER),
    metadata=or_null({"type": "object", "additionalProperties": TEXT}),
)
UPLOAD = mapping(
    ("file", "purpose"),
    file=FILE,
    purpose=one_of("assistants", "batch", "fine-tune", "vision", "user_data", "evals"),
    expires_after=EXPIRES_AFTER,
)
BATCH = mapping(
    ("input_file_id", "endpoint", "completion_window"),
    input_file_id=TEXT,
    endpoint=one_of("/v1/responses", "/v1/images/generations", "/v1/images/edits", "/v1/videos"),
    completion_window=one_of("24h"),
    metadata=or_null(
        {"type": "object", "maxProperties": 16, "additionalProperties": {"type": "string", "maxLength": 512}}
    ),
    output_expires_after=EXPIRES_AFTER,
)


def page(item: str) -> Schema:
    """Return the schema of one page of a list."""
    data = {"type": "array", "items": named(item)}
    ends = {"first_id": or_null(TEXT), "last_id": or_null(TEXT)}
    return mapping(
        ("object", "data", "has_more"), object=one_of("list"), data=data, has_more={"type": "boolean"}, **ends
    )


def answering(name: str, schema: str, **more: Any) -> Schema:
    """Return an operation that answers with one document."""
    content = {"application/json": {"schema": named(schema)}}
    return {"operationId": name, "responses": {"200": {"description": name, "content": content}}, **more}


def sent(kind: str, schema: str) -> Schema:
    return {"required": True, "content": {kind: {"schema": named(schema)}}}


def asked(name: str, schema: Schema) -> Schema:
    """Return a parameter of the query."""
    return {"name": name, "in": "query", "schema": schema}


FILES_AND_BATCHES: Schema = {
    "/files": {
        "post": answering("createFile", "File", requestBody=sent(FORM, "Upload")),
        "get": answering(
            "listFiles",
            "FilePage",
            parameters=[
                asked("limit", {"type": "integer", "minimum": 1, "maximum": 10_000}),
                asked("order", one_of("asc", "desc")),
                asked("purpose", TEXT),
            ],
        ),
    },
    "/batches": {
        "post": answering("createBatch", "Batch", requestBody=sent("application/json", "NewBatch")),
        "get": answering(
            "listBatches", "BatchPage", parameters=[asked("limit", {"type": "integer", "minimum": 1, "maximum": 100})]
        ),
    },
}


DESCRIPTION: Schema = {
    "openapi": "3.1.0",
    "info": {"title": "Images API", "version": "2"},
    "paths": {
        "/images/generations": operation("createImage", {"application/json": "Generation"}, "GenerationEvents"),
        "/images/edits": operation("createImageEdit", {FORM: "Edit", "application/json": "EditInJson"}, "EditEvents"),
        "/images/variations": operation("createImageVariation", {FORM: "Variation"}, None),
        **FILES_AND_BATCHES,
    },
    "components": {
        "schemas": {
            **REQUESTS,
            "Images": IMAGES,
            "GenerationEvents": events("image_generation"),
            "EditEvents": events("image_edit"),
            "Upload": UPLOAD,
            "File": FILE_OBJECT,
            "FilePage": page("File"),
            "NewBatch": BATCH,
            "Batch": BATCH_OBJECT,
            "BatchPage": page("Batch"),
        }
    },
}

"""Request bodies: an API call as JSON or multipart form, in the dialect of its server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from dataclasses import astuple, dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.payload import get_payload

from pipeline.errors import Invalid
from pipeline.file_descriptors import when_free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.config.dialect import Dialect, Uploads

ASPECT_RATIOS: Final = ((1, 1), (2, 3), (3, 2), (3, 4), (4, 3), (4, 5), (5, 4), (9, 16), (16, 9), (1, 2), (2, 1))
"""Aspect ratios that servers know by name."""
_NEAR: Final = 0.02  # 1792x1024, the wide size of the dall-e era, is within this of 16:9


@dataclass(frozen=True, slots=True)
class Upload:
    """One image that is uploaded with a call."""

    role: str  # image or mask
    path: Path
    content_type: str

    def check(self) -> None:
        """Raise Invalid if the file is gone or cannot be read."""
        try:
            self.path.stat()
        except OSError as reason:
            raise Invalid(f"{self.path} cannot be read: {reason.strerror}; submit the job again") from None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Images API, as plain values that can be pickled."""

    operation: str
    params: Mapping[str, Any]
    uploads: Sequence[Upload] = ()


Body = dict[str, Any]
"""Arguments for aiohttp's request; usable once, as a form is."""


async def build_body(call: Call, dialect: Dialect) -> Body:
    """Return the body of a call. Raises Invalid if an uploaded file cannot be read."""
    fields = to_dialect(call.params, dialect)
    if not call.uploads and call.operation == "generation":
        return {"json": fields}
    if not call.uploads and isinstance(fields.get("images"), list):
        return {"json": _with_own_references(fields, dialect.uploads)}
    boundary = body_digest(call, dialect)[:32]  # the same call is sent again byte by byte
    words = dialect.uploads
    try:
        if words.encoding == "json":
            return await asyncio.to_thread(when_free, lambda: _json(fields, call.uploads, words))
        return await asyncio.to_thread(when_free, lambda: _form(fields, call.uploads, words, boundary))
    except OSError as reason:
        raise Invalid(f"{reason.filename} cannot be read: {reason.strerror}; submit the job again") from None


def body_digest(call: Call, dialect: Dialect) -> str:
    """Return the SHA-256 of what the body of a call is made of: calls with different bodies have different ones.

    Input images are named by the hash of their content, so that their bytes need not be read.
    """
    uploads = [(upload.role, upload.path.name, upload.content_type) for upload in call.uploads]
    content = (call.operation, to_dialect(call.params, dialect), uploads, astuple(dialect.uploads) if uploads else ())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def to_dialect(params: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """Return a call's parameters translated to the server's dialect."""
    fields = {name: value for name, value in {**dialect.body, **params}.items() if name not in dialect.leave_out}
    for name, theirs in dialect.values.items():
        value = fields.get(name)
        if isinstance(value, str) and value in theirs:
            fields[name] = theirs[value]
    width, cross, height = str(fields.get("size", "")).partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        return fields
    match dialect.size_as:
        case "W*H":
            fields["size"] = f"{width}*{height}"
        case "width_height":
            del fields["size"]
            fields |= {"width": int(width), "height": int(height)}
        case "aspect_ratio":
            del fields["size"]
            fields["aspect_ratio"] = _ratio(int(width), int(height))
    return fields


def _ratio(width: int, height: int) -> str:
    """Return the aspect ratio of a size: a well-known one that is near enough, else the exact one."""
    if not width or not height:
        return f"{width}:{height}"
    near = min(ASPECT_RATIOS, key=lambda ratio: abs(width * ratio[1] / (height * ratio[0]) - 1))
    if abs(width * near[1] / (height * near[0]) - 1) > _NEAR:
        near = (width // gcd(width, height), height // gcd(width, height))
    return f"{near[0]}:{near[1]}"


def _form(fields: Mapping[str, Any], uploads: Sequence[Upload], words: Uploads, boundary: str) -> Body:
    """Return a multipart body. Each file states its content type, since aiohttp would send application/octet-stream,
    which the service refuses (openai-node issue 1468). aiohttp's FormData would take a random boundary.
    """
    form = aiohttp.MultipartWriter("form-data", boundary=boundary)
    for name, value in fields.items():
        for field, text in _fields(name, value):
            _add_part(form, text, "text/plain; charset=utf-8", name=field)
    image = _image_field(uploads, words)
    for upload in uploads:
        field = image if upload.role == "image" else words.mask
        content = io.BytesIO(upload.path.read_bytes())  # aiohttp sends a stream in pieces, and bytes at once
        _add_part(form, content, upload.content_type, name=field, filename=upload.path.name)
    return {"data": form}


def _add_part(form: aiohttp.MultipartWriter, value: Any, content_type: str, **disposition: Any) -> None:
    part = get_payload(value, headers={"Content-Type": content_type})
    part.set_content_disposition("form-data", **disposition)
    part.headers.popall("Content-Length", None)  # which a part of a form must not have (RFC 7578, 4.8)
    form.append_payload(part)


def _json(fields: Mapping[str, Any], uploads: Sequence[Upload], words: Uploads) -> Body:
    """Return a JSON body that contains its images."""
    body = dict(fields)
    images = [_reference(upload, words) for upload in uploads if upload.role == "image"]
    image = _image_field(uploads, words)
    body[image] = images[0] if len(images) == 1 and image == words.image else images
    for upload in uploads:
        if upload.role == "mask":
            body[words.mask] = _reference(upload, words)
    return {"data": io.BytesIO(json.dumps(body).encode()), "headers": {"Content-Type": "application/json"}}


def _with_own_references(fields: Mapping[str, Any], words: Uploads) -> dict[str, Any]:
    """Return the fields of an edit whose images are references, in the words of a server that takes JSON alone."""
    body = dict(fields)
    if words.encoding != "json":
        return body
    images = [{words.reference: next(iter(image.values()))} for image in body.pop("images")]
    mask = body.pop("mask", None)
    body[words.images if len(images) > 1 or words.image is None else words.image] = (
        images[0] if len(images) == 1 and words.image is not None else images
    )
    return body if mask is None else {**body, words.mask: {words.reference: next(iter(mask.values()))}}


def _image_field(uploads: Sequence[Upload], words: Uploads) -> str:
    several = sum(upload.role == "image" for upload in uploads) > 1
    return words.images if several or words.image is None else words.image


def _reference(upload: Upload, words: Uploads) -> str | dict[str, str]:
    content = base64.b64encode(upload.path.read_bytes()).decode()
    url = f"data:{upload.content_type};base64,{content}"
    match words.reference:
        case "base64":
            return content
        case "data_url":
            return url
        case name:
            return {name: url}


def _fields(name: str, value: Any) -> list[tuple[str, str]]:
    """Return a parameter as form fields: nested ones as svg[model], lists as name[], as the vendor's SDK does."""
    if isinstance(value, dict):
        return [field for key, inner in value.items() for field in _fields(f"{name}[{key}]", inner)]
    if isinstance(value, list | tuple):
        return [field for inner in value for field in _fields(f"{name}[]", inner)]
    return [(name, value if isinstance(value, str) else json.dumps(value))]

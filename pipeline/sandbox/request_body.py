"""Parse the multipart or JSON body of a request into fields and files.

Whatever the bytes are, the result is a `RequestBody` or an ApiError; nothing beyond the largest limit is read.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import BodyPartReader, ContentTypeError, web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.sandbox import api_errors as errors

if TYPE_CHECKING:
    from aiohttp import MultipartReader

MIB: Final = 1024 * 1024
MAX_IMAGES: Final = 16
MAX_FILE_BYTES: Final = 50 * MIB  # one image of a GPT Image edit
MAX_FIELD_BYTES: Final = 32_000 * 4  # the longest prompt, in UTF-8
MAX_DATA_URL: Final = 20_971_520  # ImageRefParam.image_url.maxLength
MAX_JSON_BYTES: Final = 4 * MIB
MAX_JSON_EDIT_BYTES: Final = (MAX_IMAGES + 1) * MAX_DATA_URL + MAX_JSON_BYTES
MAX_FORM_BYTES: Final = (MAX_IMAGES + 1) * MAX_FILE_BYTES + MIB
MAX_PARTS: Final = 100
IDLE_SECONDS: Final = 60.0
"""Read timeout of a body, so that no call hangs on a client that is gone."""
NESTED: Final = re.compile(r"([a-z_]+)((?:\[[a-z_]+\]){1,2})")
BROKEN_BODY: Final = (
    web.RequestPayloadError,  # the client went away, or a broken Content-Encoding or chunk
    HttpProcessingError,
    ContentTypeError,
    ValueError,
    LookupError,  # an unknown charset or transfer encoding
    RuntimeError,
    AssertionError,
    EOFError,
    Warning,  # a broken Content-Disposition, if warnings are errors
)
"""What aiohttp raises for an invalid body; found by fuzzing (tests/integration/test_sandbox_request_body.py)."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a multipart body; `content_type` is None if the part names none."""

    field: str
    content: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class RequestBody:
    """What a request carries: JSON values, or the texts and files of a multipart body."""

    encoding: Literal["json", "multipart"]
    fields: dict[str, object]
    files: tuple[FilePart, ...] = ()


async def read_body(request: web.Request, accepted: tuple[str, ...], max_json_bytes: int) -> RequestBody:
    """Read the whole body as one of the `accepted` content types. Raises ApiError."""
    if request.content_type not in accepted:
        got = request.headers.get("Content-Type", "")
        raise errors.wrong_content_type(got[:200], accepted[0])
    try:
        async with asyncio.timeout(IDLE_SECONDS) as timeout:
            if request.content_type == "application/json":
                body = await _read_json(request, max_json_bytes, timeout)
            else:
                return await _read_multipart(await request.multipart(), timeout)
    except TimeoutError as error:
        raise errors.too_slow(IDLE_SECONDS) from error
    except BROKEN_BODY as error:
        raise errors.unreadable_form(type(error).__name__) from error
    return RequestBody("json", await asyncio.to_thread(parse_json, body) if len(body) > MIB else parse_json(body))


def parse_json(body: bytes) -> dict[str, object]:
    """Parse a JSON object strictly: UTF-8, no NaN, no duplicate key, no lone surrogate. Raises ApiError."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
        if b"\\u" in body:  # json.loads accepts a lone surrogate, which no later step could encode
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise errors.unreadable_json() from error
    if not isinstance(value, dict):
        raise errors.unreadable_json()
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise errors.duplicate_parameter(twice[:200])
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def extend(timeout: asyncio.Timeout) -> None:
    """Restart the read timeout after a byte came."""
    timeout.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)


async def _read_json(request: web.Request, limit: int, timeout: asyncio.Timeout) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            extend(timeout)
            if len(body) > limit:
                raise errors.too_large("the body", limit)
    except BROKEN_BODY as error:
        raise errors.unreadable_json() from error
    return bytes(body)


async def _read_multipart(reader: MultipartReader, timeout: asyncio.Timeout) -> RequestBody:
    fields: dict[str, object] = {}
    files: list[FilePart] = []
    total = 0
    for _ in range(MAX_PARTS):
        part = await reader.next()
        if part is None:
            return RequestBody("multipart", fields, tuple(files))
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise errors.unreadable_form("a part without a name, or with parts of its own")
        content = await _read_part(part, timeout)
        total += len(content)
        if total > MAX_FORM_BYTES:
            raise errors.too_large("the form", MAX_FORM_BYTES)
        if part.filename is not None:
            files.append(FilePart(part.name, content, part.headers.get("Content-Type")))
        else:
            put_field(fields, part.name, content.decode())  # UnicodeDecodeError is a ValueError: an unreadable form
    raise errors.too_large("the number of parts", MAX_PARTS)


def put_field(fields: dict[str, object], name: str, text: str) -> None:
    """Set a field; `svg[reasoning][effort]` is how the vendor's SDK writes an object into a form."""
    nested = NESTED.fullmatch(name)
    *outer, last = [nested[1], *nested[2][1:-1].split("][")] if nested else [name]
    for key in outer:
        inner = fields.setdefault(key, {})
        if not isinstance(inner, dict):
            raise errors.duplicate_parameter(key)
        fields = inner
    if last in fields:
        raise errors.duplicate_parameter(name)
    fields[last] = text


async def _read_part(part: BodyPartReader, timeout: asyncio.Timeout) -> bytes:
    limit = MAX_FIELD_BYTES if part.filename is None else MAX_FILE_BYTES
    content = bytearray()
    while chunk := await part.read_chunk(65536):
        content += chunk
        extend(timeout)
        if len(content) > limit:
            raise errors.too_large(f"'{part.name}'", limit)
    return bytes(content)

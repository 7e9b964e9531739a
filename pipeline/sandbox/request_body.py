"""The bytes of a request become fields and file parts.

Whatever the bytes are, the outcome is a `Form` or a refusal; nothing is read beyond what some model could take.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import BodyPartReader, ContentTypeError, web
from aiohttp.http_exceptions import HttpProcessingError

from pipeline.sandbox.rules import errors

if TYPE_CHECKING:
    from aiohttp import MultipartReader

MIB: Final = 1024 * 1024
MAX_IMAGES: Final = 16
MAX_FILE_BYTES: Final = 50 * MIB  # one picture of a GPT Image edit
MAX_FIELD_BYTES: Final = 32_000 * 4  # the longest prompt, in UTF-8
MAX_DATA_URL: Final = 20_971_520  # ImageRefParam.image_url.maxLength
MAX_JSON_BYTES: Final = 4 * MIB
MAX_JSON_EDIT_BYTES: Final = (MAX_IMAGES + 1) * MAX_DATA_URL + MAX_JSON_BYTES
MAX_FORM_BYTES: Final = (MAX_IMAGES + 1) * MAX_FILE_BYTES + MIB
MAX_PARTS: Final = 100
IDLE_SECONDS: Final = 60.0
"""A body that stops coming for so long is given up, so that no call hangs on a client that is no more."""
NESTED: Final = re.compile(r"([a-z_]+)((?:\[[a-z_]+\]){1,2})")
BROKEN_BODY: Final = (
    web.RequestPayloadError,  # the client went away, or a broken Content-Encoding or chunk
    HttpProcessingError,
    ContentTypeError,
    ValueError,
    LookupError,  # a charset or transfer encoding that nobody knows
    RuntimeError,
    AssertionError,
    EOFError,
    Warning,  # a broken Content-Disposition, where warnings are errors
)
"""What aiohttp raises for bytes that are no body; found by throwing garbage at it (tests/test_sandbox_form.py)."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a form; `content_type` is None where the part names none."""

    field: str
    content: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Form:
    """What a call carries: JSON values, or the texts and files of a multipart body."""

    encoding: Literal["json", "multipart"]
    fields: dict[str, object]
    files: tuple[FilePart, ...] = ()


async def read_form(request: web.Request, accepted: tuple[str, ...]) -> Form:
    """Read the whole body as one of the `accepted` content types. Raises ApiError."""
    if request.content_type not in accepted:
        got = request.headers.get("Content-Type", "")
        raise errors.wrong_content_type(got[:200], accepted[0])
    try:
        async with asyncio.timeout(IDLE_SECONDS) as patience:
            if request.content_type == "application/json":
                limit = MAX_JSON_BYTES if len(accepted) == 1 else MAX_JSON_EDIT_BYTES
                body = await _read_body(request, limit, patience)
            else:
                return await _read_multipart(await request.multipart(), patience)
    except TimeoutError as error:
        raise errors.too_slow(IDLE_SECONDS) from error
    except BROKEN_BODY as error:
        raise errors.unreadable_form(type(error).__name__) from error
    return Form("json", await asyncio.to_thread(parse_json, body) if len(body) > MIB else parse_json(body))


def parse_json(body: bytes) -> dict[str, object]:
    """Parse a JSON object, strictly: UTF-8, no NaN, no key twice, no half of a surrogate pair. Raises ApiError."""
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
        if b"\\u" in body:  # json.loads lets a lone surrogate through, which no later step could write down
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


def _wait_on(patience: asyncio.Timeout) -> None:
    """A byte came: give the next one its whole time again."""
    patience.reschedule(asyncio.get_running_loop().time() + IDLE_SECONDS)


async def _read_body(request: web.Request, limit: int, patience: asyncio.Timeout) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            _wait_on(patience)
            if len(body) > limit:
                raise errors.too_large("the body", limit)
    except BROKEN_BODY as error:
        raise errors.unreadable_json() from error
    return bytes(body)


async def _read_multipart(reader: MultipartReader, patience: asyncio.Timeout) -> Form:
    fields: dict[str, object] = {}
    files: list[FilePart] = []
    total = 0
    for _ in range(MAX_PARTS):
        part = await reader.next()
        if part is None:
            return Form("multipart", fields, tuple(files))
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise errors.unreadable_form("a part without a name, or with parts of its own")
        content = await _read_part(part, patience)
        total += len(content)
        if total > MAX_FORM_BYTES:
            raise errors.too_large("the form", MAX_FORM_BYTES)
        if part.filename is not None:
            files.append(FilePart(part.name, content, part.headers.get("Content-Type")))
        else:
            _put(fields, part.name, content.decode())  # UnicodeDecodeError is a ValueError: an unreadable form
    raise errors.too_large("the number of parts", MAX_PARTS)


def _put(fields: dict[str, object], name: str, text: str) -> None:
    """Place a text: `svg[reasoning][effort]` is how the vendor's SDK writes an object into a form."""
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


async def _read_part(part: BodyPartReader, patience: asyncio.Timeout) -> bytes:
    limit = MAX_FIELD_BYTES if part.filename is None else MAX_FILE_BYTES
    content = bytearray()
    while chunk := await part.read_chunk(65536):
        content += chunk
        _wait_on(patience)
        if len(content) > limit:
            raise errors.too_large(f"'{part.name}'", limit)
    return bytes(content)

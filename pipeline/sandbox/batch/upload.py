"""Read the multipart form of an upload, its file straight to disk."""

from __future__ import annotations

import asyncio
import hashlib
import mimetypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import BodyPartReader

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.request_body import (
    BROKEN_BODY,
    IDLE_SECONDS,
    MAX_FIELD_BYTES,
    MAX_PARTS,
    MIB,
    extend,
    put_field,
)

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp import web

MAX_UPLOAD_BYTES: Final = 512 * MIB
MULTIPART: Final = "multipart/form-data"
PLAIN_BYTES: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """The file of an upload, as its part names it, and the hash of its bytes."""

    filename: str
    content_type: str
    sha256: str


@dataclass(frozen=True, slots=True)
class UploadForm:
    """The fields of an upload and its file, if there is one."""

    fields: dict[str, object]
    file: UploadedFile | None


async def read_upload(request: web.Request, path: Path) -> UploadForm:
    """Read the form and write its file to `path`. Raises ApiError, and OSError."""
    if request.content_type != MULTIPART:
        raise errors.wrong_content_type(request.headers.get("Content-Type", "")[:200], MULTIPART)
    try:
        async with asyncio.timeout(IDLE_SECONDS) as timeout:
            return await _read_form(request, path, timeout)
    except TimeoutError as error:
        raise errors.too_slow(IDLE_SECONDS) from error
    except BROKEN_BODY as error:
        raise errors.unreadable_form(type(error).__name__) from error


async def _read_form(request: web.Request, path: Path, timeout: asyncio.Timeout) -> UploadForm:
    fields: dict[str, object] = {}
    file: UploadedFile | None = None
    reader = await request.multipart()
    for _ in range(MAX_PARTS):
        part = await reader.next()
        if part is None:
            return UploadForm(fields, file)
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise errors.unreadable_form("a part without a name, or with parts of its own")
        if part.filename is None:
            put_field(fields, part.name, (await _read_field(part, timeout)).decode())
        elif part.name != "file":
            raise errors.unknown_parameter(part.name[:200])
        elif file is not None:
            raise errors.duplicate_parameter("file")
        else:
            file = await _write_file(part, path, timeout)
    raise errors.too_large("the number of parts", MAX_PARTS)


async def _read_field(part: BodyPartReader, timeout: asyncio.Timeout) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(65536):
        content += chunk
        extend(timeout)
        if len(content) > MAX_FIELD_BYTES:
            raise errors.too_large(f"'{part.name}'", MAX_FIELD_BYTES)
    return bytes(content)


async def _write_file(part: BodyPartReader, path: Path, timeout: asyncio.Timeout) -> UploadedFile:
    total, digest = 0, hashlib.sha256()
    with path.open("wb") as file:
        while chunk := await part.read_chunk(262_144):
            total += len(chunk)
            extend(timeout)
            if total > MAX_UPLOAD_BYTES:
                raise errors.too_large("'file'", MAX_UPLOAD_BYTES)
            file.write(chunk)
            digest.update(chunk)
    filename = part.filename or "upload"
    declared = part.headers.get("Content-Type", PLAIN_BYTES)
    guessed = mimetypes.guess_type(filename)[0] if declared == PLAIN_BYTES else None
    return UploadedFile(filename, guessed or declared, digest.hexdigest())

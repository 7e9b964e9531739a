"""Serve `/v1/files`: upload, list, retrieve and delete; the content is served by `content`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors
from pipeline.sandbox.batch import errors
from pipeline.sandbox.batch.pages import order_of, page_of, page_size
from pipeline.sandbox.batch.upload import read_upload
from pipeline.sandbox.request_log import UploadEntry
from pipeline.sandbox.responses import json_response
from pipeline.sandbox.rules.fields import Choice, Fields, Integer

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.batch.upload import UploadForm
    from pipeline.sandbox.file_store import StoredFile
    from pipeline.sandbox.responses import Response
    from pipeline.sandbox.service import Service

DAY: Final = 86400
MAX_BATCH_FILE_BYTES: Final = 200_000_000
KEPT_SECONDS: Final = 30 * DAY
"""How long a file of purpose `batch` is kept, and what batches make; other files are kept until they are deleted."""
PURPOSE: Final = Choice(("assistants", "batch", "fine-tune", "vision", "user_data", "evals"))
EXPIRES_AFTER: Final = Fields(
    {"anchor": Choice(("created_at",)), "seconds": Integer(3600, KEPT_SECONDS)}, required=("anchor", "seconds")
)
MOST_LISTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Purpose:
    """What an upload says of itself: its purpose, and after how many seconds it expires."""

    name: str
    seconds: int | None


async def upload_file(service: Service, request: web.Request) -> Response:
    """Store the file of a form and return its object. Raises ApiError."""
    part = service.files.part()
    try:
        form = await read_upload(request, part)
        purpose = _check(form)
        if form.file is None:
            raise api_errors.missing_parameter("file")
        if purpose.name == "batch":
            if not form.file.filename.endswith(".jsonl"):
                raise errors.wrong_extension()
            if part.stat().st_size > MAX_BATCH_FILE_BYTES:
                raise errors.file_too_large()
        now = int(service.clock())
        stored = service.files.add(
            part,
            created_at=now,
            expires_at=None if purpose.seconds is None else now + purpose.seconds,
            filename=form.file.filename,
            purpose=purpose.name,
            content_type=form.file.content_type,
        )
    finally:
        part.unlink(missing_ok=True)
    entry = UploadEntry(service.clock(), stored.id, stored.purpose, stored.filename, stored.bytes, form.file.sha256)
    service.request_log.write(entry)
    return json_response(stored.as_object())


def _check(form: UploadForm) -> Purpose:
    for name in form.fields.keys() - {"purpose", "expires_after"}:
        raise api_errors.unknown_parameter(name[:200])
    if "purpose" not in form.fields:
        raise api_errors.missing_parameter("purpose")
    purpose = PURPOSE.parse("purpose", form.fields["purpose"], from_text=True)
    if "expires_after" not in form.fields:
        return Purpose(purpose, KEPT_SECONDS if purpose == "batch" else None)
    expires = EXPIRES_AFTER.parse("expires_after", form.fields["expires_after"], from_text=True)
    assert isinstance(expires["seconds"], int)
    return Purpose(purpose, expires["seconds"])


def list_files(service: Service, request: web.Request) -> Response:
    """Return a page of files, the newest first unless asked otherwise. Raises ApiError."""
    limit, newest_first = page_size(request.query, MOST_LISTED, MOST_LISTED), order_of(request.query) == "desc"
    files = service.files.all(service.clock())
    if "purpose" in request.query:
        files = [stored for stored in files if stored.purpose == request.query["purpose"]]
    objects = [stored.as_object() for stored in (reversed(files) if newest_first else files)]
    after = request.query.get("after")
    return page_of(objects, after, limit, errors.no_such_file)


def find_file(service: Service, file_id: str) -> StoredFile:
    """Return a file. Raises ApiError if there is none."""
    try:
        return service.files.get(file_id, service.clock())
    except LookupError as error:
        raise errors.no_such_file(file_id) from error


def retrieve_file(service: Service, file_id: str) -> Response:
    """Return a file's object. Raises ApiError."""
    return json_response(find_file(service, file_id).as_object())


def delete_file(service: Service, file_id: str) -> Response:
    """Delete a file. Raises ApiError."""
    service.files.delete(find_file(service, file_id).id)
    return json_response({"id": file_id, "object": "file", "deleted": True})

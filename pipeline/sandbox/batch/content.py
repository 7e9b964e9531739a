"""Serve `/v1/files/{id}/content`: a stream from disk, with or without its length, whole or a range."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.api_errors import ApiError
from pipeline.sandbox.batch import errors
from pipeline.sandbox.batch.faults import plan_content
from pipeline.sandbox.batch.files import find_file
from pipeline.sandbox.batch.ranges import UnsatisfiableRangeError, byte_range
from pipeline.sandbox.http_server import drop

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from pipeline.sandbox.batch.faults import ContentPlan
    from pipeline.sandbox.file_store import StoredFile
    from pipeline.sandbox.service import Service

HIDDEN_PURPOSES: Final = ("user_data", "assistants")
CHUNK: Final = 1_048_576


@dataclass(slots=True)
class Contents:
    """Serves the contents of files; counts the answers of each file, for the faults."""

    service: Service
    _answers: Counter[str] = field(default_factory=Counter)

    async def send(self, request: web.Request, file_id: str, headers: Mapping[str, str]) -> web.StreamResponse:
        """Write a content, or the range of it that is asked for. Raises ApiError, and ConnectionError."""
        stored = find_file(self.service, file_id)
        if stored.purpose in HIDDEN_PURPOSES:
            raise errors.not_downloadable(stored.purpose)
        tag = f'"{stored.id}"'
        wanted = _range(request, stored, tag)
        start, stop = wanted or (0, stored.bytes)
        plan = plan_content(self.service.settings, stored.number, self._answers[stored.id])
        self._answers[stored.id] += 1
        stream = web.StreamResponse(status=206 if wanted else 200, headers={**headers, **_headers(stored, tag)})
        if wanted:
            stream.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.bytes}"
        if plan.has_length:
            stream.content_length = stop - start
        with self.service.files.path(stored.id).open("rb") as file:
            await stream.prepare(request)
            return await self._write(request, stream, file, start, stop, plan)

    async def _write(
        self,
        request: web.Request,
        stream: web.StreamResponse,
        file: BinaryIO,
        start: int,
        stop: int,
        plan: ContentPlan,
    ) -> web.StreamResponse:
        end = stop if plan.ends_after is None else start + int((stop - start) * plan.ends_after)
        file.seek(start)
        while start < end:
            chunk = await self.service.run_in_thread(file.read, min(CHUNK, end - start))
            await stream.write(chunk)
            start += len(chunk)
        if end < stop and (plan.has_length or not plan.ends_cleanly):
            return drop(request)
        await stream.write_eof()
        return stream


def _range(request: web.Request, stored: StoredFile, tag: str) -> tuple[int, int] | None:
    if request.headers.get("If-Range", tag) != tag:
        return None
    try:
        return byte_range(request.headers.get("Range"), stored.bytes)
    except UnsatisfiableRangeError as error:
        headers = {"Content-Range": f"bytes */{stored.bytes}"}
        raise ApiError("The requested range is not satisfiable.", status=416, headers=headers) from error


def _headers(stored: StoredFile, tag: str) -> dict[str, str]:
    quoted = stored.filename.encode("ascii", "replace").decode().translate(str.maketrans('"\\\r\n', "____"))
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{quoted}"',
        "Accept-Ranges": "bytes",
        "ETag": tag,
    }

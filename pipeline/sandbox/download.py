"""A request for a picture's URL becomes its bytes.

The blob store is another house than the API: it speaks XML, takes no key, and refuses whoever shows one.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

from aiohttp import web

from pipeline.sandbox.drawing.images import draw
from pipeline.sandbox.faults import NOT_THE_PICTURE, draw_download
from pipeline.sandbox.generate import drop, send
from pipeline.sandbox.request_log import DownloadEntry
from pipeline.sandbox.responses import Answer
from pipeline.sandbox.rules.uploads import NOT_A_PICTURE
from pipeline.sandbox.signed_urls import BlobError, authentication_failed, blob_not_found

if TYPE_CHECKING:
    from pipeline.sandbox.generate import Service

XML: str = "application/xml"


async def serve_download(service: Service, request: web.Request) -> web.StreamResponse:
    """Answer with the picture or the blob store's refusal, and write it into the books."""
    entry = DownloadEntry(service.clock(), request.path)
    headers = {"x-ms-request-id": str(uuid.uuid4()), "x-ms-version": "2024-08-04", "Server": "Windows-Azure-Blob/1.0"}
    try:
        try:
            answer = await _picture(service, request, entry)
        except BlobError as refusal:
            body = refusal.body(headers["x-ms-request-id"], service.clock())
            answer = Answer(refusal.status, XML, (body,), {"x-ms-error-code": refusal.code})
        if entry.fault == "cut_download":
            return await _cut(request, answer, headers)
        entry.status = answer.status
        return await send(request, answer, {**headers, **answer.headers})
    finally:
        service.books.write(entry)


async def _picture(service: Service, request: web.Request, entry: DownloadEntry) -> Answer:
    if request.method not in {"GET", "HEAD"}:
        raise BlobError(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
    if "Authorization" in request.headers:
        raise authentication_failed("Authentication scheme Bearer is not supported with a shared access signature.")
    sketch = service.links.open(request.raw_path)
    try:
        content = await service.work(draw, sketch, service.spool.read)
    except NOT_A_PICTURE as error:  # the uploaded source has left the spool, or was damaged there
        raise blob_not_found() from error
    answer = Answer(
        200,
        f"image/{sketch.format}",
        (content,),
        {"ETag": f'"0x{hashlib.sha256(content).hexdigest()[:15].upper()}"', "x-ms-blob-type": "BlockBlob"},
    )
    if request.method == "HEAD":
        return answer
    number, service.downloads = service.downloads, service.downloads + 1
    entry.fault = draw_download(service.settings, number)
    return _wrong(answer, number) if entry.fault == "wrong_download" else answer


def _wrong(answer: Answer, number: int) -> Answer:
    """Give bytes that are not the picture: by turns a web page and half a picture, each of a complete length."""
    if number % 2:
        return Answer(200, answer.content_type, (answer.chunks[0][: len(answer.chunks[0]) // 2],))
    return Answer(200, "text/html", (NOT_THE_PICTURE,))


async def _cut(request: web.Request, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    """Declare the whole length, send half of it, and close."""
    content = answer.chunks[0]
    response = web.StreamResponse(headers={**headers, "Content-Type": answer.content_type})
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    return drop(request)

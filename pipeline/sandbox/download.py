"""Serve the downloads of image URLs as the service's blob store does.

The blob store is not part of the API: its errors are XML, and it refuses a request that carries an API key.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.sandbox.drawing.images import draw
from pipeline.sandbox.faults import WRONG_PAGE, pick_download_fault
from pipeline.sandbox.http_server import drop, send
from pipeline.sandbox.request_log import DownloadEntry
from pipeline.sandbox.responses import Response
from pipeline.sandbox.rules.image_files import DECODE_ERRORS
from pipeline.sandbox.signed_urls import BlobError, authentication_failed, blob_not_found

if TYPE_CHECKING:
    from pipeline.sandbox.service import Service

XML: Final = "application/xml"


async def serve_download(service: Service, request: web.Request) -> web.StreamResponse:
    """Answer with the image or the blob store's error, and log it."""
    entry = DownloadEntry(service.clock(), request.path)
    headers = {"x-ms-request-id": str(uuid.uuid4()), "x-ms-version": "2024-08-04", "Server": "Windows-Azure-Blob/1.0"}
    try:
        try:
            response = await _image(service, request, entry)
        except BlobError as error:
            body = error.body(headers["x-ms-request-id"], service.clock())
            response = Response(error.status, XML, (body,), {"x-ms-error-code": error.code})
        if entry.fault == "cut_download":
            return await _cut(request, response, headers)
        entry.status = response.status
        return await send(request, response, headers)
    finally:
        service.request_log.write(entry)


async def _image(service: Service, request: web.Request, entry: DownloadEntry) -> Response:
    if request.method not in {"GET", "HEAD"}:
        raise BlobError(405, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.")
    if "Authorization" in request.headers:
        raise authentication_failed("Authentication scheme Bearer is not supported with a shared access signature.")
    spec = service.signed_urls.verify(request.raw_path)
    try:
        content = await service.run_in_thread(draw, spec, service.upload_store.read)
    except DECODE_ERRORS as error:  # the uploaded source is gone from the store, or damaged there
        raise blob_not_found() from error
    response = Response(
        200,
        f"image/{spec.format}",
        (content,),
        {"ETag": f'"0x{hashlib.sha256(content).hexdigest()[:15].upper()}"', "x-ms-blob-type": "BlockBlob"},
    )
    if request.method == "HEAD":
        return response
    number, service.downloads = service.downloads, service.downloads + 1
    entry.fault = pick_download_fault(service.settings, number)
    return _wrong(response, number) if entry.fault == "wrong_download" else response


def _wrong(response: Response, number: int) -> Response:
    """Return wrong bytes of a complete length: alternately a web page and half of the image."""
    if number % 2:
        return Response(200, response.content_type, (response.chunks[0][: len(response.chunks[0]) // 2],))
    return Response(200, "text/html", (WRONG_PAGE,))


async def _cut(request: web.Request, response: Response, headers: dict[str, str]) -> web.StreamResponse:
    """Declare the whole length, send half of it, and close the connection."""
    content = response.chunks[0]
    stream = web.StreamResponse(headers={**headers, "Content-Type": response.content_type})
    stream.content_length = len(content)
    await stream.prepare(request)
    await stream.write(content[: len(content) // 2])
    return drop(request)

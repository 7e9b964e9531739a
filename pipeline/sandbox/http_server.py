"""Accept HTTP connections and write responses.

aiohttp answers a request that it cannot parse in plain text; here that response is the service's error envelope.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from pipeline.sandbox import api_errors as errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pipeline.sandbox.responses import Response

HEADER_BYTES: Final = 65_536
"""The API's overview limits all headers of a request together to 64 KiB; here the limit is for each line."""
http_log = logging.getLogger(__name__)
http_log.setLevel(logging.CRITICAL)  # aiohttp logs a traceback for a client's garbage


class Connection(web.RequestHandler):
    """One connection; its requests in order."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused, or what failed outside of every handler, and close."""
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun, and no other can follow it")
        what = " ".join((message or str(exc) or "unreadable").split())
        error = errors.not_http(what) if status < 500 else errors.server_error()
        headers = {**service_headers(f"req_{uuid.uuid4().hex}", time.monotonic()), "Content-Type": errors.JSON_TYPE}
        response = web.Response(status=error.status, body=error.body(), headers=headers)
        response.force_close()
        return response


class HttpServer(web.Server):
    """aiohttp server that passes every request to one handler, whatever its method and path."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.Request)  # made below
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return await handler(request)

        super().__init__(handle, request_factory=_request)

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        loop = asyncio.get_running_loop()
        return Connection(
            self,
            loop=loop,
            logger=http_log,
            access_log=None,  # type: ignore[arg-type] # None is how AppRunner writes "no log", too
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.Request:
    loop = asyncio.get_running_loop()
    try:
        return web.Request(message, payload, protocol, writer, task, loop)
    except ValueError:  # the request line names an invalid host (http://xn--/), and aiohttp would never answer
        return web.Request(message._replace(url=message.url.relative()), payload, protocol, writer, task, loop)


def service_headers(request_id: str, started: float) -> dict[str, str]:
    """Return the headers of every API response; `started` in monotonic seconds."""
    return {
        "x-request-id": request_id,
        "openai-processing-ms": str(max(1, round((time.monotonic() - started) * 1000))),
        "openai-version": "2020-10-01",
        "openai-organization": errors.ORGANIZATION,
    }


async def send(request: web.Request, response: Response, headers: dict[str, str]) -> web.StreamResponse:
    """Write a response to the socket, with these headers besides its own. Raises ConnectionError if the client left."""
    headers = {**headers, **response.headers, "Content-Type": response.content_type}
    stream = web.StreamResponse(status=response.status, headers=headers)
    if len(response.chunks) == 1 or response.pause:
        stream.content_length = sum(map(len, response.chunks))
    if request.content.exception() or response.status == 408:
        stream.force_close()  # after a truncated body the next request cannot be read
    await stream.prepare(request)
    for number, chunk in enumerate(response.chunks if request.method != "HEAD" else ()):
        if number:
            await asyncio.sleep(response.pause)
        await stream.write(chunk)
    await stream.write_eof()
    return stream


def drop(request: web.Request) -> web.Response:
    """Close the connection without a response; the returned object is never sent."""
    if request.transport:
        request.transport.close()
    return web.Response()

"""Bytes on a socket become requests, and bytes that are no HTTP become the same envelope as every refusal.

aiohttp answers what it cannot parse by itself, in plain text; here that one answer is the service's, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from pipeline.sandbox.generate import service_headers
from pipeline.sandbox.rules import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEADER_BYTES: Final = 65_536
"""All headers of a request together must be under 64 KiB, says the API's overview; here each line must."""
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
            raise ConnectionError("the answer has begun, and no other can follow it")
        what = " ".join((message or str(exc) or "unreadable").split())
        refusal = errors.not_http(what) if status < 500 else errors.server_error()
        headers = {**service_headers(f"req_{uuid.uuid4().hex}", time.monotonic()), "Content-Type": errors.JSON_TYPE}
        response = web.Response(status=refusal.status, body=refusal.body(), headers=headers)
        response.force_close()
        return response


class Door(web.Server):
    """What takes connections in; each request goes to one handler, whatever its method and path."""

    def __init__(self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.Request)  # made below
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return await handler(request)

        super().__init__(answer, request_factory=_request)

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
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
    except ValueError:  # the request line names a host that is none (http://xn--/), and aiohttp would never answer
        return web.Request(message._replace(url=message.url.relative()), payload, protocol, writer, task, loop)

"""HTTP session with one provider's API: key, headers, proxy, timeouts, and the errors of calls without a response."""

from __future__ import annotations

import contextlib
import functools
import time
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from multidict import CIMultiDict
from pydantic_core import from_json
from yarl import URL

from pipeline.client.error_body import text_of
from pipeline.client.event_stream import cut_object, is_stream
from pipeline.client.limits import HEADER_BYTES, HEADERS
from pipeline.client.network import (
    Connector,
    ProxyRefusedError,
    has_large_headers,
    is_compressed_unasked,
    is_json,
    is_keep_alive,
    network_reason,
    proxy_for,
    receive,
    receive_beginning,
)
from pipeline.client.response import HttpResponse, read_error
from pipeline.client.response_forms import find_images
from pipeline.client.timeout import Timeout
from pipeline.errors import NotSent, OutcomeUnknown, Unusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import SimpleNamespace, TracebackType

    from pipeline.client.secrets import Secrets
    from pipeline.config.dialect import Dialect

_CONNECT_SECONDS = 30.0
_IDLE_SECONDS = 1.0
"""How long an idle connection is kept. Servers close one after 2 s (gunicorn), 5 s (node, uvicorn) or more, and the
outcome of a call that is sent at that moment is unknown.
"""

NO_HTTP = "ClientResponseError"
"""Type of the errors of responses that are not valid HTTP: aiohttp's name."""

_DONE = b"data: [DONE]"  # the last event of a stream
_START_BYTES = 64  # of a body that tell whether it is a stream of events
_REFUSAL_BYTES = 1024 * 1024  # of an error body that are read: the error is at its beginning


class ApiSession:
    """Session with the API of one provider, an async context manager. The key is sent to the provider alone."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        headers: Mapping[str, str],
        *,
        dialect: Dialect,
        timeout: float,
        connections: int,
        secrets: Secrets,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout  # seconds
        self._headers = CIMultiDict(dialect.credentials(key))
        self._headers.update(headers)
        self._has_key = bool(self._headers)
        self._connections = connections
        self._secrets = secrets
        self._session: aiohttp.ClientSession | None = None
        self._proxy = functools.cache(proxy_for)  # reading the environment takes a quarter of a call's own time

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_mark_sent)
        self._session = aiohttp.ClientSession(
            connector=Connector(limit=self._connections, keepalive_timeout=_IDLE_SECONDS),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS),  # `Timeout` limits the rest
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace],
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def url(self, path: str, query: Mapping[str, str]) -> URL:
        """Return the URL of a path below the base URL; the path is quoted already."""
        return URL(f"{self.base_url}/{path}") % query

    async def request(
        self,
        method: str,
        url: URL,
        *,
        max_bytes: int,
        sent: Callable[[], None] | None = None,
        timeout: float | None = None,
        option: str | None = None,
        images: int = 0,
        **body: Any,
    ) -> HttpResponse:
        """Make one call and return its response, whatever its status; `sent` is called when the first bytes are sent;
        if it raises, nothing is.

        A success response of more than `max_bytes`, decompressed, is Unusable; `option` is what can allow it. One that
        is cut, or at the timeout still open, after all `images` that were asked for is complete.

        Raises NotSent if nothing was sent, and OutcomeUnknown if something was and no complete response came.
        """
        mark = _Mark(sent)
        pieces: list[bytes] = []
        limit = Timeout(self.timeout if timeout is None else timeout)
        try:
            async with limit, self._send(method, url, mark, body) as response:
                if 200 <= response.status < 300:
                    mark.status = response.status
                    content = await receive(response, max_bytes, functools.partial(_is_whole, images), pieces=pieces)
                else:
                    content = await receive_beginning(response, _REFUSAL_BYTES)
                if content is None:
                    raise _too_large(response.status, max_bytes, option)
                return self._received(response, content, mark, images)
        except (aiohttp.ClientError, TimeoutError, OSError) as reason:
            if limit.expired() and pieces and _has_all(images, arrived := b"".join(pieces)):
                return self._received(response, arrived, mark, images)
            raise self._broken(reason, mark) from None

    @contextlib.asynccontextmanager
    async def stream(
        self, url: URL, limit: Timeout, headers: Mapping[str, str], statuses: Collection[int]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a success response, or one with one of these statuses; the block reads its body, and raises no OSError.

        Raises what `request` raises, and the RequestError that any other response means.
        """
        mark = _Mark(None)
        try:
            async with limit, self._send("GET", url, mark, {"headers": headers}) as response:
                if not 200 <= response.status < 300 and response.status not in statuses:
                    refusal = await receive_beginning(response, _REFUSAL_BYTES)
                    raise read_error(self._received(response, refusal, mark))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as reason:
            raise self._broken(reason, mark) from None

    def _send(
        self, method: str, url: URL, mark: _Mark, options: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._session is not None, "use `async with`"
        mark.proxy = proxy = self._proxy(url.origin())
        return self._session.request(method, url, allow_redirects=False, trace_request_ctx=mark, proxy=proxy, **options)

    def _received(self, response: aiohttp.ClientResponse, content: bytes, mark: _Mark, images: int = 0) -> HttpResponse:
        proxy = mark.proxy
        forwarded = f"{proxy.host}:{proxy.port}" if proxy and response.url.scheme == "http" else None
        headers = self._secrets.scrub_headers(response.headers)
        sent = (self._secrets, images, self._has_key)
        return HttpResponse(response.status, headers, content, str(response.url), forwarded, *sent)

    def _broken(self, reason: Exception, mark: _Mark) -> NotSent | OutcomeUnknown:
        text = self._secrets.scrub_text(network_reason(reason, mark.proxy))
        if mark.sent_at is None:
            error = NotSent(f"{self.base_url} cannot be reached: {text}", type=type(reason).__name__)
            error.deterministic = isinstance(reason, ProxyRefusedError)
            return error
        after = time.monotonic() - mark.sent_at
        if has_large_headers(reason) or is_compressed_unasked(reason):
            lost = OutcomeUnknown(f"the response to a call that was sent cannot be read: {text}")
            lost.deterministic = True
            return lost
        what = "no complete response" if isinstance(reason, TimeoutError) else f"the connection broke ({text})"
        lost = OutcomeUnknown(f"{what} within {after:.1f} s after the call was sent", type=type(reason).__name__)
        if not isinstance(reason, TimeoutError):  # a server that hangs is down, whatever it began to send
            lost.http_status = mark.status
        return lost


def _is_whole(images: int, body: bytes, has_ended: bool) -> bool:
    """Return whether a body is all that comes. While the connection lives, a line of JSON may be followed by others:
    the progress of a call, or after a partial image the whole one. A stream of events is done if it says so, or once it
    has brought all `images` that were asked for.
    """
    done = body.rfind(_DONE)
    if done >= 0 and is_keep_alive(body[done + len(_DONE) :]):
        return True
    if not is_json(body):
        return (has_ended or is_stream(text_of(body[:_START_BYTES]))) and cut_object(body, images) is not None
    return has_ended or (b"partial" not in body and bool(find_images(from_json(body), "")))


def _has_all(images: int, body: bytes) -> bool:
    """Return whether a body that is still open at the timeout holds what was paid for."""
    return cut_object(body, images) is not None or _is_whole(images, body, has_ended=False)


def _too_large(status: int, max_bytes: int, option: str | None) -> Unusable:
    what = f"the response is larger than {max_bytes / 2**20:.0f} MB" + (f", which {option} can allow" if option else "")
    error = Unusable(what, http_status=status)
    error.deterministic = True
    return error


class _Mark:
    """Whether, and when, the first bytes of a call were sent."""

    def __init__(self, sent: Callable[[], None] | None) -> None:
        self._sent = sent
        self.sent_at: float | None = None
        self.proxy: URL | None = None
        self.status: int | None = None  # of a success response whose body was awaited

    def __call__(self) -> None:
        if self.sent_at is None:
            if self._sent is not None:
                self._sent()  # which may refuse: the first byte is written after this
            self.sent_at = time.monotonic()


async def _mark_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx()

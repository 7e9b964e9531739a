"""HTTP client of one provider: sends one call and returns its parsed response, or raises the error that it means."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pipeline.client.network import Connector, ProxyRefusedError, network_reason, proxy_for, receive, receive_beginning
from pipeline.client.response import HttpResponse, ImagesResponse, read_response
from pipeline.client.timeout import Timeout
from pipeline.errors import NotSent, OutcomeUnknown, RequestError, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from types import SimpleNamespace, TracebackType

    from pipeline.client.request import Body
    from pipeline.config.dialect import Dialect

_CONNECT_SECONDS = 30.0
_IDLE_SECONDS = 1.0
"""How long an idle connection is kept. Servers close one after 2 s (gunicorn), 5 s (node, uvicorn) or more, and the
outcome of a call that is sent at that moment is unknown.
"""

_LARGE = 16 * 2**20  # a body above this is parsed in a thread; this much takes a millisecond or two
_REFUSAL_BYTES = 1024 * 1024  # of an error body that are read: the error is at its beginning


class ImagesClient:
    """Client of one provider, an async context manager. The key is sent to the provider and nowhere else."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        headers: Mapping[str, str],
        *,
        dialect: Dialect,
        threads: Executor,
        timeout: float,
        connections: int,
        max_bytes: int,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.in_flight = 0  # calls that wait for their response
        self._secrets = [secret for secret in (key, *headers.values()) if secret and len(secret) >= 8]
        self._urls = {name: URL(f"{self.base_url}/{path}") % dialect.query for name, path in dialect.paths.items()}
        self._threads = threads
        self._headers = CIMultiDict(dialect.credentials(key))
        self._headers.update(headers)
        self._timeout = timeout
        self._connections = connections
        self._max_bytes = max_bytes
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
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, operation: str, body: Body, sent: Callable[[], None]) -> ImagesResponse:
        """Make one call with a body from `build_body`; `sent` is called when the first bytes are sent.

        Raises NotSent if none was sent, OutcomeUnknown if some were and no complete response came, else the
        RequestError that the response stands for.
        """
        mark = _Mark(sent)
        self.in_flight += 1
        try:
            http = await self._exchange(operation, body, mark)
        except (aiohttp.ClientError, TimeoutError, OSError) as reason:
            raise self._broken(reason, mark) from None
        finally:
            self.in_flight -= 1
        try:
            if len(http.body) > _LARGE:
                return await asyncio.get_running_loop().run_in_executor(self._threads, read_response, http)
            return read_response(http)
        except RequestError as error:
            raise self._scrubbed(error) from None

    async def _exchange(self, operation: str, body: Body, mark: _Mark) -> HttpResponse:
        assert self._session is not None, "use `async with`"
        url = self._urls[operation]
        mark.proxy = proxy = self._proxy(url)
        options: dict[str, Any] = {"allow_redirects": False, "trace_request_ctx": mark, "proxy": proxy}
        async with Timeout(self._timeout), self._session.post(url, **body, **options) as response:
            if 200 <= response.status < 300:
                content = await receive(response, self._max_bytes)
            else:
                content = await receive_beginning(response, _REFUSAL_BYTES)
            if content is None:
                raise self._too_large(response.status)
            forwarded = f"{proxy.host}:{proxy.port}" if proxy and url.scheme == "http" else None
            return HttpResponse(response.status, response.headers, content, str(response.url), forwarded)

    def _too_large(self, status: int) -> Unusable:
        what = f"the response is larger than {self._max_bytes // 2**20} MB, which `download.max_bytes` can allow"
        error = Unusable(what, http_status=status)
        error.deterministic = True
        return error

    def _broken(self, reason: Exception, mark: _Mark) -> NotSent | OutcomeUnknown:
        said = self._scrub(network_reason(reason, mark.proxy))
        if mark.sent_at is None:
            error = NotSent(f"{self.base_url} cannot be reached: {said}", type=type(reason).__name__)
            error.deterministic = isinstance(reason, ProxyRefusedError)
            return error
        after = time.monotonic() - mark.sent_at
        what = "no complete response" if isinstance(reason, TimeoutError) else f"the connection broke ({said})"
        return OutcomeUnknown(f"{what} within {after:.1f} s after the call was sent", type=type(reason).__name__)

    def _scrubbed(self, error: RequestError) -> RequestError:
        error.message = self._scrub(error.message)
        error.args = (error.message,)
        for name in ("type", "code", "param", "request_id"):
            if said := getattr(error, name):
                setattr(error, name, self._scrub(said))
        return error

    def _scrub(self, text: str) -> str:
        """Remove the key from a server's text; some repeat what they were sent."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Mark:
    """Whether, and when, the first bytes of a call were sent."""

    def __init__(self, sent: Callable[[], None]) -> None:
        self._sent = sent
        self.sent_at: float | None = None
        self.proxy: URL | None = None

    def __call__(self) -> None:
        if self.sent_at is None:
            self.sent_at = time.monotonic()
            self._sent()


async def _mark_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx()

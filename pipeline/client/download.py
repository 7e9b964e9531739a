"""Downloads of image URLs: size limits, expiry, and protection against private hosts; the key is never sent."""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from pipeline.client.network import is_public, proxy_for, receive, receive_beginning
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

_CONNECT_SECONDS = 30.0
_SILENT_SECONDS = 60.0  # between two chunks of an image
_TOTAL_SECONDS = 900.0  # in all: a host that sends a byte a minute blocks no request for ever
_REDIRECTS = 5
_REFUSAL_BYTES = 4000  # of an error body that are read: the code is at its beginning


class DownloadFailed(PipelineError):
    """This attempt brought no image. `definite` if the server refused it, as opposed to a network failure.

    `deterministic` if time cannot help, since a rule of this program refuses the URL or its image; `option` is then
    the option that allows it, if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        definite: bool,
        deterministic: bool = False,
        option: str | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.definite = definite
        self.deterministic = deterministic
        self.option = option


class UrlExpired(DownloadFailed):
    """The URL has expired."""


class HostRefused(DownloadFailed):
    """The URL points to a host that a provider may not name."""

    def __init__(self, message: str, *, option: str | None = None) -> None:
        super().__init__(message, definite=True, deterministic=True, option=option)


class Downloader:
    """Downloads images in a session of its own, without the key and without cookies; an async context manager."""

    def __init__(self, *, base_url: str, allow_hosts: Collection[str], max_bytes: int, connections: int) -> None:
        base = URL(base_url)
        self._http_allowed = base.scheme == "http"
        self._trusted = {(base.host or "").lower(), *(host.lower().strip("[]") for host in allow_hosts)}
        self._resolver = _PublicResolver(self._trusted)
        self._max_bytes = max_bytes
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._proxy = functools.cache(proxy_for)
        self._expiries: dict[object, float] = {}

    @property
    def active(self) -> int:
        """Number of downloads in progress, waits between two attempts included."""
        return len(self._expiries)

    @property
    def next_expiry(self) -> float | None:
        """When the first of their URLs expires, in seconds since 1970."""
        return min(self._expiries.values(), default=None)

    @contextlib.contextmanager
    def tracking(self, expires_at: float) -> Iterator[None]:
        """Count a download as in progress until the block ends."""
        one = object()
        self._expiries[one] = expires_at
        try:
            yield
        finally:
            del self._expiries[one]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, resolver=self._resolver),
            headers={"Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=_TOTAL_SECONDS, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def fetch(self, url: str, expires_at: float) -> bytes:
        """Return the bytes at a URL, not validated; `expires_at` is in seconds since 1970. Raises DownloadFailed."""
        try:
            return await self._fetch(_exact(url), expires_at)
        except (aiohttp.InvalidURL, ValueError) as reason:
            raise HostRefused(f"the image URL is invalid: {str(reason).partition('?')[0]}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as reason:
            refused = getattr(reason, "os_error", None)  # aiohttp wraps what a resolver raises
            if isinstance(refused, _PrivateHostError):
                raise HostRefused(str(refused), option=_naming(refused.host)) from None
            said = "timed out" if isinstance(reason, TimeoutError) else str(reason).partition("?")[0]
            raise DownloadFailed(f"the download broke: {said or type(reason).__name__}", definite=False) from None

    async def _fetch(self, url: URL, expires_at: float) -> bytes:
        assert self._session is not None, "use `async with`"
        host = url.host
        for _ in range(_REDIRECTS):
            self._check(url)
            proxy = self._proxy(url.origin())
            if proxy and proxy.host:
                self._resolver.proxies.add(proxy.host.lower())
            async with self._session.get(url, allow_redirects=False, proxy=proxy) as response:
                target = response.headers.get("Location")
                if not (300 <= response.status < 400 and target):
                    return await self._receive(response, expires_at)
            url = url.join(_exact(target))
            if url.host != host:
                raise HostRefused(f"the image URL redirects to another host, {url.host}", option=_naming(url.host))
        raise DownloadFailed("the image URL redirects in a circle", definite=True)

    def _check(self, url: URL) -> None:
        """Refuse another scheme, and names and addresses of this machine or its network."""
        host = (url.host or "").lower()
        if url.scheme not in {"https", "http"} or not re.fullmatch(r"[\w.:%-]+", host):
            raise HostRefused("the image URL is not a web address")
        if url.scheme == "http" and not self._http_allowed:
            raise HostRefused(f"the image URL on {host} is http, and the provider is https")
        if host not in self._trusted and (host in self._resolver.proxies or not is_public(host)):
            raise HostRefused(_private(host), option=_naming(host))

    async def _receive(self, response: aiohttp.ClientResponse, expires_at: float) -> bytes:
        if response.status != 200:
            said = await receive_beginning(response, _REFUSAL_BYTES)
            raise _refusal(response.status, said[:_REFUSAL_BYTES].decode("utf-8", "replace"), expires_at)
        if (response.content_length or 0) > self._max_bytes:
            raise self._too_large()
        content = await receive(response, self._max_bytes)
        if content is None:
            raise self._too_large()
        return content

    def _too_large(self) -> DownloadFailed:
        message = f"the image is larger than download.max_bytes ({self._max_bytes})"
        return DownloadFailed(message, definite=True, deterministic=True, option="`download.max_bytes`")


def expiry(url: str, default: float, *, skew: float = 0.0, now: float | None = None) -> float:
    """Return when a URL expires, in seconds since 1970: as its signature states, else `default` seconds from now.

    Signatures are Azure's (`se`, or `ske` if that is earlier), Amazon's and Google's. Their moments are by the
    server's clock, which is `skew` seconds ahead of the local one.
    """
    try:
        query = {name.lower(): value for name, value in URL(url, encoded=True).query.items()} if "?" in url else {}
    except ValueError:
        query = {}
    stated = [_moment(query.get("se", "")), _moment(query.get("ske", "")), _number(query.get("expires", ""), 10)]
    for vendor in ("x-amz", "x-goog"):
        signed, life = _moment(query.get(f"{vendor}-date", "")), _number(query.get(f"{vendor}-expires", ""), 1)
        stated.append(signed + life if signed is not None and life is not None else None)
    known = [moment for moment in stated if moment is not None]
    return min(known) - skew if known else (time.time() if now is None else now) + default


def _moment(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str, digits: int) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,12}", text) and len(text) >= digits else None


def _exact(url: str) -> URL:
    """Return a URL byte for byte, as signatures cover it; only what no request line can carry is encoded."""
    return URL(re.sub(r"[^!-~]+", lambda found: quote(found[0], errors="replace"), url.strip()), encoded=True)


def _refusal(status: int, text: str, expires_at: float) -> DownloadFailed:
    """Return the error of a status: expired, refused, or a passing failure (Azure's storage answers XML)."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = f"the image host answered {status}" + (f" {code[1]}" if code else "")
    if status >= 500 or status in {408, 425, 429}:
        return DownloadFailed(said, http_status=status, definite=False)
    times = re.search(r"Expiry \[(.+?)\] - Current \[(.+?)\]", text)
    told = "Request has expired" in text or (times is not None and _is_past(times[1], times[2]))  # Amazon's words
    kind = UrlExpired if told or status == 410 or time.time() >= expires_at else DownloadFailed
    return kind(said, http_status=status, definite=True)


def _is_past(expiry_text: str, current_text: str) -> bool:
    """Compare the two moments that the storage states, so that the local clock does not matter."""
    try:
        ends, current = (datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT") for text in (expiry_text, current_text))  # noqa: DTZ007 - both GMT
    except ValueError:
        return False
    return current >= ends


class _PrivateHostError(OSError):
    """A host name resolves to an address of this machine or its network."""

    def __init__(self, host: str) -> None:
        super().__init__(_private(host))
        self.host = host


class _PublicResolver(AbstractResolver):
    """Resolves host names, and refuses those that lead into a private network, except trusted ones."""

    def __init__(self, trusted: Collection[str]) -> None:
        self._trusted = trusted
        self._inner = aiohttp.ThreadedResolver()
        self.proxies: set[str] = (
            set()
        )  # of the environment; they may be in a private network, and are no hosts of images

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        known = host.lower() in self._trusted or host.lower() in self.proxies
        if not known and not all(is_public(result["host"]) for result in found):
            raise _PrivateHostError(host)
        return found

    async def close(self) -> None:
        await self._inner.close()


def _private(host: str) -> str:
    return f"the image URL leads to {host}, which is in a private network; the provider's `picture_hosts` can allow it"


def _naming(host: str | None) -> str | None:
    """Return the option that allows this host."""
    return f"`picture_hosts: [{host}]` of the provider" if host else None

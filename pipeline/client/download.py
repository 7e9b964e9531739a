"""URL → bytes, within size and life, from hosts that a provider may name; the key is never near."""

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
_SILENT_SECONDS = 60.0  # between two pieces of a picture
_TOTAL_SECONDS = 900.0  # for all of it: a host that drips a byte a minute holds nobody up for ever
_REDIRECTS = 5
_REFUSAL_BYTES = 4000  # of what a host says when it refuses: its code stands at the beginning


class DownloadFailed(PipelineError):
    """This try brought no picture. `definite`: the server refused it in so many words, it was not the network."""

    def __init__(self, message: str, *, http_status: int | None = None, definite: bool) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.definite = definite


class UrlDead(DownloadFailed):
    """The URL has died; its picture is gone."""


class HostRefused(DownloadFailed):
    """The URL leads where no provider may send us."""


class Downloader:
    """An async context manager with a session of its own, which knows no key, no cookie and no way around the rules."""

    def __init__(self, *, base_url: str, allow_hosts: Collection[str], most_bytes: int, connections: int) -> None:
        base = URL(base_url)
        self._http_allowed = base.scheme == "http"
        self._trusted = {(base.host or "").lower(), *(host.lower().strip("[]") for host in allow_hosts)}
        self._resolver = _PublicResolver(self._trusted)
        self._most_bytes = most_bytes
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None
        self._proxy = functools.cache(proxy_for)
        self._deaths: dict[object, float] = {}

    @property
    def under_way(self) -> int:
        """Pictures that are being brought, waits between two tries included."""
        return len(self._deaths)

    @property
    def expires_at(self) -> float | None:
        """When the first of their URLs dies, in seconds since 1970."""
        return min(self._deaths.values(), default=None)

    @contextlib.contextmanager
    def bringing(self, expires_at: float) -> Iterator[None]:
        """Count a picture as under way until the block ends."""
        one = object()
        self._deaths[one] = expires_at
        try:
            yield
        finally:
            del self._deaths[one]

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
        """Download a picture's bytes, unchecked; `expires_at` is in seconds since 1970. Raises DownloadFailed."""
        try:
            return await self._fetch(_exact(url), expires_at)
        except (aiohttp.InvalidURL, ValueError) as reason:
            raise HostRefused(f"the picture's URL is none: {str(reason).partition('?')[0]}", definite=True) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as reason:
            refused = getattr(reason, "os_error", None)  # aiohttp wraps what a resolver raises
            if isinstance(refused, _PrivateHostError):
                raise HostRefused(str(refused), definite=True) from None
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
                raise HostRefused(f"the picture's URL redirects to another host, {url.host}", definite=True)
        raise DownloadFailed("the picture's URL redirects in a circle", definite=True)

    def _check(self, url: URL) -> None:
        """Refuse what is not the open web: another scheme, a name or an address of this machine or its network."""
        host = (url.host or "").lower()
        if url.scheme not in {"https", "http"} or not re.fullmatch(r"[\w.:%-]+", host):
            raise HostRefused("the picture's URL is no web address", definite=True)
        if url.scheme == "http" and not self._http_allowed:
            raise HostRefused(f"the picture's URL on {host} is http, and the provider is not", definite=True)
        if host not in self._trusted and (host in self._resolver.proxies or not is_public(host)):
            raise HostRefused(_private(host), definite=True)

    async def _receive(self, response: aiohttp.ClientResponse, expires_at: float) -> bytes:
        if response.status != 200:
            said = await receive_beginning(response, _REFUSAL_BYTES)
            raise _refusal(response.status, said[:_REFUSAL_BYTES].decode("utf-8", "replace"), expires_at)
        if (response.content_length or 0) > self._most_bytes:
            raise self._too_large()
        content = await receive(response, self._most_bytes)
        if content is None:
            raise self._too_large()
        return content

    def _too_large(self) -> DownloadFailed:
        return DownloadFailed(f"the picture is larger than download.max_bytes ({self._most_bytes})", definite=True)


def expiry(url: str, default: float, *, skew: float = 0.0, now: float | None = None) -> float:
    """Give the moment a URL dies: what its signature says (`se`, or `ske` where that is earlier, or the kinds of Amazon
    and Google; on the server's clock, which is `skew` seconds ahead of ours), else `default` seconds from now.
    Seconds since 1970.
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
    """Keep a URL byte for byte, as signers compare it; only what no request line can carry is encoded."""
    return URL(re.sub(r"[^!-~]+", lambda found: quote(found[0], errors="replace"), url.strip()), encoded=True)


def _refusal(status: int, text: str, expires_at: float) -> DownloadFailed:
    """Tell a dead URL from a refusal and both from a hiccup (Azure's storage answers XML; see its error codes)."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = f"the picture's host answered {status}" + (f" {code[1]}" if code else "")
    if status >= 500 or status in {408, 425, 429}:
        return DownloadFailed(said, http_status=status, definite=False)
    times = re.search(r"Expiry \[(.+?)\] - Current \[(.+?)\]", text)
    told = "Request has expired" in text or (times is not None and _is_past(times[1], times[2]))  # Amazon's words
    kind = UrlDead if told or status == 410 or time.time() >= expires_at else DownloadFailed
    return kind(said, http_status=status, definite=True)


def _is_past(expiry_text: str, current_text: str) -> bool:
    """Compare the two moments that the storage names itself, so that no clock of ours matters."""
    try:
        ends, current = (datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT") for text in (expiry_text, current_text))  # noqa: DTZ007 - both GMT
    except ValueError:
        return False
    return current >= ends


class _PrivateHostError(OSError):
    """A name that resolves to an address of this machine or its network."""


class _PublicResolver(AbstractResolver):
    """Resolves names, and refuses those that lead into a private network; trusted hosts excepted."""

    def __init__(self, trusted: Collection[str]) -> None:
        self._trusted = trusted
        self._inner = aiohttp.ThreadedResolver()
        self.proxies: set[str] = set()  # of the environment; they may be anywhere, and are no place for pictures

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        known = host.lower() in self._trusted or host.lower() in self.proxies
        if not known and not all(is_public(result["host"]) for result in found):
            raise _PrivateHostError(_private(host))
        return found

    async def close(self) -> None:
        await self._inner.close()


def _private(host: str) -> str:
    return f"the picture's URL leads to {host}, not on the open net; the provider's `picture_hosts` can allow it"

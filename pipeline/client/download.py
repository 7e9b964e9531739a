"""Downloads of image URLs: size limits, expiry, and protection against private hosts; the key is never sent."""

from __future__ import annotations

import contextlib
import functools
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from yarl import URL

from pipeline.client.image_url import exact_url, is_past
from pipeline.client.limits import HEADER_BYTES, HEADERS
from pipeline.client.network import (
    Connector,
    ends_as_image,
    has_large_headers,
    is_public,
    network_reason,
    proxy_for,
    receive,
    receive_beginning,
)
from pipeline.client.public_resolver import PrivateHostError, PublicResolver, private_host
from pipeline.client.rate_limit_hints import retry_after
from pipeline.client.timeout import Timeout
from pipeline.config.hosts import place_of
from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

    from pipeline.client.secrets import Secrets

_CONNECT_SECONDS = 30.0
_FIRST_CONNECT_SECONDS = 10.0  # of https in place of http: a closed port may be silent
_SILENT_SECONDS = 60.0  # between two chunks of an image
_TOTAL_SECONDS = 900.0  # in all: a host that sends a byte a minute blocks no request for ever
_REDIRECTS = 5
_SUCCESSES = (200, 203)  # the second if a proxy on the way has changed something
_REFUSAL_BYTES = 4000  # of an error body that are read: the code is at its beginning


class DownloadFailed(PipelineError):
    """This attempt brought no image. `definite` if the server refused it, as opposed to a network failure.

    `deterministic` if time cannot help, since a rule of this program refuses the URL or its image; `option` is then
    the option that allows it, if there is one. `retry_after` is for how many seconds the host asks to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        definite: bool,
        deterministic: bool = False,
        option: str | None = None,
        has_service: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.http_status = http_status
        self.has_service = has_service  # false if nothing at the port speaks the URL's protocol, as far as is known
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
    """Downloads images in a session of its own, without the key and without cookies; an async context manager.

    A URL that contains the key is asked for on the provider's own host, and on hosts that are named.
    """

    def __init__(
        self, *, base_url: str, allow_hosts: Collection[str], max_bytes: int, connections: int, secrets: Secrets
    ) -> None:
        base = URL(base_url)
        self._http_allowed = base.scheme == "http"
        self._own_host = (base.host or "").lower()
        self._named = {host.lower().strip("[]") for host in allow_hosts}
        self._secure_hosts: set[str] = set()  # those that served a http URL as https
        self._plain_hosts: set[str] = set()  # named ones that did not
        self._resolver = PublicResolver(self._is_trusted)
        self._max_bytes = max_bytes
        self._connections = connections
        self._secrets = secrets
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
        token = object()
        self._expiries[token] = expires_at
        try:
            yield
        finally:
            del self._expiries[token]

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=Connector(limit=self._connections, resolver=self._resolver),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS,
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
            address = exact_url(self._secrets.restore(url))
            if address != exact_url(url) and not self._is_trusted(address.host or ""):
                raise HostRefused(_with_key(address.host), option=_naming(address.host))
            return await self._follow(address, expires_at)
        except DownloadFailed as failure:  # it may quote a redirect's host, or a word of the answer
            failure.args = (self._secrets.scrub_text(str(failure)),)
            failure.option = failure.option and self._secrets.scrub_text(failure.option)
            raise
        except (aiohttp.InvalidURL, ValueError):  # whose own text may contain the URL
            raise HostRefused("the image URL is invalid") from None

    async def _follow(self, url: URL, expires_at: float) -> bytes:
        """Fetch a URL through redirects on its host, or to hosts that `picture_hosts` names."""
        origin = url.host
        for _ in range(_REDIRECTS):
            found = await self._fetch(url, expires_at)
            if isinstance(found, bytes):
                return found
            self._check(found)
            if found.host != origin and not self._is_named(found.host):
                message = f"the image URL redirects to another host, {found.host}"
                raise HostRefused(message, option=_naming(found.host))
            url = found
        raise DownloadFailed("the image URL redirects in a circle", definite=True)

    async def _fetch(self, url: URL, expires_at: float) -> bytes | URL:
        """Fetch one URL; return its bytes, or the URL to which it redirects.

        A http URL beside a https provider is tried as https first, and as it is only if `picture_hosts` names its host.
        """
        self._check(url)
        host = (url.host or "").lower()
        if url.scheme == "https" or self._http_allowed or host in self._plain_hosts:
            return await self._get(url, expires_at)
        secure = url.with_port(None if url.explicit_port == 80 else url.explicit_port).with_scheme("https")
        try:
            found = await self._get(secure, expires_at, connect_seconds=_FIRST_CONNECT_SECONDS)
        except DownloadFailed as reason:
            if reason.deterministic or isinstance(reason, UrlExpired):
                raise
            if not self._is_named(host):
                raise self._refused(host, reason) from None
        else:
            if found != url:
                self._secure_hosts.add(host)
                return found
            if not self._is_named(host):
                raise self._refused(host, DownloadFailed("it redirects to http", definite=True))
        found = await self._get(url, expires_at)
        self._plain_hosts.add(host)
        return found

    def _refused(self, host: str, reason: DownloadFailed) -> DownloadFailed:
        """Return the error of a http URL that https does not serve: final, unless time may change that."""
        message = f"the image URL on {host} is http, the provider is https, and https does not serve it ({reason})"
        if (reason.definite or not reason.has_service) and host not in self._secure_hosts:
            return HostRefused(message, option=_naming(host))
        wait = reason.retry_after
        return DownloadFailed(
            message, http_status=reason.http_status, definite=False, option=_naming(host), retry_after=wait
        )

    async def _get(self, url: URL, expires_at: float, connect_seconds: float = _CONNECT_SECONDS) -> bytes | URL:
        """Send one request. Raises DownloadFailed."""
        assert self._session is not None, "use `async with`"
        proxy = None
        try:
            proxy = self._proxy(url.origin())
            if proxy and proxy.host:
                self._resolver.proxies.add(proxy.host.lower())
                self._check_behind_proxy(url.host or "")
            options: dict[str, Any] = {"allow_redirects": False, "proxy": proxy}
            options["timeout"] = aiohttp.ClientTimeout(sock_connect=connect_seconds)  # `Timeout` limits the rest
            async with (
                Timeout(_TOTAL_SECONDS, _SILENT_SECONDS) as limit,
                self._session.get(url, **options) as response,
            ):
                target = response.headers.get("Location")
                if 300 <= response.status < 400 and target:
                    return url.join(exact_url(target))
                return await self._receive(response, expires_at, limit)
        except aiohttp.InvalidURL:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as reason:
            refused = getattr(reason, "os_error", None)  # aiohttp wraps what a resolver raises
            if isinstance(refused, PrivateHostError):
                raise HostRefused(str(refused), option=_naming(refused.host)) from None
            text = network_reason(reason, proxy).partition("?")[0]
            if has_large_headers(reason):
                what = f"the response cannot be read: {text}"
                raise DownloadFailed(what, definite=True, deterministic=True) from None
            has_service = not _is_no_service(reason, refused)
            raise DownloadFailed(f"the download broke: {text}", definite=False, has_service=has_service) from None

    def _check(self, url: URL) -> None:
        """Refuse another scheme, and names and addresses of this machine or its network."""
        host = (url.host or "").lower()
        if url.scheme not in {"https", "http"} or not re.fullmatch(r"[\w.:%-]+", host):
            raise HostRefused(
                "the image URL is not a web address; ask for the image itself, by `body: {response_format: b64_json}`"
                " of the provider, or what its server has for that"
            )
        if not self._is_trusted(host) and (host in self._resolver.proxies or not is_public(host)):
            raise HostRefused(private_host(host), option=_naming(host))

    def _check_behind_proxy(self, host: str) -> None:
        """Refuse a name that looks like one of the proxy's own network, since only the proxy resolves it.

        Any other name is left to the proxy and its rules: often no other resolver knows the names of the open net.
        """
        if place_of(host) != "open" and not self._is_trusted(host):
            raise HostRefused(private_host(host), option=_naming(host))

    def _is_trusted(self, host: str) -> bool:
        """Return whether a host may be in a private network: the provider's own, or a named one."""
        return host.lower() == self._own_host or self._is_named(host)

    def _is_named(self, host: str | None) -> bool:
        """Return whether `picture_hosts` or `download.allow_hosts` names a host, itself or as `*.example.org`."""
        name = (host or "").lower()
        return name in self._named or any(
            name.endswith(pattern[1:]) for pattern in self._named if pattern.startswith("*.")
        )

    async def _receive(self, response: aiohttp.ClientResponse, expires_at: float, limit: Timeout) -> bytes:
        if response.status not in _SUCCESSES:
            beginning = await receive_beginning(response, _REFUSAL_BYTES)
            failure = _refusal(response.status, beginning[:_REFUSAL_BYTES].decode("utf-8", "replace"), expires_at)
            failure.retry_after = retry_after(response.headers, time.time())
            raise failure
        if (response.content_length or 0) > self._max_bytes:
            raise self._too_large()
        content = await receive(response, self._max_bytes, ends_as_image, limit.progressed)
        if content is None:
            raise self._too_large()
        return content

    def _too_large(self) -> DownloadFailed:
        message = f"the image is larger than download.max_bytes ({self._max_bytes})"
        return DownloadFailed(message, definite=True, deterministic=True, option="`download.max_bytes`")


def _refusal(status: int, text: str, expires_at: float) -> DownloadFailed:
    """Return the error of a status: expired, refused, or a passing failure (Azure's storage answers XML)."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    message = f"the image host answered {status}" + (f" {code[1]}" if code else "")
    if status >= 500 or status in {408, 425, 429}:
        return DownloadFailed(message, http_status=status, definite=False)
    times = re.search(r"Expiry \[(.+?)\] - Current \[(.+?)\]", text)
    told = "Request has expired" in text or (times is not None and is_past(times[1], times[2]))  # Amazon's words
    kind = UrlExpired if told or time.time() >= expires_at else DownloadFailed
    return kind(message, http_status=status, definite=True)


def _is_no_service(reason: Exception, os_error: OSError | None) -> bool:
    """Return whether a connection failed since nothing at its port speaks this protocol, rather than by accident."""
    silent = (aiohttp.ClientSSLError, aiohttp.ConnectionTimeoutError)
    return isinstance(reason, silent) or isinstance(os_error, ConnectionError | ssl.SSLError)


def _with_key(host: str | None) -> str:
    return f"the image URL contains the key and leads to {host}, which is not the provider's host"


def _naming(host: str | None) -> str | None:
    """Return the option that allows this host."""
    return f"`picture_hosts: [{host}]` of the provider" if host else None

"""Network rules: proxies of the environment, public and private hosts, and response bodies of bounded size.

Proxies are read here because aiohttp's `trust_env` also reads ~/.netrc: if an entry names the host, aiohttp would
refuse to send the key, and would send the entry's password to a download host.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import ipaddress
import math
import os
import re
import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from pydantic_core import from_json
from yarl import URL

from pipeline.client.error_body import plain
from pipeline.client.limits import HEADER_BYTES, HEADERS
from pipeline.client.timeout import Timeout
from pipeline.file_descriptors import PAUSE, WAIT_SECONDS, is_exhausted, none_free

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aiohttp import ClientResponse

QUIET_SECONDS = 5.0
"""Seconds without a byte after which a body that is whole is not waited for any longer."""

REFUSAL_SECONDS = 15.0
"""Seconds in which an error body is read."""

_STARTS_OF_KEEP_ALIVES = b": \t\r\n"
_EMBEDDING = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))  # the last 32 bits are IPv4


class Connector(aiohttp.TCPConnector):
    """Waits for a file descriptor if none is free, as long as `file_descriptors.when_free`, instead of failing."""

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        """Return a connection from the pool, or a new one. Raises ClientConnectorError."""
        give_up = None
        while True:
            try:
                return await super().connect(*args, **options)
            except aiohttp.ClientConnectorError as reason:
                give_up = give_up or time.monotonic() + WAIT_SECONDS
                if time.monotonic() >= give_up or not (is_exhausted(reason) or none_free()):
                    raise
            await asyncio.sleep(PAUSE)


class ProxyRefusedError(OSError):
    """A proxy of the environment that cannot be used."""


def proxy_for(url: URL) -> URL | None:
    """Return the proxy of the environment for a URL; None for a direct connection, as to loopback and `NO_PROXY`.

    `HTTPS_PROXY` or `HTTP_PROXY` is used, else `ALL_PROXY`. Raises ProxyRefusedError for one that does not speak HTTP.
    """
    host, stated = (url.host or "").lower().rstrip("."), getproxies()
    name = next((name for name in (url.scheme, "all") if stated.get(name)), None)
    if name is None or _is_loopback(host) or _is_bypassed(host, url.port, stated.get("no", "")) or proxy_bypass(host):
        return None
    variable = next(
        (spelling for spelling in (f"{name}_proxy", f"{name.upper()}_PROXY") if spelling in os.environ), "the proxy"
    )
    try:
        proxy = URL(stated[name] if "://" in stated[name] else f"http://{stated[name]}")
        is_valid = bool(proxy.host) and proxy.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ProxyRefusedError(f"{variable} of the environment is not a URL; write it like http://proxy.example:3128")
    if proxy.scheme not in {"http", "https"}:
        other = "HTTPS_PROXY" if url.scheme == "https" else "HTTP_PROXY"
        raise ProxyRefusedError(
            f"{variable} of the environment names a {plain(proxy.scheme, 20)} proxy, and only http proxies are "
            f"understood: name an http proxy in {other}, or the host in NO_PROXY, or unset {variable}"
        )
    return proxy


def _is_bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    """Return whether `NO_PROXY` names a host: names with their subdomains, addresses, CIDR, `*` and ports."""
    address = _address(host)
    for entry in re.split(r"[\s,;]+", no_proxy.lower()):
        name, _, number = entry.rpartition(":") if re.fullmatch(r"[^:]+:\d+|\[.*\]:\d+", entry) else (entry, "", "")
        name = name.strip("[]").rstrip(".")
        if not name or (number and number != str(port)):
            continue
        if address is not None and "*" not in name:
            with contextlib.suppress(ValueError):
                if address in ipaddress.ip_network(name.partition("%")[0], strict=False):
                    return True
        elif fnmatch.fnmatchcase(host, name) or f".{host}".endswith(f".{name.lstrip('.')}"):
            return True
    return False


def network_reason(reason: Exception, proxy: URL | None = None) -> str:
    """Return why a connection failed, as text for a message; a proxy's error is named as that, without its password."""
    through = f"the proxy {proxy.host}:{proxy.port}" if proxy else "the proxy"
    if isinstance(reason, TimeoutError):
        return f"timed out through {through}" if proxy else "timed out"
    if isinstance(reason, aiohttp.ClientHttpProxyError):  # its text contains the proxy's password
        wants = "; it wants a user and a password in its URL" if reason.status == 407 else ""
        return f"through {through}: the proxy answered {reason.status}{wants}"
    if isinstance(reason, aiohttp.ClientProxyConnectionError):
        return f"{through} cannot be reached ({reason.os_error.strerror or type(reason.os_error).__name__})"
    if has_large_headers(reason):
        return f"it has a header of more than {HEADER_BYTES // 1024} KB, or more than {HEADERS} headers"
    if is_compressed_unasked(reason):
        return "it is compressed in a way that was not asked for"
    if isinstance(reason, aiohttp.ClientPayloadError):  # aiohttp's text explains its own parser
        return "the response ended before it was complete, or cannot be decompressed"
    if isinstance(reason, aiohttp.ClientResponseError):  # aiohttp's text repeats what the server sent
        return "what the server sent is not valid HTTP"
    if isinstance(reason, aiohttp.ServerDisconnectedError):  # the same
        return "the server closed the connection"
    if isinstance(reason, aiohttp.ClientSSLError | ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(reason):
        return "nothing speaks TLS at this port"
    if isinstance(reason, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return f"its certificate is not accepted ({reason})"
    text = str(reason).replace(" ssl:default", "").replace("[None]", "[closed]") or type(reason).__name__
    return f"through {through}: {text}" if proxy else text


def has_large_headers(reason: BaseException | None) -> bool:
    """Return whether a response was refused since its headers are too large or too many."""
    return any(
        isinstance(cause, LineTooLong) or "Too many headers" in str(getattr(cause, "message", ""))
        for cause in _causes(reason)
    )


def is_compressed_unasked(reason: BaseException | None) -> bool:
    """Return whether a response was refused since nothing here can decompress it, as brotli or zstd."""
    return any(isinstance(cause, ContentEncodingError) and "install" in str(cause) for cause in _causes(reason))


def _causes(reason: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, then what caused it, and so on."""
    while reason is not None:
        yield reason
        reason = reason.__cause__


def is_public(host: str) -> bool:
    """Return whether an address is public; a name is, until it is resolved, unless it names this machine."""
    address = _address(host)
    if address is None:  # a name, or what only resolvers accept as an address: 127.1, 0177.0.0.1, 2130706433, 0x7f.1
        number = re.search(r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)\.?$", host)
        return not number and not _is_loopback(host)
    return address.is_global and not address.is_multicast and not getattr(address, "is_site_local", False)


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else f".{host.rstrip('.')}".endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; an IPv6 one that embeds an IPv4 one (mapped, 6to4, NAT64, ::a.b.c.d) is returned as that."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and not address.is_loopback and any(address in net for net in _EMBEDDING):
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return embedded or address


async def receive(
    response: ClientResponse,
    max_bytes: int,
    is_whole: Callable[[bytes, bool], bool],
    progressed: Callable[[], None] | None = None,
    pieces: list[bytes] | None = None,
) -> bytes | None:
    """Return a response's body; None if it is larger than `max_bytes`, and the connection is closed then.

    A body that `is_whole` counts although its framing says that more is to come: if the connection has ended (then its
    second argument is true), or if nothing but keep-alives has arrived for a while. `progressed` is called with each
    piece that arrives, and `pieces` receives it, for a caller whose own timeout ends the wait. Raises ClientError,
    TimeoutError and OSError, as aiohttp does.
    """
    pieces = [] if pieces is None else pieces
    size, is_untested = 0, False
    while True:
        quiet = Timeout(math.inf, silence=QUIET_SECONDS)
        try:
            async with quiet:
                while piece := await response.content.readany():
                    size += len(piece)
                    if not is_keep_alive(piece):
                        is_untested = True
                        quiet.progressed()
                    if progressed is not None:
                        progressed()
                    if size > max_bytes:
                        response.close()
                        return None
                    pieces.append(piece)
                return b"".join(pieces)
        except (aiohttp.ClientError, OSError):
            has_ended = not quiet.expired()
            if (has_ended or is_untested) and is_whole(content := b"".join(pieces), has_ended):
                response.close()
                return content
            if has_ended:
                raise
            is_untested = False  # megabytes are parsed once, however long keep-alives follow


def is_keep_alive(piece: bytes) -> bool:
    """Return whether a piece of a body is nothing but white space and whole comments of a stream of events."""
    if piece[:1] not in _STARTS_OF_KEEP_ALIVES:
        return False  # megabytes of an image have thousands of lines
    lines = piece.splitlines(keepends=True)
    return all(not line.strip() or (line.startswith(b":") and line.endswith((b"\n", b"\r"))) for line in lines)


def is_json(body: bytes) -> bool:
    """Return whether a body is a complete JSON object or list."""
    if not body.rstrip().endswith((b"}", b"]")):
        return False
    try:
        from_json(body)
    except ValueError:
        return False
    return True


def ends_as_image(body: bytes, _has_ended: bool) -> bool:
    """Return whether a body ends as a complete PNG, JPEG, GIF or WebP does. It is not decoded here."""
    if body.startswith(b"RIFF"):
        return len(body) == int.from_bytes(body[4:8], "little") + 8
    kinds = ((b"\x89PNG", b"IEND\xaeB`\x82"), (b"\xff\xd8\xff", b"\xff\xd9"), (b"GIF8", b"\0;"))
    return any(body.startswith(start) and body.endswith(end) for start, end in kinds)


async def receive_beginning(response: ClientResponse, max_bytes: int) -> bytes:
    """Return the beginning of an error body, about `max_bytes`: the status matters, whatever fails after it.

    A body that does not end is read for a while only.
    """
    content = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with Timeout(REFUSAL_SECONDS):
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > max_bytes:
                    break
            else:
                return bytes(content)
    response.close()
    return bytes(content)

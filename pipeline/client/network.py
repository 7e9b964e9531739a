"""Network rules: proxies of the environment, public and private hosts, and response bodies of bounded size.

Proxies are read here because aiohttp's `trust_env` also reads ~/.netrc: if an entry names the host, aiohttp would
refuse to send the key, and would send the entry's password to a download host.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

if TYPE_CHECKING:
    from aiohttp import ClientResponse

_EMBEDDING = (ipaddress.IPv6Network("::/96"), ipaddress.IPv6Network("64:ff9b::/96"))  # the last 32 bits are IPv4


def proxy_for(url: URL) -> URL | None:
    """Return the proxy of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`; None for a direct connection, as to loopback.

    Raises OSError for a proxy that does not speak HTTP.
    """
    host = url.host or ""
    stated = getproxies().get(url.scheme)
    if not stated or _is_loopback(host) or proxy_bypass(host):
        return None
    proxy = URL(stated if "://" in stated else f"http://{stated}")
    if proxy.scheme not in {"http", "https"}:
        raise OSError(f"the proxy of the environment speaks {proxy.scheme}, and only http is understood")
    return proxy


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


async def receive(response: ClientResponse, max_bytes: int) -> bytes | None:
    """Return a response's body; None if it is larger than `max_bytes`, and the connection is closed then.

    Raises ClientError, TimeoutError and OSError, as aiohttp does.
    """
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > max_bytes:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)


async def receive_beginning(response: ClientResponse, max_bytes: int) -> bytes:
    """Return the beginning of an error body, about `max_bytes`: the status matters, whatever fails after it."""
    content = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > max_bytes:
                response.close()
                break
    return bytes(content)

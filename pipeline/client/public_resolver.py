"""Resolve the host names of image URLs, and refuse those that lead into a private network."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from pipeline.client.network import is_public

if TYPE_CHECKING:
    from collections.abc import Callable


class PrivateHostError(OSError):
    """A host name resolves to an address of this machine or its network."""

    def __init__(self, host: str) -> None:
        super().__init__(private_host(host))
        self.host = host


class PublicResolver(AbstractResolver):
    """Resolves host names, and refuses those that lead into a private network, except trusted ones."""

    def __init__(self, is_trusted: Callable[[str], bool]) -> None:
        self._is_trusted = is_trusted
        self._inner = aiohttp.ThreadedResolver()
        self.proxies: set[str] = set()
        """Proxies of the environment; they may be in a private network, and are no hosts of images."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises PrivateHostError."""
        found = await self._inner.resolve(host, port, family)
        known = self._is_trusted(host) or host.lower() in self.proxies
        if not known and not all(is_public(result["host"]) for result in found):
            raise PrivateHostError(host)
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def private_host(host: str) -> str:
    """Return what is wrong with an image URL that leads to this host, which is in a private network."""
    return f"the image URL leads to {host}, which is in a private network; the provider's `picture_hosts` can allow it"

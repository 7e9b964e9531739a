"""An HTTP response → the bytes of its body, within a bound."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp import ClientResponse


async def receive(response: ClientResponse, most: int) -> bytes | None:
    """Read a body; None where it is larger than `most` bytes, and the connection is closed then.

    Raises ClientError, TimeoutError and OSError, as aiohttp does.
    """
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > most:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)


async def receive_beginning(response: ClientResponse, most: int) -> bytes:
    """Read what there is of a refusal, about `most` bytes of it: its status says enough, whatever breaks after."""
    content = bytearray()
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > most:
                response.close()
                break
    return bytes(content)

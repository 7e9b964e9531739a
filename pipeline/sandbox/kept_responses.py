"""Keep the responses that were charged by the idempotency key of their calls: the same call is not made again.

They are files of the spool, so that the next sandbox has them. The service documents no such keys; others do, and none
agrees with the next. The mark of a replay is Stripe's, the refusal of a key with another body the IETF draft's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

REPLAYED: Final = {"Idempotent-Replayed": "true"}


class KeptResponses:
    """The responses in one folder. Keys are names of any length, so files are called by their hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def alone(self, key: str) -> AsyncIterator[None]:
        """Hold a key for the block: a call waits until an earlier one with its key has ended."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._locks[key], self._users[key]

    def find(self, key: str, call: str) -> Response | None:
        """Return the response that is kept for a key, marked as a replay; `call` is the digest of the call.

        Raises ApiError if it is the response to another call.
        """
        try:
            head, _, content = self._path(key).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        kept = json.loads(head)
        if kept["call"] != call:
            raise errors.key_of_another_call(key)
        return Response(kept["status"], kept["content_type"], (content,), {**kept["headers"], **REPLAYED})

    def keep(self, key: str, call: str, response: Response) -> Response:
        """Write a response down, whole or not at all, and return it in one piece."""
        content, path = b"".join(response.chunks), self._path(key)
        head = {"call": call, "status": response.status, "content_type": response.content_type}
        part = path.with_suffix(".part")
        part.parent.mkdir(mode=0o700, exist_ok=True)
        part.write_bytes(json.dumps({**head, "headers": response.headers}).encode() + b"\n" + content)
        part.replace(path)
        return replace(response, chunks=(content,))

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()

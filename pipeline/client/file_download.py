"""Download of a file of the Files API: streamed to disk, continued after a cut, and compared with the stated size."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import re
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.client.timeout import Timeout
from pipeline.errors import PipelineError, TryAgain, Unusable
from pipeline.files import GrowingFile, disk_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aiohttp import ClientResponse
    from yarl import URL

    from pipeline.client.session import ApiSession

_TRIES = 6  # in a row that bring no byte beyond those that came before
_FIRST_WAIT, _LONGEST_WAIT = 0.25, 30.0  # seconds between two tries
_RANGE = re.compile(r"bytes (?:(?P<start>[0-9]{1,18})-[0-9]{1,18}|\*)/(?P<total>[0-9]{1,18}|\*)")


class FileGone(PipelineError):
    """The service has no file with this id, or no longer."""


class FileDownload:
    """One download. What has come stays in `<path>.part`, and the next download to the same path continues it."""

    def __init__(
        self, session: ApiSession, url: URL, path: Path, *, expected_bytes: int | None, idle_seconds: float, mode: int
    ) -> None:
        self._session = session
        self._url = url
        self._folder = path.parent
        self._file = GrowingFile(path, mode)
        self._expected = expected_bytes or None  # a file of 0 bytes is one whose size is not stated
        self._idle_seconds = idle_seconds
        self._etag: str | None = None
        self._total: int | None = None  # bytes that the response announces
        self._is_at_end = False  # the response ended, and was not cut

    async def run(self) -> None:
        """Download the file, and try again after a failure until `_TRIES` in a row have brought nothing new.

        Raises FileGone, DiskFull, and the RequestError of the last try.
        """
        try:
            await self._on_disk(self._file.open)
            await self._fill()
            await self._on_disk(self._file.finish)
        finally:
            self._file.close()

    async def _fill(self) -> None:
        backoff, failures, furthest = Backoff(_FIRST_WAIT, _LONGEST_WAIT), 0, self._file.size
        while not self._is_whole():
            try:
                await self._fetch()
                reason: TryAgain = Unusable(f"the response ended after {self._said(self._file.size)}")
            except TryAgain as error:
                reason = error
            if self._is_whole():
                return
            if self._file.size > furthest:
                furthest, failures = self._file.size, 0
                backoff.reset()
            else:
                failures += 1
            if failures == _TRIES or reason.deterministic:
                raise reason
            await asyncio.sleep(max(reason.retry_after or 0.0, backoff.next()))

    def _is_whole(self) -> bool:
        if self._expected is not None:
            return self._file.size == self._expected
        return self._is_at_end and self._total in {None, self._file.size}

    async def _fetch(self) -> None:
        """Ask for what is missing, and append it. Raises FileGone, DiskFull, and RequestError."""
        self._is_at_end = False
        limit, size = Timeout(math.inf, self._idle_seconds), self._file.size
        statuses = (404, 416) if size else (404,)
        async with self._session.stream(self._url, limit, self._headers(), statuses) as response:
            if response.status == 404:
                raise FileGone(f"the service has no file {self._url.parent.name}, or no longer")
            if response.status == 416:
                await self._compare(response)
                return
            await self._begin(response)
            async for piece in response.content.iter_any():
                await self._on_disk(functools.partial(self._file.append, piece))
                limit.progressed()
                if self._file.size > (self._expected or math.inf):
                    raise await self._start_anew(f"the response is longer than {self._said(self._file.size)}")
            self._is_at_end = True

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self._file.size:
            headers["Range"] = f"bytes={self._file.size}-"
            if self._etag is not None:
                headers["If-Range"] = self._etag
        return headers

    async def _begin(self, response: ClientResponse) -> None:
        """Find out which bytes of the file follow; a whole one replaces what there is. Raises Unusable."""
        if response.status not in {200, 206} or response.content_type == "text/html":
            what = f"answered {response.status} ({response.content_type:.60}) in place of a file"
            raise Unusable(f"the server {what}", http_status=response.status)
        is_plain = response.headers.get("Content-Encoding", "identity") == "identity"
        if response.status == 206:
            found = _RANGE.match(response.headers.get("Content-Range", ""))
            if not is_plain or found is None or found["start"] != str(self._file.size):
                raise await self._start_anew("the server sent another part of the file than was asked for")
            self._total = int(found["total"]) if found["total"] != "*" else None
        else:
            if self._file.size:
                await self._on_disk(functools.partial(self._file.cut, 0))
            self._total = response.content_length if is_plain else None
        etag = response.headers.get("ETag", "")
        self._etag = etag if is_plain and etag.startswith('"') else None  # a weak one does not compare bytes

    async def _compare(self, response: ClientResponse) -> None:
        """Learn from a refused range whether all bytes are here. Raises Unusable if they are not."""
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        self._total = int(found["total"]) if found and found["total"] != "*" else None
        self._is_at_end = self._total == self._file.size
        if not self._is_whole():
            raise await self._start_anew(f"the server has nothing after {self._said(self._file.size)}")

    async def _start_anew(self, why: str) -> Unusable:
        """Remove what has come, and return the error that says why."""
        await self._on_disk(functools.partial(self._file.cut, 0))
        return Unusable(why)

    def _said(self, size: int) -> str:
        stated = self._expected or self._total
        return f"{size} bytes" if stated is None else f"{size} of {stated} bytes"

    async def _on_disk(self, action: Callable[[], None]) -> None:
        """Do what reads or writes the file, to its end even if the task is cancelled meanwhile. Raises DiskFull."""
        work = asyncio.ensure_future(asyncio.to_thread(action))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            while not work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            work.exception()
            raise
        except OSError as reason:
            raise disk_error(reason, self._folder) from None

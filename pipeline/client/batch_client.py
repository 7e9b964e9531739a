"""Client of the Files API and the Batch API of one provider; none of its calls is repeated by itself."""

from __future__ import annotations

import asyncio
import math
import os
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote

import aiohttp

from pipeline.client.batch_objects import batch_of, file_of, moment, read_batch, read_file, read_page
from pipeline.client.file_download import FileDownload
from pipeline.client.limits import OBJECT_BYTES
from pipeline.client.response import read_error
from pipeline.errors import Invalid, Unusable
from pipeline.file_descriptors import when_free

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container, Mapping
    from pathlib import Path

    from yarl import URL

    from pipeline.client.batch_objects import RemoteBatch, RemoteFile
    from pipeline.client.response import HttpResponse
    from pipeline.client.session import ApiSession
    from pipeline.config.dialect import Dialect

_T = TypeVar("_T")
_LARGE = 2**20  # a body above this is parsed in a thread
_SECONDS = 120.0  # of a call without a file, at most
_SLOWEST = 100_000  # bytes a second of an upload that is not given up
_FILES_PER_PAGE = 1000
_BATCHES_PER_PAGE = 100
_MOST_PAGES = 10_000  # a million batches


class BatchClient:
    """Makes the calls of the Files API and the Batch API in a provider's session.

    Each call raises NotSent if it was not sent, OutcomeUnknown if it was and no complete response came, Unusable if a
    success response cannot be understood, and else the RequestError that the response means.
    """

    def __init__(self, session: ApiSession, dialect: Dialect) -> None:
        self._session = session
        self._query = dialect.query

    async def upload(
        self,
        path: Path,
        name: str,
        purpose: Literal["batch", "vision"],
        content_type: str,
        expires_seconds: int | None,
    ) -> RemoteFile:
        """Upload a file from disk, in constant memory. Raises Invalid if it cannot be read."""
        form = aiohttp.FormData({"purpose": purpose})
        if expires_seconds is not None:
            form.add_field("expires_after[anchor]", "created_at")
            form.add_field("expires_after[seconds]", str(expires_seconds))
        try:
            file = await asyncio.to_thread(when_free, lambda: path.open("rb"))
        except OSError as reason:
            raise Invalid(f"{path} cannot be read: {reason.strerror}; submit the job again") from None
        with file:
            form.add_field("file", file, filename=name, content_type=content_type)
            seconds = self._session.timeout + os.fstat(file.fileno()).st_size / _SLOWEST
            return read_file(await self._call("POST", self._url("files"), timeout=seconds, data=form))

    async def find_file(self, name: str, purpose: str, since: float) -> RemoteFile | None:
        """Return the file of this name that was uploaded after `since` (seconds since 1970); None if there is none."""
        async for found in self.list_files(purpose, since):
            if found.name == name:
                return found
        return None

    async def list_files(self, purpose: str, since: float) -> AsyncIterator[RemoteFile]:
        """Yield the files of a purpose that were uploaded after `since` (seconds since 1970)."""
        query = {"purpose": purpose, "limit": str(_FILES_PER_PAGE)}
        async for item in self._list("files", query, since):
            if (found := file_of(item)) is not None:
                yield found

    async def get_file(self, file_id: str) -> RemoteFile | None:
        """Return a file's object; None if the service has none with this id."""
        http = await self._call("GET", self._url("files", file_id))
        return None if http.status == 404 else read_file(http)

    async def delete_file(self, file_id: str) -> None:
        """Delete a file; one that the service does not have is no error."""
        http = await self._call("DELETE", self._url("files", file_id))
        if http.status != 404 and not 200 <= http.status < 300:
            raise read_error(http)

    async def delete_named(self, names: Container[str], purpose: str, since: float) -> set[str]:
        """Delete the files of these names that were uploaded after `since`; return the names that were there."""
        found = [file async for file in self.list_files(purpose, since) if file.name in names]
        for file in found:
            await self.delete_file(file.id)
        return {file.name for file in found}

    async def download(
        self, file_id: str, path: Path, expected_bytes: int | None, *, idle_seconds: float, mode: int = 0o600
    ) -> None:
        """Download a file to `path`, which is there once it is whole; until then it grows under `<path>.part`.

        The next call with the same path continues it. `expected_bytes` are those of the file's object. The download
        ends if nothing comes for `idle_seconds`, again and again. The umask applies to `mode`.

        Raises FileGone if the service does not have the file, and DiskFull.
        """
        url = self._url("files", file_id, "content")
        await FileDownload(
            self._session, url, path, expected_bytes=expected_bytes, idle_seconds=idle_seconds, mode=mode
        ).run()

    async def create(
        self, input_file_id: str, endpoint: str, metadata: Mapping[str, str], on_sent: Callable[[], None]
    ) -> RemoteBatch:
        """Create a batch; `on_sent` is called when the first bytes are sent."""
        body = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": dict(metadata),
        }
        return read_batch(await self._call("POST", self._url("batches"), sent=on_sent, json=body))

    async def get_batch(self, batch_id: str) -> RemoteBatch | None:
        """Return a batch; None if the service has none with this id."""
        http = await self._call("GET", self._url("batches", batch_id))
        return None if http.status == 404 else await _parsed(read_batch, http)

    async def list_batches(self, since: float) -> AsyncIterator[RemoteBatch]:
        """Yield the batches that were created after `since` (seconds since 1970, by the service's clock)."""
        async for item in self._list("batches", {"limit": str(_BATCHES_PER_PAGE)}, since):
            if (found := batch_of(item)) is not None:
                yield found

    async def cancel(self, batch_id: str) -> RemoteBatch | None:
        """Cancel a batch; None if it has ended, or if the service has none with this id: `get_batch` tells which."""
        http = await self._call("POST", self._url("batches", batch_id, "cancel"))
        return None if http.status in {404, 409} else await _parsed(read_batch, http)

    async def _list(self, path: str, query: Mapping[str, str], since: float) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the objects of all pages of a list that were created after `since`.

        A list that is sorted with the newest first is read up to the first page with an older one, any other to its
        end: who finds nothing must have seen all. Raises Unusable if it has no end.
        """
        after: str | None = None
        known: set[str | None] = {None}
        last, is_newest_first = math.inf, True
        for _ in range(_MOST_PAGES):
            http = await self._call("GET", self._url(path, query={**query, **({"after": after} if after else {})}))
            if http.status == 404 and after:  # the object was deleted meanwhile: the path is right
                raise Unusable("the list changed while it was read", http_status=404, request_id=http.request_id)
            page = await _parsed(read_page, http)
            for item in page.items:
                created = moment(item.get("created_at"))
                if created is not None:
                    is_newest_first, last = is_newest_first and created <= last, created
                if created is None or created >= since:
                    yield item
            after = page.after
            if after is None or (is_newest_first and last < since):
                return
            if after in known:
                break
            known.add(after)
        raise Unusable(f"the list at {path} does not end")

    def _url(self, *steps: str, query: Mapping[str, str] | None = None) -> URL:
        path = "/".join(quote(step, safe="") for step in steps)
        return self._session.url(path, {**self._query, **(query or {})})

    async def _call(
        self,
        method: str,
        url: URL,
        *,
        sent: Callable[[], None] | None = None,
        timeout: float | None = None,
        **body: Any,
    ) -> HttpResponse:
        seconds = min(_SECONDS, self._session.timeout) if timeout is None else timeout
        return await self._session.request(method, url, max_bytes=OBJECT_BYTES, sent=sent, timeout=seconds, **body)


async def _parsed(read: Callable[[HttpResponse], _T], http: HttpResponse) -> _T:
    return await asyncio.to_thread(read, http) if len(http.body) > _LARGE else read(http)

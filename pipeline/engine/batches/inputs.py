"""Input images of batches: each is uploaded once, and lines refer to it by the id of its file at the service."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

from pipeline.engine.batches.unpaid_retry import UnpaidRetry
from pipeline.errors import Invalid, RequestError, first_error
from pipeline.ledger import uploaded_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pipeline.engine.batches.context import BatchContext
    from pipeline.ledger.queue import QueuedRequest

_EXPIRES_SECONDS = 3 * 24 * 3600
_LEAST_LEFT = 26 * 3600  # a batch may take 24 hours from now
_LONGEST_AGO = 4 * 24 * 3600  # that a file which still exists was uploaded
_AT_ONCE, _A_MINUTE = 8, 900  # of 1,000 uploads a minute that the service allows


class UploadedImages:
    """The input images of one provider's batches, at the service and in the ledger."""

    def __init__(self, context: BatchContext) -> None:
        self._context = context
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._pace = AsyncLimiter(_A_MINUTE, 60)
        self._uploading: dict[str, asyncio.Lock] = {}

    async def file_ids(
        self, requests: Iterable[QueuedRequest], is_over: Callable[[], bool]
    ) -> tuple[dict[str, str], dict[str, Invalid]]:
        """Return the ids of the files of all input images, by hash, and why others cannot be read.

        Those that the service lacks are uploaded. Raises Withdrawn once `is_over`, and what an upload raises.
        """
        wanted = {
            image["sha256"]: (f"{request.job_name}/{image['file']}", image["content_type"])
            for request in requests
            for image in request.inputs
        }
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    sha256: group.create_task(self._file_id(sha256, *image, is_over), name=f"upload {sha256[:8]}")
                    for sha256, image in wanted.items()
                }
        except BaseExceptionGroup as reasons:
            raise first_error(reasons) from None
        found = {sha256: task.result() for sha256, task in tasks.items()}
        return (
            {sha256: file_id for sha256, file_id in found.items() if isinstance(file_id, str)},
            {sha256: error for sha256, error in found.items() if isinstance(error, Invalid)},
        )

    async def _file_id(self, sha256: str, file: str, content_type: str, is_over: Callable[[], bool]) -> str | Invalid:
        async with self._uploading.setdefault(sha256, asyncio.Lock()):
            provider, writer = self._context.provider.name, self._context.writer
            known = await writer.do(uploaded_files.find, provider, sha256)
            if known is not None and known.id is not None and known.is_good_until(time.time() + _LEAST_LEFT):
                return known.id
            async with self._slots:
                return await self._upload(sha256, file, content_type, known, UnpaidRetry(self._context, is_over))

    async def _upload(
        self,
        sha256: str,
        file: str,
        content_type: str,
        known: uploaded_files.InputAtService | None,
        unpaid_retry: UnpaidRetry,
    ) -> str | Invalid:
        """Upload an image; first look for one whose upload nobody knows the end of, by its unique name."""
        context, provider = self._context, self._context.provider.name
        path = context.output / file
        name = known.name if known is not None and known.id is None else None
        while True:
            try:
                found = (
                    None if name is None else await context.client.find_file(name, "vision", time.time() - _LONGEST_AGO)
                )
                if found is None:
                    name = f"{secrets.token_hex(8)}-{path.name}"
                    await context.writer.do(uploaded_files.begin, provider, sha256, name, time.time())
                    await self._pace.acquire()
                    found = await context.client.upload(
                        path, name, "vision", content_type=content_type, expires_seconds=_EXPIRES_SECONDS
                    )
            except RequestError as error:
                if isinstance(error, Invalid) and error.http_status is None:  # the image cannot be read
                    await context.writer.do(uploaded_files.withdraw, provider, sha256)
                    return error
                await unpaid_retry.wait(error)
                continue
            expires_at = found.expires_at or time.time() + _EXPIRES_SECONDS
            await context.writer.do(uploaded_files.record, provider, sha256, found.id, expires_at)
            return found.id

    async def delete_unneeded(self) -> None:
        """Delete the files that no living batch and no pending request needs; those that cannot be deleted expire."""
        unneeded: Mapping[str, str | None] = await self._context.writer.do(
            uploaded_files.forget_unneeded, self._context.provider.name
        )
        for file_id in unneeded.values():
            if file_id is not None:
                with contextlib.suppress(RequestError):
                    await self._context.client.delete_file(file_id)
        lost = {name for name, file_id in unneeded.items() if file_id is None}  # their uploads had no answer
        if lost:
            with contextlib.suppress(RequestError):
                await self._context.client.delete_named(lost, "vision", time.time() - _LONGEST_AGO)

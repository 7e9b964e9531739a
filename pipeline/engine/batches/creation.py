"""Creation of one batch: its input file is written and uploaded, then the batch is created at the service, once.

The order of records makes that nothing is bought twice: the batch with its lines, the name of its file, the file's id,
the call that creates it, its id. A create of which nobody knows the end is looked for in the service's list.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING, NoReturn

from pipeline.engine.batches.lines import custom_id, endpoint_of, input_line
from pipeline.engine.batches.unpaid_retry import UnpaidRetry
from pipeline.engine.events import RequestEnded
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import (
    Invalid,
    NotSent,
    OutcomeUnknown,
    QuotaSpent,
    RequestError,
    ServerFault,
    Unusable,
)
from pipeline.files import disk_error, make_folder, write_whole
from pipeline.ledger import batch_lines, batches, uploaded_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pipeline.client.batch_objects import RemoteBatch
    from pipeline.engine.batches.context import BatchContext
    from pipeline.engine.batches.drafts import DraftLine
    from pipeline.engine.batches.inputs import UploadedImages
    from pipeline.ledger.batches import BatchRow
    from pipeline.ledger.uploaded_files import LostInput

MOST_LOOKS = 3
"""Looks at the service's list without a batch, before it is created again."""

_HELD_SECONDS = 1.0  # between two looks at whether the provider is still held
_TRIES = 5  # of a create that the service refuses since it does not see the input file yet
_EXPIRES_SECONDS = 3 * 24 * 3600  # of an input file that nobody deletes
_CLOCKS = 24 * 3600.0  # seconds by which two clocks may differ
_LISTED_SECONDS = 3600.0  # after the start of an upload, in which its file is in the service's list at the latest
_CLIENT_CLOSED = frozenset({444, 460, 499})  # of gateways that lost the caller: the call may go on behind them
_CANNOT_FIND = re.compile(r"cannot find file", re.IGNORECASE)
_TOO_LARGE = re.compile(r"too large", re.IGNORECASE)
_FILE_ID = re.compile(r"\bfile-[A-Za-z0-9_-]{1,100}")
_MOST_FILES = 5  # named by a message, that are looked for


class TooLargeError(Exception):
    """The service refuses an input file for its size, as `reason` says."""

    def __init__(self, reason: RequestError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class FileNotSeenError(Exception):
    """The service does not know a file that was uploaded, as `reason` says: it is to be uploaded anew."""

    def __init__(self, reason: RequestError) -> None:
        super().__init__(reason.message)
        self.reason = reason


def cannot_find_file(message: str) -> bool:
    """Return whether a message says that the service does not see a file."""
    return _CANNOT_FIND.search(message) is not None


class Creation:
    """The creation of one batch. `folder` is where files of batches lie while they are needed."""

    def __init__(self, context: BatchContext, row: BatchRow, folder: Path) -> None:
        self._context = context
        self._row = row
        self._path = folder / row.input_name
        self._since = time.time() - _CLOCKS
        self._looked_at = 0.0  # when the last look at the service's list began

    def _is_over(self) -> bool:
        """Whether the batch is not to be sent any more."""
        return self._context.modes.is_cancelled(self._row.job_pk)

    async def upload(self, lines: Sequence[tuple[int, DraftLine]], images: UploadedImages) -> str | None:
        """Write the input file with these attempts and lines, and upload it; return the id of the file.

        A request whose input image cannot be read fails alone; None if no line is left. Raises TooLargeError,
        Withdrawn, and the RequestError of a service that takes no files.
        """
        file_ids, faults = await images.file_ids([line.request for _, line in lines], self._is_over)
        lines = await self._without(lines, faults) if faults else lines
        if not lines:
            return None
        await asyncio.to_thread(self._write, lines, file_ids)
        file_id = await self._upload()
        await self._context.writer.do(batches.record_input_file, self._row.pk, file_id)
        return file_id

    async def _without(
        self, lines: Sequence[tuple[int, DraftLine]], faults: Mapping[str, Invalid]
    ) -> list[tuple[int, DraftLine]]:
        """Fail the requests whose input images cannot be read; return the lines of the others."""
        context = self._context
        kept: list[tuple[int, DraftLine]] = []
        for pk, line in lines:
            request = line.request
            error = next((faults[image["sha256"]] for image in request.inputs if image["sha256"] in faults), None)
            if error is None:
                kept.append((pk, line))
                continue
            usd, ending = await context.writer.do(batch_lines.fail_unsent, self._row.pk, pk, error, time.time())
            context.records.give_back(request.job_pk, usd)
            if ending != "pending":
                context.emit(RequestEnded(request.job_name, request.id, ending, error))
        return kept

    def _write(self, lines: Sequence[tuple[int, DraftLine]], file_ids: Mapping[str, str]) -> None:
        dialect, token = self._context.provider.dialect, self._row.token
        content = b"".join(
            input_line(custom_id(token, pk), line.request, line.images, dialect, file_ids) for pk, line in lines
        )
        try:
            make_folder(self._path.parent)
            write_whole(self._path, content, 0o600)
        except OSError as reason:
            raise disk_error(reason, self._path.parent) from None

    async def _upload(self) -> str:
        """Upload the input file; after an answer that was lost, look for it by its name first."""
        client, unpaid_retry, is_lost = self._context.client, UnpaidRetry(self._context, self._is_over), False
        while True:
            try:
                found = await client.find_file(self._row.input_name, "batch", self._since) if is_lost else None
                if found is None:
                    await self._context.writer.do(uploaded_files.record_input_sent, self._row.pk, time.time())
                    found = await client.upload(
                        self._path,
                        self._row.input_name,
                        "batch",
                        content_type="application/jsonl",
                        expires_seconds=_EXPIRES_SECONDS,
                    )
            except RequestError as error:
                if error.http_status == 413 or (isinstance(error, Invalid) and _TOO_LARGE.search(error.message)):
                    raise TooLargeError(error) from None
                await unpaid_retry.wait(error)
                is_lost = True
            else:
                return found.id

    async def create(self, file_id: str) -> RemoteBatch | None:
        """Create the batch; None if nobody knows whether it was.

        A refusal is repeated only if it says that the service does not see the file yet. Raises FileNotSeenError,
        Withdrawn, and the RequestError of a refusal.
        """
        row, context, unpaid_retry = self._row, self._context, UnpaidRetry(self._context, self._is_over)
        unseen = 0
        while True:
            while context.admission.hold.is_closed and not self._is_over():
                await context.admission.pause_download(_HELD_SECONDS)
            if self._is_over() or context.stops.is_stopped(row.provider):
                raise Withdrawn
            await context.writer.do(batches.record_create, row.pk, time.time())
            try:
                return await context.client.create(
                    file_id,
                    endpoint_of(row.served_by, context.provider.dialect),
                    {"pipeline": row.token},
                    on_sent=lambda: None,
                )
            except NotSent as error:
                await context.writer.do(batches.record_not_created, row.pk)
                await unpaid_retry.wait(error)
            except RequestError as error:
                if not _is_refusal(error):  # it was sent before now, however long that took
                    await context.writer.do(batches.record_time_of_create, row.pk, time.time())
                    return None
                await context.writer.do(batches.record_not_created, row.pk)
                if not cannot_find_file(error.message):
                    raise
                unseen += 1
                if unseen >= _TRIES:
                    await self.check_file(file_id, error)
                await asyncio.sleep(context.rules.poll_seconds[0])

    async def check_file(self, file_id: str, error: RequestError) -> NoReturn:
        """The service says that it cannot find a file, the input file unless it names another.

        Raise FileNotSeenError if that is so. If it can be read all the same, the message disguises a spent monthly
        budget, and QuotaSpent is raised.
        """
        named = list(dict.fromkeys(_FILE_ID.findall(error.message)))[:_MOST_FILES]
        lost = [candidate for candidate in named or [file_id] if not await self._has_file(candidate)]
        if lost:
            await self._context.writer.do(uploaded_files.forget, self._context.provider.name, lost)
            raise FileNotSeenError(error)
        what = "the service refuses batches, although their file is there, as it does when a monthly budget is spent"
        raise QuotaSpent(f"{what}: {error.message}")

    async def _has_file(self, file_id: str) -> bool:
        unpaid_retry = UnpaidRetry(self._context)
        while True:
            try:
                return await self._context.client.get_file(file_id) is not None
            except RequestError as error:
                await unpaid_retry.wait(error)

    async def look(self, row: BatchRow) -> RemoteBatch | None:
        """Look once for a batch whose creation nobody knows the end of, and record that it was not found.

        One that has failed counts only if there is no other.
        """
        since = (row.create_sent_at or time.time()) - _CLOCKS
        failed, self._looked_at = None, time.time()
        async for found in self._context.client.list_batches(since):
            if found.metadata.get("pipeline") == row.token and found.input_file_id in {row.input_file_id, None}:
                if found.status != "failed":
                    return found
                failed = failed or found
        if failed is None:
            await self._context.writer.do(batches.record_look, row.pk)
        return failed

    async def is_missing(self, row: BatchRow) -> bool:
        """Return whether a batch that is not in the service's list was never created, as far as can be known."""
        waited = self._looked_at - (row.create_sent_at or 0.0)  # until the last look began
        if waited < 0:  # the clock was set back
            await self._context.writer.do(batches.record_time_of_create, row.pk, time.time())
        return row.looks >= MOST_LOOKS and waited >= MOST_LOOKS * self._context.rules.poll_seconds[0]

    def delete_local(self) -> None:
        """Delete the input file on this machine."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _is_refusal(error: RequestError) -> bool:
    """Return whether a response means that the batch was not created; what is no 4xx leaves that unknown."""
    status = error.http_status or 0
    return (
        300 <= status < 500
        and status not in _CLIENT_CLOSED
        and not isinstance(error, OutcomeUnknown | ServerFault | Unusable)
    )


async def delete_input(context: BatchContext, batch_pk: int, file_id: str | None) -> None:
    """Delete the input file of a batch that has ended; if that fails, a later run does it, or it expires."""
    if file_id is not None:
        with contextlib.suppress(RequestError):
            await context.client.delete_file(file_id)
            await context.writer.do(uploaded_files.forget_input_file, batch_pk)


async def delete_inputs(context: BatchContext) -> None:
    """Delete the input files that earlier runs have left at the service."""
    since = time.time() - _EXPIRES_SECONDS
    for batch_pk, file_id in await context.writer.do(uploaded_files.ended_inputs, context.provider.name, since):
        await delete_input(context, batch_pk, file_id)
    lost = await context.writer.do(uploaded_files.lost_inputs, context.provider.name, since)
    if lost:
        with contextlib.suppress(RequestError):
            await _delete_lost(context, {lost_input.name: lost_input for lost_input in lost})


async def _delete_lost(context: BatchContext, lost: Mapping[str, LostInput]) -> None:
    """Delete files whose uploads had no answer, because the process died, as far as the service lists them.

    One that was sent lately may be listed later: a later run looks for it again.
    """
    since = min(lost_input.sent_at for lost_input in lost.values()) - _CLOCKS
    known = await context.client.delete_named(lost, "batch", since)
    for lost_input in lost.values():
        if lost_input.name in known or lost_input.sent_at < time.time() - _LISTED_SECONDS:
            await context.writer.do(uploaded_files.forget_input_file, lost_input.batch_pk)

"""Collection of one final batch: both files are downloaded, and each line goes the way of a response in realtime.

What is recorded already is left alone, so that a collection that died is done again from its files.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.client.file_download import FileGone
from pipeline.engine.batches import lines
from pipeline.engine.batches.line_results import LineResults
from pipeline.engine.batches.unpaid_retry import UnpaidRetry
from pipeline.engine.events import BatchLineIgnored
from pipeline.errors import NotSent, OutcomeUnknown, RequestError, ServerFault
from pipeline.files import disk_error, make_folder
from pipeline.ledger import batch_lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.client.batch_objects import RemoteBatch
    from pipeline.engine.batches.context import BatchContext
    from pipeline.engine.batches.line_results import Collected
    from pipeline.engine.batches.line_room import LineRoom
    from pipeline.engine.batches.lines import OutputLine
    from pipeline.ledger.batches import BatchRow

_LINE_BYTES = 2**20  # around the images of a line
_TRIES = 3  # downloads of a file with fewer lines than the service counts
_NOT_RUN = "the batch ended before this line was run; nothing was billed"


class Collection:
    """The collection of one batch. Raises Stop where nothing more can be stored or recorded."""

    def __init__(self, context: BatchContext, row: BatchRow, remote: RemoteBatch, folder: Path, room: LineRoom) -> None:
        self._context = context
        self._row = row
        self._remote = remote
        self._folder = folder
        self._room = room
        self._results = LineResults(context, row)
        self._is_lost = False  # the output file is gone
        self._in_work = set[int]()  # attempts with a success response
        self._unreadable = set[int]()  # attempts that malformed lines name

    async def collect(self) -> Collected:
        """Download the files and record every line; return what they brought."""
        paths = [path async for path in self._files()]
        longest = await self._longest_line()
        failures: dict[int, tuple[Path, int]] = {}
        for path in paths:
            await self._record_successes(path, longest, failures)
        for attempt_pk, (path, offset) in failures.items():
            raw = await asyncio.to_thread(lines.line_at, path, offset)
            await self._record_failure(attempt_pk, lines.read_output_line(raw, self._row.token))
        await self._record_rest()
        await self._results.settle_stops()
        for path in paths:
            _delete(path)
        return self._results.collected

    async def _files(self) -> AsyncIterator[Path]:
        """Download the output file and the error file, as far as there are any; yield their paths."""
        remote = self._remote
        files = (
            ("output", remote.output_file_id, remote.completed),
            ("error", remote.error_file_id, remote.failed),
        )
        for kind, file_id, least_lines in files:
            if file_id is None:
                continue
            path = self._folder / f"{self._row.token}.{kind}.jsonl"
            unpaid_retry = UnpaidRetry(self._context)
            while True:
                try:
                    if not path.exists():
                        await self._download(file_id, path, least_lines)
                except FileGone:
                    self._is_lost |= kind == "output"
                    break
                except RequestError as error:
                    await unpaid_retry.wait(error)
                except OSError as reason:
                    raise disk_error(reason, self._folder) from None
                else:
                    yield path
                    break

    async def _download(self, file_id: str, path: Path, least_lines: int) -> None:
        """Download a file. If the service does not state its size, its lines show whether it is whole."""
        client, seconds = self._context.client, self._context.provider.timeout_seconds
        found = await client.get_file(file_id)
        size = found.bytes if found else None
        make_folder(self._folder)
        for _ in range(1 if size is not None else _TRIES):
            _delete(path)
            await client.download(file_id, path, size, idle_seconds=seconds)
            if await asyncio.to_thread(lines.count_lines, path) >= least_lines:
                return

    async def _longest_line(self) -> int:
        most = await self._context.writer.do(batch_lines.most_images, self._row.pk)
        return _LINE_BYTES + most * self._context.target.download.max_bytes * 4 // 3

    async def _record_successes(self, path: Path, longest: int, failures: dict[int, tuple[Path, int]]) -> None:
        """Record the lines of a file that are success responses, several at a time, and note where the others are."""
        rows = lines.read_lines(path, longest)
        async with asyncio.TaskGroup() as group:
            while (found := await asyncio.to_thread(next, rows, None)) is not None:
                offset, raw = found
                line = self._read(raw)
                if line is None or line.attempt_pk in self._in_work:
                    continue
                if not line.is_success:
                    failures[line.attempt_pk] = (path, offset)
                    continue
                self._in_work.add(line.attempt_pk)
                size = len(raw or b"")
                await self._room.take(size)
                group.create_task(self._record_success(line, size))

    async def _record_success(self, line: OutputLine, size: int) -> None:
        try:
            await self._results.record_response(line)
        finally:
            self._room.give(size)

    def _read(self, raw: bytes | None) -> OutputLine | None:
        """Parse a line; one that is malformed harms no other, and is reported."""
        try:
            return lines.read_output_line(raw, self._row.token)
        except ValueError as reason:
            named = lines.named_attempt(raw or b"", self._row.token)
            self._unreadable.update([] if named is None else [named])
            shown = self._context.caller.secrets.scrub_text(str(reason))
            self._context.emit(BatchLineIgnored(self._row.id or "", shown))
            return None

    async def _record_failure(self, attempt_pk: int, line: OutputLine) -> None:
        """Record a line without images, unless another line of the same id has brought some."""
        if line.status is not None:
            await self._results.record_response(line)
        elif line.code == "batch_expired" or self._remote.status == "cancelled":
            await self._results.record_not_run([attempt_pk], self._not_run())
        else:
            message = self._context.caller.secrets.scrub_text(line.message or line.code or "no response")
            await self._results.record_error(attempt_pk, ServerFault(message, code=line.code))

    async def _record_rest(self) -> None:
        """Record the lines that no file has: not run if the batch ended early, else of unknown outcome.

        They are of unknown outcome, too, if the service counts more successes than its files have.
        """
        left = await self._context.writer.do(batch_lines.open_lines, self._row.pk)
        unreadable = self._unreadable.difference(self._in_work).intersection(left)
        is_whole = self._remote.completed <= len(self._in_work) + len(unreadable)
        if self._remote.status != "completed" and is_whole and not self._is_lost:
            await self._results.record_not_run([pk for pk in left if pk not in unreadable], self._not_run())
            left = sorted(unreadable)
        what = "the files of the batch have no readable line for this request, which may have been made"
        if self._is_lost:
            what = "the service no longer has the output file of the batch"
        for attempt_pk in left:
            await self._results.record_error(attempt_pk, OutcomeUnknown(what))

    def _not_run(self) -> RequestError:
        """Return the error of a line that was not run; one of a batch that never passed validation was not sent."""
        return (ServerFault if self._row.is_valid else NotSent)(_NOT_RUN, code="batch_not_run")


def _delete(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)

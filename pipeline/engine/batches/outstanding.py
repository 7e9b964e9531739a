"""Outstanding batch: follows one batch from its creation to its final status, and decides what follows from that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.engine.batches.collection import Collection
from pipeline.engine.batches.creation import Creation, FileNotSeenError, TooLargeError, delete_input
from pipeline.engine.batches.unpaid_retry import UnpaidRetry
from pipeline.engine.batches.verdicts import BatchFailure, classify_errors, classify_refusal
from pipeline.engine.events import BatchCollected, BatchMoved, BatchSent
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import BatchGone, OutcomeUnknown, RequestError
from pipeline.ledger import batch_lines, batches

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.client.batch_objects import RemoteBatch
    from pipeline.engine.batches.context import BatchContext
    from pipeline.engine.batches.drafts import DraftLine
    from pipeline.engine.batches.groups import Groups
    from pipeline.engine.batches.inputs import UploadedImages
    from pipeline.ledger.batches import BatchRow
    from pipeline.ledger.queue import QueuedRequest

FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_VALID = frozenset({"in_progress", "finalizing", "completed"})
_GONE_AFTER = 3  # answers in a row that the service does not know a batch


class Outstanding:
    """One living batch, until `has_ended`. `follow` returns then, or when it is left out.

    What it does may be cancelled at any time.
    """

    def __init__(self, context: BatchContext, row: BatchRow, groups: Groups, folder: Path) -> None:
        self.row = row
        self.has_ended = False
        self._context = context
        self._groups = groups
        self._folder = folder
        self._creation = Creation(context, row, folder)
        self._seen: tuple[str, int, int] | None = None
        first, longest = context.rules.poll_seconds
        self._polls = Backoff(first, longest, jitter=(0.9, 1.0))

    async def send(self, lines: Sequence[tuple[int, DraftLine]], images: UploadedImages) -> RemoteBatch | None:
        """Upload and create a new batch; None if it has ended, or if nobody knows whether it was created."""
        try:
            file_id = await self._creation.upload(lines, images)
        except TooLargeError as error:
            await self._groups.on_too_large(self.row, error.reason)
            await self._withdraw()
            return None
        if file_id is None:
            await self._withdraw()
            return None
        self.row = await self._read()
        return await self._create(file_id)

    async def follow(self, remote: RemoteBatch | None = None) -> None:
        """Follow a batch that was sent, or may have been, to its end."""
        self.row = await self._read()
        if self.row.has_ended:  # since the executor saw it living
            return
        if self.row.id is None:
            remote = remote or await self._find()
            if remote is None:
                return
            if remote.status != "failed":
                await self._adopt(remote)
        remote = await self._until_final(remote)
        if remote is None:
            return
        if remote.status == "failed":
            await self._fail(remote)
        else:
            await self._collect(remote)

    async def _create(self, file_id: str) -> RemoteBatch | None:
        """Create the batch; None if it has ended, or if nobody knows whether it was created."""
        try:
            return await self._creation.create(file_id)
        except FileNotSeenError as error:
            await self._act_on_failure(BatchFailure("upload anew", error.reason))
            await self._withdraw()
        except Withdrawn:
            await self._withdraw()
        except RequestError as error:
            await self._act_on_failure(classify_refusal(error, self.row.provider))
            await self._withdraw()
        return None

    async def _find(self) -> RemoteBatch | None:
        """Look for a batch of which nobody knows whether it was created; create it again if it never was."""
        unpaid_retry = UnpaidRetry(self._context)
        while not self.has_ended:
            self.row = await self._read()
            try:
                found = await self._creation.look(self.row)
            except RequestError as error:
                await unpaid_retry.wait(error)
                continue
            unpaid_retry.reset()
            self.row = await self._read()
            if found is not None:
                return found
            if await self._creation.is_missing(self.row):
                if self._context.modes.is_cancelled(self.row.job_pk) or self.row.input_file_id is None:
                    await self._withdraw()
                elif remote := await self._create(self.row.input_file_id):
                    return remote
            elif self._context.waits:
                await asyncio.sleep(self._context.rules.poll_seconds[0])
            else:
                return None
        return None

    async def _adopt(self, remote: RemoteBatch) -> None:
        """Record the id of the batch at the service."""
        now = time.time()
        expires_at = remote.expires_at or now + self._context.rules.expires_hours * 3600
        await self._context.writer.do(
            batches.record_created, self.row.pk, remote.id, remote.created_at or now, expires_at
        )
        self.row = await self._read()
        self._creation.delete_local()
        images = await self._context.writer.do(batch_lines.count_images, self.row.pk)
        self._context.emit(BatchSent(remote.id, self.row.provider, self.row.model, self.row.requests, images))

    async def _until_final(self, remote: RemoteBatch | None) -> RemoteBatch | None:
        """Look at the batch until it is final, and cancel it if its job is; None if it is left out, or gone."""
        while True:
            remote = remote or await self._look_at()
            if remote is None:
                return None
            await self._record_progress(remote)
            if remote.status in FINAL:
                return remote
            if self._context.modes.is_cancelled(self.row.job_pk) and self.row.cancelled_at is None:
                remote = await self._cancel()
                if remote is not None:
                    continue
            elif not self._context.waits:
                return None
            await self._groups.pause(self._polls.next(), self.row)
            remote = None

    async def _look_at(self) -> RemoteBatch | None:
        """Ask the service for the batch; None if it is gone, which is a stop unless its user gives it up."""
        unpaid_retry, misses = UnpaidRetry(self._context), 0
        assert self.row.id is not None
        while True:
            try:
                found = await self._context.client.get_batch(self.row.id)
            except RequestError as error:
                await unpaid_retry.wait(error)
                continue
            if found is not None:
                return found
            misses += 1
            if misses >= _GONE_AFTER:
                await self._handle_missing_batch()
                return None
            await asyncio.sleep(self._context.rules.poll_seconds[0])

    async def _record_progress(self, remote: RemoteBatch) -> None:
        """Record and report what the service says of the batch, if it is new."""
        seen = (remote.status, remote.completed, remote.failed)
        if seen == self._seen:
            return
        if self._seen is None or remote.status != self._seen[0]:
            self._polls.reset()
        self._seen = seen
        is_valid = remote.status in _VALID or (remote.status != "failed" and remote.total > 0)
        await self._context.writer.do(batches.record_progress, self.row.pk, *seen, is_valid=is_valid)
        self.row = await self._read()
        self._context.emit(BatchMoved(remote.id, *seen))

    async def _cancel(self) -> RemoteBatch | None:
        """Ask the service to cancel the batch; None if it has ended already."""
        unpaid_retry = UnpaidRetry(self._context)
        assert self.row.id is not None
        while True:
            try:
                remote = await self._context.client.cancel(self.row.id)
            except RequestError as error:
                await unpaid_retry.wait(error)
                continue
            await self._context.writer.do(batches.record_cancelled, self.row.pk, time.time())
            self.row = await self._read()
            seconds = self._context.rules.poll_seconds[0]
            self._polls = Backoff(seconds, seconds, jitter=(0.9, 1.0))
            return remote

    async def _collect(self, remote: RemoteBatch) -> None:
        """Record all that the batch has brought."""
        collection = Collection(self._context, self.row, remote, self._folder, self._groups.line_room)
        collected = await collection.collect()
        await self._end()
        await delete_input(self._context, self.row.pk, self.row.input_file_id)
        self._context.emit(
            BatchCollected(remote.id, collected.succeeded, collected.failed, collected.returned, collected.cost_usd)
        )

    async def _fail(self, remote: RemoteBatch) -> None:
        """The batch failed validation: nothing was run. Decide what follows for its requests."""
        failure = classify_errors(remote.errors)
        named: dict[int, tuple[QueuedRequest, RequestError]] = {}
        if failure.fate == "check file":
            failure = await self._check_file(failure.error)
        for number, reason in failure.lines:
            request = await self._context.writer.do(batch_lines.request_at, self.row.pk, number)
            if request is not None:
                named.setdefault(request.pk, (request, reason))
        for request, error in named.values():
            await self._groups.fail([request], error)
        if failure.fate == "fail lines" and not named:
            failure = BatchFailure("again", failure.error)
        await self._act_on_failure(failure)
        await self._withdraw()

    async def _check_file(self, error: RequestError) -> BatchFailure:
        """Return what follows if the service states that it cannot find a file."""
        try:
            await self._creation.check_file(self.row.input_file_id or "", error)
        except FileNotSeenError:
            return BatchFailure("upload anew", error)
        except RequestError as reason:
            return BatchFailure("stop", reason)

    async def _act_on_failure(self, failure: BatchFailure) -> None:
        """Do what follows from a failure, before the batch is withdrawn and its requests may be sent again."""
        match failure.fate:
            case "wait for room":
                await self._groups.wait_for_room(self.row, failure.error)
            case "refuse":
                self._groups.refuse(self.row, failure.error)
            case "again":
                self._groups.on_failed(self.row, failure.error)
            case "upload anew":
                self._groups.on_lost_file(self.row, failure.error)
            case "stop":
                self._groups.stop(self.row, failure.error)
            case _:
                pass

    async def _handle_missing_batch(self) -> None:
        """Stop, since the service does not know the batch any more; if its job is cancelled, give it up instead."""
        what = (
            f"{self.row.provider} does not know the batch {self.row.id} of job `{self.row.job_name}`: it belongs to"
            " another key or project, or was deleted. Its requests may be paid and are not sent again; set the key of"
            f" its project, or type `pipeline cancel {self.row.job_name}` to give them up"
        )
        if not self._context.modes.is_given_up(self.row.job_pk):
            self._groups.stop(self.row, BatchGone(what, http_status=404))
            self._groups.leave(self.row)
            return
        lost = await self._context.writer.do(batch_lines.open_lines, self.row.pk)
        error = OutcomeUnknown(f"the batch {self.row.id} is gone, and was given up")
        await self._context.writer.do(batch_lines.record_lines, lost, "unknown", error, time.time(), is_release=True)
        await self._end()

    async def _withdraw(self) -> None:
        """End a batch of which nothing was run, and delete its input file."""
        await self._give_up()
        self._creation.delete_local()
        await delete_input(self._context, self.row.pk, (await self._read()).input_file_id)

    async def _give_up(self) -> None:
        """End a batch of which nothing was run, and give back what was reserved for it."""
        usd = await self._context.writer.do(batch_lines.withdraw, self.row.pk, time.time())
        self._context.records.give_back(self.row.job_pk, usd)
        self.has_ended = True
        self._groups.changed.set()

    async def _end(self) -> None:
        await self._context.writer.do(batches.end_batch, self.row.pk, time.time())
        self.has_ended = True
        self._groups.on_ended(self.row)

    async def _read(self) -> BatchRow:
        return await self._context.writer.do(batches.read_batch, self.row.pk)

    async def withdraw_if_unsent(self) -> None:
        """If the call that creates the batch was never sent, return its requests to the queue."""
        with contextlib.suppress(RequestError):  # a full disk: the next start does the same
            row = await self._read()
            if not self.has_ended and row.create_sent_at is None and row.id is None:
                await self._give_up()
        self._creation.delete_local()

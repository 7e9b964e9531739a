"""Batch executor: sends one provider's requests in batches, follows all that are living, and collects what they bring.

It stands beside the dispatcher, which makes calls in realtime; what a response means for a request is in one place for
both, `Records.complete`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

from pipeline.engine.batches.creation import delete_inputs
from pipeline.engine.batches.drafts import cut
from pipeline.engine.batches.groups import Groups
from pipeline.engine.batches.inputs import UploadedImages
from pipeline.engine.batches.outstanding import Outstanding
from pipeline.engine.batches.verdicts import refusal
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import Invalid, RequestError, Stop, WrongAddress, first_error
from pipeline.ledger.batch_queue import next_of_group
from pipeline.ledger.batches import Draft, living_tokens
from pipeline.ledger.queue import Block

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from pipeline.engine.batches.context import BatchContext
    from pipeline.engine.batches.drafts import DraftLine
    from pipeline.ledger.batches import BatchRow

BATCHES_FOLDER = "batches"
"""Folder of the files of batches, below the job's folder, while they are needed."""

_AT_ONCE = 4  # batches that are built and uploaded
_SECONDS = 1.0  # between two looks at the ledger


class BatchExecutor:
    """Works until nothing of its provider is to be sent by batch, and no batch is living."""

    def __init__(self, context: BatchContext) -> None:
        self._context = context
        self._provider = context.provider.name
        self._groups = Groups(context)
        self._images = UploadedImages(context)
        self._active: dict[int, asyncio.Task[None]] = {}  # by primary key of the batch
        self._unsent = set[Block]()  # groups of which nothing more is sent in a run that is not to wait
        self._sending = set[int]()  # primary keys of those that are built, uploaded and created

    @property
    def left(self) -> set[int]:
        """Primary keys of the batches that are not followed any more in this run."""
        return self._groups.left

    async def run(self) -> None:
        """Send, follow and collect, until nothing is left, or nothing more is to be asked of the provider."""
        with contextlib.suppress(Withdrawn):
            async with self._context.stops.end_signal(self._provider).interruptible(), asyncio.TaskGroup() as tasks:
                while await self._step(tasks):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_SECONDS):
                            await self._groups.changed.wait()
            await self._images.delete_unneeded()
            await delete_inputs(self._context)

    async def _step(self, tasks: asyncio.TaskGroup) -> bool:
        """Follow what is living, send what may be sent; return whether there is more to do."""
        self._groups.changed.clear()
        await self._context.modes.refresh()
        living = [row for row in self._context.modes.living if row.provider == self._provider]
        for row in living:
            if row.pk not in self._active and row.pk not in self._groups.left:
                outstanding = Outstanding(self._context, row, self._groups, self._folder(row.job_name))
                self._start(tasks, outstanding, outstanding.follow())
        is_waiting = await self._send(tasks, {row.group for row in living})
        return bool(self._active) or (is_waiting and self._context.waits)

    async def _send(self, tasks: asyncio.TaskGroup, living: set[Block]) -> bool:
        """Send the batches that may be sent now; return whether some wait for room."""
        is_waiting = False
        if self._context.admission.hold.is_closed:
            return bool(self._context.modes.groups(self._provider))
        for group in self._context.modes.groups(self._provider):
            if self._context.stops.is_stopped(self._provider):
                return False
            if group not in self._unsent:
                is_waiting |= await self._send_group(tasks, group, is_first=group in living)
        return is_waiting

    async def _send_group(self, tasks: asyncio.TaskGroup, group: Block, *, is_first: bool) -> bool:
        """Send the batches of a group; return whether some of it waits for room.

        While a batch of the group is living, what others returned waits, so that it is sent together.
        """
        while not self._groups.is_full(group):
            if len(self._sending) >= _AT_ONCE:
                return True
            lines, has_room = await self._draft(group, is_first=is_first)
            if not lines:
                return not has_room
            if not await self._send_batch(tasks, group, lines):
                return False
        return True

    async def _draft(self, group: Block, *, is_first: bool) -> tuple[list[DraftLine], bool]:
        """Return the lines of a group's next batch, and whether the queue of its model has room."""
        context = self._context
        most = self._groups.most_requests(group)
        requests = await context.writer.do(next_of_group, group, context.scope, most, is_first=is_first)
        room = await self._groups.room(group)
        model, rules = context.models.find(group.model), context.rules
        lines, is_full = cut(requests, rules, model, context.provider.images_per_call, room)
        if is_full and not lines and not await context.writer.do(living_tokens, self._provider, group.model):
            lines, _ = cut(requests[:1], rules, model, context.provider.images_per_call, None)
        return lines, bool(lines) or not is_full

    async def _send_batch(self, tasks: asyncio.TaskGroup, group: Block, lines: list[DraftLine]) -> bool:
        """Record a batch and start to send it; return whether that was possible."""
        drafts = [(line.request, Draft(line.request.pk, line.images, line.takes.tokens)) for line in lines]
        token = secrets.token_hex(12)
        try:
            row, keys = await self._context.records.begin_batch(group, token, drafts, self._context.rules.discount)
        except Withdrawn:
            return False
        except Stop as error:
            self._context.stops.stop(error, lines[0].request)
            return False
        kept = [(key, line) for key, line in zip(keys, lines, strict=True) if key is not None]
        outstanding = Outstanding(self._context, row, self._groups, self._folder(row.job_name))
        self._sending.add(row.pk)
        self._start(tasks, outstanding, self._send_and_follow(outstanding, kept))
        return True

    async def _send_and_follow(self, outstanding: Outstanding, lines: list[tuple[int, DraftLine]]) -> None:
        """Send a new batch, and follow it; one that is not sent, whatever the reason, is withdrawn."""
        try:
            remote = await outstanding.send(lines, self._images)
        finally:
            self._sending.discard(outstanding.row.pk)
            self._groups.changed.set()
            await outstanding.withdraw_if_unsent()
        if not outstanding.has_ended:
            await outstanding.follow(remote)

    def _start(self, tasks: asyncio.TaskGroup, outstanding: Outstanding, work: Coroutine[None, None, None]) -> None:
        pk = outstanding.row.pk

        def done(_task: asyncio.Task[None]) -> None:
            self._active.pop(pk, None)
            self._groups.changed.set()

        task = tasks.create_task(self._watch(outstanding, work), name=f"batch {outstanding.row.token}")
        self._active[pk] = task
        task.add_done_callback(done)

    async def _watch(self, outstanding: Outstanding, work: Coroutine[None, None, None]) -> None:
        """Do the work of one batch; an error of it stops as much as its cause reaches."""
        try:
            await work
        except Withdrawn:
            if not self._context.waits:
                self._unsent.add(outstanding.row.group)
        except RequestError as error:
            self._fail(outstanding.row, error)
        except BaseExceptionGroup as group:
            reason = first_error(group)
            if not isinstance(reason, RequestError):
                raise
            self._fail(outstanding.row, reason)
        finally:
            if not self._context.waits:
                self._groups.leave(outstanding.row)

    def _fail(self, row: BatchRow, error: RequestError) -> None:
        """An error has ended the work on a batch: stop as much as its cause reaches."""
        self._groups.leave(row)
        if isinstance(error, WrongAddress | Invalid):
            self._groups.refuse(row, refusal(row.provider, error))
        else:
            self._groups.stop(row, error)

    def _folder(self, job_name: str) -> Path:
        return self._context.output / job_name / BATCHES_FOLDER

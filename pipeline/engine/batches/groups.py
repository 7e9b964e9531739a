"""Groups: what one provider's batches have shown about the next ones: room in its queue, sizes, refusals, stops."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pipeline.engine.batches.line_room import LineRoom
from pipeline.engine.batches.verdicts import stated_limit
from pipeline.engine.events import RequestEnded
from pipeline.errors import BatchRefused, Invalid, RateLimited, Stop
from pipeline.ledger import attempts, batch_lines, batches
from pipeline.ledger.queue import Block
from pipeline.models.batch_estimate import enqueued_room

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.engine.batches.context import BatchContext
    from pipeline.errors import RequestError
    from pipeline.ledger.batches import BatchRow
    from pipeline.ledger.queue import QueuedRequest

_REACTION = 1.0  # seconds after which a wish to cancel is noticed
_FAILURES = 2  # of a group's batches for their form, in one run, before no further one is sent
_LOSSES = 5  # of files at the service in one group and run, before no further batch is sent


class Groups:
    """What is known in this run about the groups of one provider. `changed` is set whenever a batch has ended."""

    def __init__(self, context: BatchContext) -> None:
        self.changed = asyncio.Event()
        self.line_room = LineRoom()  # of all batches that are collected
        self.left = set[int]()  # primary keys of batches that are not followed any more in this run
        self._context = context
        self._most_requests: dict[Block, int] = {}
        self._rooms: dict[str | None, int] = {}  # in tokens, of models whose limit the service has stated
        self._full_until: dict[str | None, float] = {}  # models, on the loop's clock
        self._failures: dict[Block, int] = {}
        self._lost: dict[Block, int] = {}  # batches whose files the service has lost

    def most_requests(self, group: Block) -> int:
        """Return how many requests a batch of a group may have: each has a line, and asks for an image, at least."""
        rules = self._context.rules
        most = min(rules.most_requests, rules.most_images)
        return min(most, self._most_requests.get(group, most))

    def is_full(self, group: Block) -> bool:
        """Return whether the service's queue of a group's model was full a short time ago."""
        return self._full_until.get(group.model, 0.0) > asyncio.get_running_loop().time()

    async def room(self, group: Block) -> int | None:
        """Return for how many input tokens the queue of a group's model has room.

        None if any number may be sent: the limit is not known, or nothing is in the queue, so that one request may
        exceed it alone.
        """
        whole = self._rooms.get(group.model, enqueued_room(self._context.rules))
        if whole is None:
            return None
        used = await self._context.writer.do(batches.living_tokens, group.provider or "", group.model)
        return whole - used if used else whole

    def on_ended(self, row: BatchRow) -> None:
        """A batch has ended: its model's queue has room."""
        self._full_until.pop(row.model, None)
        self.changed.set()

    def leave(self, row: BatchRow) -> None:
        """Follow a batch no further in this run."""
        self.left.add(row.pk)

    async def on_too_large(self, row: BatchRow, error: RequestError) -> None:
        """The input file of a batch is too large: halve the next one. A lone request fails."""
        requests = await self._context.writer.do(batch_lines.requests_of, row.pk)
        if len(requests) > 1:
            self._most_requests[row.group] = len(requests) // 2
            return
        what = f"the input file of a batch with this request alone is too large for the service: {error.message}"
        await self.fail(requests, Invalid(what, http_status=error.http_status))

    async def wait_for_room(self, row: BatchRow, error: RequestError) -> None:
        """The service's queue is full: wait until a batch of the model ends. A lone request above the limit fails."""
        limit = stated_limit(error.message)
        whole = enqueued_room(self._context.rules, limit)
        if limit is not None:
            self._rooms[row.model] = whole or 0
        if not isinstance(error, RateLimited) and whole is not None and row.tokens > whole:
            requests = await self._context.writer.do(batch_lines.requests_of, row.pk)
            if len(requests) == 1:
                await self.fail(requests, Invalid(error.message, code=error.code))
                return
        seconds = max(self._context.rules.poll_seconds[1], error.retry_after or 0.0)
        self._full_until[row.model] = asyncio.get_running_loop().time() + seconds

    async def fail(self, requests: Iterable[QueuedRequest], error: RequestError) -> None:
        """Fail requests whose lines are about to be withdrawn."""
        for request in requests:
            ending, _ = await self._context.writer.do(attempts.finish, request.pk, error, time.time())
            self._context.emit(RequestEnded(request.job_name, request.id, ending, error))

    def refuse(self, row: BatchRow, error: RequestError) -> None:
        """The service takes no batch of a group: it is made in realtime if its job allows that, else it stops."""
        if not self._context.modes.refuse(row.group, error):
            self.stop(row, error)

    def on_failed(self, row: BatchRow, error: RequestError) -> None:
        """A batch has failed for its form, or for a reason that is not known: once more, then none of its group."""
        count = self._failures[row.group] = self._failures.get(row.group, 0) + 1
        if count >= _FAILURES:
            self.refuse(row, error)

    def on_lost_file(self, row: BatchRow, error: RequestError) -> None:
        """The service has lost a file of a batch, which is uploaded anew; after several, its group is refused."""
        count = self._lost[row.group] = self._lost.get(row.group, 0) + 1
        if count >= _LOSSES:
            self.refuse(row, error)

    def stop(self, row: BatchRow, error: RequestError) -> None:
        """Stop as much as the cause of an error reaches."""
        stops = self._context.stops
        stop = error if isinstance(error, Stop) else BatchRefused(error.message, code=error.code)
        if stop.reach == "everything":
            stops.stop(stop, None)
        elif stop.reach in {"provider", "provider's model", "operation"}:
            stops.stop_provider(row.provider, stop)
        else:
            block = Block(job_pk=row.job_pk, model=row.model if stop.reach == "model" else None)
            stops.stop_block(block, f"job `{row.job_name}`", stop)

    async def pause(self, seconds: float, row: BatchRow) -> None:
        """Wait before the next look at a batch; a wish to cancel it ends the wait."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if row.cancelled_at is None and self._context.modes.is_cancelled(row.job_pk):
                return
            await asyncio.sleep(min(left, _REACTION))

"""Results of the lines of one batch: what each response or failure means for its request, as in realtime."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.client.request import Call
from pipeline.engine.caller import CallResult, CallSpec
from pipeline.engine.delivery_breaker import OVERDUE
from pipeline.engine.events import RequestEnded
from pipeline.engine.image_writer import FileNames
from pipeline.engine.records import Attempt
from pipeline.errors import GiveUp, NotDelivered, QuotaSpent, RateLimited, Stop, TryAgain, Unusable
from pipeline.ledger import batch_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.engine.batches.context import BatchContext
    from pipeline.engine.batches.lines import OutputLine
    from pipeline.errors import RequestError
    from pipeline.ledger.batch_lines import Line
    from pipeline.ledger.batches import BatchRow
    from pipeline.ledger.queue import QueuedRequest


@dataclass(slots=True)
class Collected:
    """What the lines of a batch have come to: `returned` are to be sent again, or are cancelled."""

    succeeded: int = 0
    failed: int = 0
    returned: int = 0
    cost_usd: float = 0.0


class LineResults:
    """Records the ends of the lines of one batch. A line whose end is recorded already is left alone."""

    def __init__(self, context: BatchContext, row: BatchRow) -> None:
        self.collected = Collected()
        self._context = context
        self._row = row
        self._discount = context.rules.discount
        self._alone = asyncio.Lock()  # for several lines of one request, which share its numbers
        self._stops: list[tuple[Stop, QueuedRequest]] = []
        self._broken: list[str] = []  # why paid responses brought no image
        self._images = 0

    async def record_response(self, line: OutputLine) -> None:
        """Store the images of a response, and record it and what follows for its request."""
        found = await self._find(line.attempt_pk)
        if found is None:
            return
        async with self._alone if found.images < found.request.n else contextlib.nullcontext():
            found = await self._find(line.attempt_pk)  # again: another line of the same request may have taken numbers
            if found is not None:
                await self._record(found, await self._receive(found, line))

    async def _find(self, attempt_pk: int) -> Line | None:
        return await self._context.writer.do(batch_lines.read_line, self._row.pk, attempt_pk)

    async def _receive(self, found: Line, line: OutputLine) -> CallResult:
        request, caller = found.request, self._context.caller
        if line.largest_image > self._context.target.download.max_bytes + 2:  # what base64 may pad
            error = Unusable("the response has an image of more than `download.max_bytes`", http_status=line.status)
            error.request_id, error.deterministic = line.request_id, True
            return CallResult(error.outcome, self._row.sent_at, time.time(), error)
        names = FileNames(request.job_name, found.stem, request.output_format)
        call = Call(request.served_by, {**request.params, "n": found.images})
        spec = CallSpec(self._context.target, call, names, request.numbers)
        return await caller.receive(line.as_response(caller.secrets), spec, self._row.sent_at)

    async def _record(self, found: Line, result: CallResult) -> None:
        """Record a result as one in realtime is, at the price of a batch."""
        request, records = found.request, self._context.records
        started = time.monotonic() - max(0.0, time.time() - (self._row.sent_at or time.time()))
        attempt = Attempt(
            pk=found.attempt_pk,
            stem=found.stem,
            images=found.images,
            estimate_usd=found.estimate_usd,
            started=started,
            discount=self._discount,
            is_line=True,
        )
        await records.know_budget(request)
        completion = await records.complete(request, attempt, result)
        self.collected.cost_usd += completion.cost_usd
        self._images += len(result.images)
        if result.error is not None:
            await self._decide(request, result.error)
        elif completion.succeeded:
            self.collected.succeeded += 1
            self._context.emit(RequestEnded(request.job_name, request.id, "succeeded", None))
        else:
            await self._finish(request, await self._broken_too_often(request, result))

    async def _broken_too_often(self, request: QueuedRequest, result: CallResult) -> RequestError | None:
        """Return the error that ends a request of which a part of the images is not valid, again and again."""
        if not result.quarantined:
            return None
        tries = await self._context.writer.do(batch_lines.broken_tries, request.pk)
        reason = result.quarantined[0].reason
        what = f"an image in the response {reason}; the others are stored, and the broken ones may be paid"
        return Unusable(what, http_status=200) if tries > self._context.retry.unknown else None

    async def record_error(self, attempt_pk: int, error: RequestError) -> None:
        """Record a line that has no response."""
        if (found := await self._find(attempt_pk)) is None:
            return
        await self._end([attempt_pk], error)
        await self._decide(found.request, error)

    async def record_not_run(self, attempt_pks: Sequence[int], error: RequestError) -> None:
        """Record lines that were never run: they cost nothing, and their requests are pending again."""
        self.collected.returned += await self._end(attempt_pks, error, is_release=True)

    async def _end(self, attempt_pks: Sequence[int], error: RequestError, *, is_release: bool = False) -> int:
        """Record lines that brought nothing, give back what was reserved for them, and return their number."""
        estimates = await self._context.writer.do(
            batch_lines.record_lines, attempt_pks, error.outcome, error, time.time(), is_release=is_release
        )
        if error.outcome != "unknown":
            self._context.records.give_back(self._row.job_pk, sum(usd or 0.0 for usd in estimates))
        return len(estimates)

    async def _decide(self, request: QueuedRequest, error: RequestError) -> None:
        """Decide what follows from a line's error: the request fails, goes with a later batch, or stops others."""
        if error.outcome == "unknown":
            self._broken.append(error.message)
        match error:
            case Stop():
                self._stops.append((error, request))
            case GiveUp():
                await self._finish(request, error)
            case RateLimited():
                await self._return(request)
            case TryAgain():
                rules, writer = self._context.retry, self._context.writer
                tries = await writer.do(batch_lines.tries_in_batches, request.pk, error.outcome)
                if error.outcome == "unknown":
                    tries += await writer.do(batch_lines.broken_tries, request.pk)
                repeats = min(rules.unknown, 1) if error.deterministic else rules.unknown
                most = repeats + 1 if error.outcome == "unknown" else rules.attempts
                await (self._finish(request, error) if tries >= most else self._return(request))
            case _:
                await self._finish(request, error)

    async def _return(self, request: QueuedRequest) -> None:
        self.collected.returned += 1
        await self._context.writer.do(batch_lines.release, request.pk, time.time())

    async def _finish(self, request: QueuedRequest, error: RequestError | None) -> None:
        """Record how a request ended: failed or partial, or pending if images are missing that no error refuses."""
        ending, error = await self._context.writer.do(batch_lines.finish_line, request.pk, error, time.time())
        if ending == "pending":
            self.collected.returned += 1
            return
        if ending == "succeeded":
            self.collected.succeeded += 1
        else:
            self.collected.failed += 1
        self._context.emit(RequestEnded(request.job_name, request.id, ending, error))

    async def settle_stops(self) -> None:
        """Decide on refusals once all lines are known: if others passed, the request fails alone, except for money.

        A batch of which several paid lines brought no image, and none did, stops the provider.
        """
        stops, passed = self._context.stops, self.collected.succeeded
        for error, request in self._stops:
            if passed and not isinstance(error, QuotaSpent):
                await self._finish(request, error)
            else:
                await self._return(request)
                stops.stop(error, request)
        if len(self._broken) >= OVERDUE and not self._images:
            what = f"a batch was paid and brought no image, and nothing more is bought from `{self._row.provider}`"
            stops.stop_provider(self._row.provider, NotDelivered(f"{what}: {self._broken[-1]}"))

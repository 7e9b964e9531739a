"""Take a batch through its states, by the clock and from what its record says."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.sandbox.batch.errors import spend_cap_message
from pipeline.sandbox.batch.lines import ids_of, work_line
from pipeline.sandbox.batch.outputs import Outputs, read_line, unanswered_line
from pipeline.sandbox.batch.validation import (
    LineError,
    line_error,
    line_starts,
    token_limit_exceeded,
    validate_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.sandbox.batch.records import Batch, BatchStore, Status
    from pipeline.sandbox.service import Service

LONGEST_SLEEP: Final = 0.1
"""Seconds after which the clock is read again, and the wish to cancel."""
EXPIRED: Final = ("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED: Final = ("batch_cancelled", "This request was not executed because the batch was cancelled.")


@dataclass(frozen=True, slots=True)
class BatchRun:
    """One batch on its way; can begin anywhere, since every step is recorded when it is done."""

    service: Service
    store: BatchStore
    batch: Batch
    resumed: bool  # after a restart: the last line may be in the request log already

    async def run(self) -> None:
        """Go on until the batch has ended. Raises OSError."""
        batch = self.batch
        if batch.ends_as:
            self._end(batch.ends_as)
        if batch.status == "validating":
            await self._validate()
        if batch.status == "in_progress" or (batch.status == "cancelling" and batch.total):
            await self._work()
        if batch.status == "finalizing":
            await self._finalize()
        elif batch.status == "cancelling":
            await self._until(batch.moments["cancelling"] + self.service.settings.batch.finalizing_seconds)
            self._end("cancelled")

    async def _validate(self) -> None:
        batch, settings = self.batch, self.service.settings
        began = batch.created_at + batch.plan.validating_seconds
        if not await self._reaches(began, "validating"):
            return
        path = self.store.input(batch)
        found = await self.service.run_in_thread(validate_file, path, batch.endpoint, settings.today)
        if batch.status != "validating":
            return
        refused = found.errors or self._refuse(found.model or "", found.tokens)
        if refused:
            batch.errors = refused
            self._end("failed")
            return
        batch.model, batch.tokens, batch.total = found.model, found.tokens, found.lines
        batch.enter("in_progress", began)
        self.store.save(batch)

    def _refuse(self, model: str, tokens: int) -> list[LineError]:
        """Return why a valid batch is refused all the same, if it is."""
        limit = self.service.settings.batch.enqueued_tokens
        enqueued = self.store.enqueued_tokens(model)
        if limit is not None and enqueued + tokens > limit:
            return [token_limit_exceeded(model, limit)]
        if self.service.admission.is_quota_spent():
            return [line_error("billing_hard_limit_reached", "Billing hard limit has been reached.")]
        match self.batch.plan.fate, self.batch.plan.form:
            case "failed", True:
                return [token_limit_exceeded(model, limit or 0)]
            case "failed", False:
                return [line_error("server_error", "The batch could not be processed because of an internal error.")]
            case "spend_cap", False:
                return [line_error("invalid_request", spend_cap_message(self.batch.input_file_id))]
            case _:
                return []

    async def _work(self) -> None:
        """Answer the lines, and say of those that are not answered why; the batch is then finalizing or has expired."""
        batch, end = self.batch, self.batch.moments["in_progress"] + self.batch.plan.working_seconds
        starts = await self.service.run_in_thread(line_starts, self.store.input(batch))
        places = list(enumerate(starts))
        random.Random(f"{batch.seed}:order:{batch.number}").shuffle(places)
        with Outputs(self.store, batch) as outputs:
            await self._answer_lines(outputs, places)
            if batch.worked == batch.total and await self._reaches(end, "in_progress"):
                batch.enter("finalizing", max(end, self.service.clock()))
                self.store.save(batch)
                return
            await self._reaches(end if batch.plan.fate == "expired" else batch.expires_at, "in_progress")
            is_cancelled = batch.status == "cancelling"
            rest = self._unanswered(CANCELLED if is_cancelled else EXPIRED, places[batch.worked :])
            await self.service.run_in_thread(outputs.write, "error", rest)
        batch.worked = batch.total
        if is_cancelled:
            self.store.save(batch)
        else:
            self._end("expired")

    async def _answer_lines(self, outputs: Outputs, places: Sequence[tuple[int, int]]) -> None:
        """Answer one line after another when it is due, until the batch expires or is cancelled."""
        batch, input_file, most = self.batch, self.store.input(self.batch), self._most_lines()
        booked = self.service.request_log.lines_of(batch.id) if self.resumed else ()
        while batch.worked < most:
            share = (batch.worked + 1) / batch.total
            if not await self._reaches(
                batch.moments["in_progress"] + batch.plan.working_seconds * share, "in_progress"
            ):
                return
            index, start = places[batch.worked]
            line = await self.service.run_in_thread(read_line, input_file, start)
            answered = await work_line(self.service, batch, index, line)
            await self.service.run_in_thread(outputs.write, answered.kind, [answered.content])
            if answered.entry.custom_id not in booked:
                self.service.request_log.write(answered.entry)
            self._count(failed=answered.kind == "error")

    def _most_lines(self) -> int:
        """Return how many lines can be worked before the batch expires."""
        batch, plan = self.batch, self.batch.plan
        left = batch.expires_at - batch.moments["in_progress"]
        in_time = 1.0 if left >= plan.working_seconds else max(0.0, left) / plan.working_seconds
        return int(batch.total * min(in_time, plan.share if plan.fate == "expired" else 1.0))

    def _unanswered(self, code: tuple[str, str], places: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        for index, start in places:
            custom_id = str(read_line(self.store.input(self.batch), start)["custom_id"])
            rng = ids_of(self.batch, index)
            yield unanswered_line(rng, custom_id, *code) + b"\n"

    async def _finalize(self) -> None:
        batch, seconds = self.batch, self.service.settings.batch.finalizing_seconds
        await self._until(batch.moments["finalizing"] + seconds)
        planned_end = batch.moments["in_progress"] + batch.plan.working_seconds + seconds
        self._end("expired" if planned_end > batch.expires_at else "completed")

    def _count(self, *, failed: bool) -> None:
        batch = self.batch
        batch.worked += 1
        batch.failed += failed
        batch.completed += not failed
        self.store.save(batch)

    def _end(self, status: Status) -> None:
        """Decide how the batch ends, publish its files, and record the end."""
        batch = self.batch
        batch.ends_as = status
        self.store.save(batch)
        if status != "failed":
            self._publish()
        batch.enter(status, self.service.clock())
        self.store.save(batch)
        self.store.clear(batch)

    def _publish(self) -> None:
        """Move the files that are not empty to the Files API; what was moved before a restart is left."""
        batch, now = self.batch, int(self.service.clock())
        for kind, size in (("output", batch.output_bytes), ("error", batch.error_bytes)):
            if size:
                self.service.files.add(
                    self.store.part(batch, kind),
                    created_at=now,
                    expires_at=now + batch.output_seconds,
                    filename=f"{batch.id}_{kind}.jsonl",
                    purpose="batch_output",
                    file_id=batch.file_ids[kind],
                )

    async def _until(self, moment: float) -> None:
        while (left := moment - self.service.clock()) > 0:  # noqa: ASYNC110 - a clock is no event
            await asyncio.sleep(min(left, LONGEST_SLEEP))

    async def _reaches(self, moment: float, status: Status) -> bool:
        """Wait for a moment, but not longer than the batch is in this state; return whether it still is."""
        while (left := moment - self.service.clock()) > 0 and self.batch.status == status:  # noqa: ASYNC110
            await asyncio.sleep(min(left, LONGEST_SLEEP))
        return self.batch.status == status

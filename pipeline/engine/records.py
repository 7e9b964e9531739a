"""Records of one provider's attempts: budget and ledger before a call, and everything that a result means after it."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.engine.events import CallEnded, CallSent, ImagesLeftOut, ImageStored, RequestEnded, UsageIgnored
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import BudgetSpent, DiskFull, NotSent
from pipeline.ledger import attempts, batches, outages, purchases, queue, recovery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.engine.budget import Budget
    from pipeline.engine.caller import CallResult, Target
    from pipeline.engine.events import Event, Listener
    from pipeline.engine.permit import Permit
    from pipeline.engine.routing import Routing
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.engine.uploads import Places
    from pipeline.errors import RequestError
    from pipeline.ledger.batches import BatchRow, Draft
    from pipeline.ledger.outages import Outage
    from pipeline.ledger.queue import Block, PaidUrl, QueuedRequest
    from pipeline.ledger.writer import Writer
    from pipeline.models.table import Models
    from pipeline.storage import QuarantinedFile, StoredImage


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call, or a line of a batch, that is recorded in the ledger; `started` is a moment of the monotonic clock.

    `headers` name the call's purchase.
    """

    pk: int
    stem: str  # of the request's file names
    images: int  # requested
    estimate_usd: float | None
    started: float
    discount: float = 0.0  # the part of the price that is not charged
    is_line: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """What a result means for its request: URLs to download, images that are settled, and whether it has succeeded.

    Settled images need not be requested again: they are stored, paid, or withheld by the service.
    """

    urls: Sequence[PaidUrl] = ()
    settled: int = 0
    succeeded: bool = False
    cost_usd: float = 0.0


class Records:
    """Records what happens to the requests of one provider. Each method returns when its record is on disk."""

    def __init__(
        self,
        target: Target,
        places: Places,
        models: Models,
        writer: Writer,
        budget: Budget,
        stops: StopPolicy,
        emit: Listener,
        routing: Routing | None = None,
    ) -> None:
        self._routing = routing
        self._target = target
        self._held = places.held
        self._provider = target.provider.name
        self._models = models
        self._writer = writer
        self._budget = budget
        self._stops = stops
        self._spool = places.spool
        self._ignored: set[str] = set()  # models whose usage does not count
        self.repeats: dict[int, int] = {}  # calls that may be paid, by the primary key of their request, in this run
        self.emit = emit

    async def claim(self, request: QueuedRequest) -> str:
        """Mark a request as running and return the stem of its file names. Raises Withdrawn."""
        stem = await self._writer.do(queue.claim, request.pk)
        if stem is None:  # cancelled or changed in the meantime
            raise Withdrawn
        return stem

    def requeue(self, request: QueuedRequest) -> None:
        """Return a request to the queue, without waiting for the record."""
        self._writer.post(recovery.requeue, request.pk)

    async def begin(self, request: QueuedRequest, permit: Permit, body: str) -> Attempt:
        """Reserve the money of a call and record the call, before it is sent. `body` is the digest of what is sent.

        Raises Withdrawn, BudgetSpent, and FolderGone if the record would be of no use.
        """
        self._held.check()
        estimate = self._estimate(request, permit.images)
        await self.know_budget(request)
        if not self._stops.allows(request):
            raise Withdrawn
        self._budget.reserve(request, estimate)
        target = self._target
        rules = None if self._routing is None else self._routing.home_rules(request)
        call = (self._provider, target.base_url, permit.images, estimate, time.time(), body)
        begun = await self._writer.do(purchases.begin, request.pk, *call, rules)
        stopped = self._stops.is_stopped(self._provider)  # while this was recorded
        if begun is None or stopped:
            self._budget.settle(request, estimate, 0.0)
            if begun is not None:
                await self._writer.do(attempts.record_withdrawal, begun.pk, time.time())
            raise Withdrawn
        self.emit(CallSent(request.job_name, request.id, self._provider, permit.images))
        known = (begun.pk, begun.stem, permit.images, estimate, time.monotonic())
        return Attempt(*known, headers=purchases.headers(begun))

    async def withdraw(self, request: QueuedRequest, attempt: Attempt) -> None:
        """Record that a call that was recorded is not sent after all."""
        await self._writer.do(attempts.record_withdrawal, attempt.pk, time.time())
        self._budget.settle(request, attempt.estimate_usd, 0.0)
        self._emit_ended(request, attempt, None, NotSent(f"the call to provider `{self._provider}` waits"))

    async def know_budget(self, request: QueuedRequest) -> None:
        """Load what the request's job has spent, or may have, in earlier runs."""
        if not self._budget.knows(request):
            self._budget.load(request, await self._writer.do(attempts.committed_usd, request.job_pk))

    async def begin_batch(
        self, group: Block, token: str, lines: Sequence[tuple[QueuedRequest, Draft]], discount: float
    ) -> tuple[BatchRow, list[int | None]]:
        """Reserve the money of a batch and record it with its lines, before anything is sent: what fits the budget.

        Return it with the primary keys of the lines' attempts, None for those that are not sent. Raises Withdrawn,
        FolderGone, and BudgetSpent if not even the first line fits.
        """
        await self._spool.admit()
        self._held.check()
        first = lines[0][0]
        await self.know_budget(first)
        if not self._stops.allows(first):
            raise Withdrawn
        drafts, spent = self._reserve(lines, discount)
        begun = await self._writer.do(batches.begin_batch, group, token, drafts, self._target.base_url, time.time())
        keys: list[int | None] = [None for _ in drafts] if begun is None else begun[1]
        unused = [draft.estimate_usd or 0.0 for draft, pk in zip(drafts, keys, strict=True) if pk is None]
        self.give_back(first.job_pk, sum(unused))
        if spent is not None:
            self._stops.stop(spent, first)
        if begun is None:
            raise Withdrawn
        return begun[0], [*keys, *[None] * (len(lines) - len(keys))]

    def _reserve(
        self, lines: Sequence[tuple[QueuedRequest, Draft]], discount: float
    ) -> tuple[list[Draft], BudgetSpent | None]:
        """Reserve the money of as many lines as the budget allows. Raises BudgetSpent if it allows none."""
        drafts: list[Draft] = []
        for request, draft in lines:
            usd = self._estimate(request, draft.images)
            usd = None if usd is None else usd * (1 - discount)
            try:
                self._budget.reserve(request, usd)
            except BudgetSpent as error:
                if not drafts:
                    raise
                return drafts, error
            drafts.append(replace(draft, estimate_usd=usd))
        return drafts, None

    def give_back(self, job_pk: int, usd: float) -> None:
        """Release what was reserved for lines of a job that cost nothing."""
        self._budget.give_back(job_pk, usd)

    async def complete(self, request: QueuedRequest, attempt: Attempt, result: CallResult) -> Completion:
        """Record what a result means: its cost, its images, the URLs to download, or how the attempt failed.

        Raises DiskFull if the response's images could not be stored: they are paid, so the attempt is left open and
        counts as unknown.
        """
        if isinstance(result.error, DiskFull):
            raise result.error
        await self.record_quarantine(request, result.quarantined)
        if result.error is not None:
            return await self._complete_failed(request, attempt, result, result.error)
        cost = self._cost(request, result, attempt.discount)
        moderated = 0 if result.moderated and self._try_next_member(request, attempt) else result.moderated
        response = attempts.ResponseRecord(
            http_status=result.http_status or 200,
            request_id=result.request_id,
            usage=result.usage,
            cost_usd=cost,
            sent_at=result.ended_at if result.sent_at is None else result.sent_at,
            ended_at=result.ended_at,
            moderated=moderated,
            broken=len(result.quarantined),
            settings=result.settings,
        )
        self._flush_folder(request, result.images)
        parts = (response, result.urls, result.images)
        write = functools.partial(purchases.record_response, is_replay=result.is_replay, withheld=result.moderated)
        urls, succeeded, settled_usd = await self._writer.do(write, request, attempt.pk, *parts)
        self._budget.settle(request, attempt.estimate_usd, cost)
        self._budget.give_back(request.job_pk, settled_usd)
        self._emit_ended(request, attempt, cost, None)
        if result.beyond:
            self.emit(ImagesLeftOut(request.job_name, request.id, self._provider, result.returned, result.beyond))
        if stop := self._budget.stop_if_exceeded(request, attempt.images, result.returned):
            self._stops.stop(stop, request)
        for image in result.images:
            self._emit_stored(request, image)
        settled = len(result.images) + len(result.urls) + moderated
        return Completion(urls, settled, succeeded, cost or 0.0)

    def _try_next_member(self, request: QueuedRequest, attempt: Attempt) -> bool:
        """Exclude this member of a route from a request of which its content policy withheld images, if another one may
        still be asked; return whether that is so.
        """
        if self._routing is None or request.route is None or attempt.is_line:
            return False
        return self._routing.try_next_member(request)

    def _cost(self, request: QueuedRequest, result: CallResult, discount: float) -> float | None:
        """Return what an answered call cost, less the discount.

        A usage that does not count is reported once per model and run.
        """
        model = self._models.find(request.model)
        if model is None or request.model is None:
            return None
        cost = model.cost(request.served_by, request.params, result.returned, result.usage)
        if cost.ignored_usd is not None and request.model not in self._ignored:
            self._ignored.add(request.model)
            self.emit(UsageIgnored(self._provider, request.model, cost.ignored_usd, cost.usd))
        return None if cost.usd is None else cost.usd * (1 - discount)

    async def _complete_failed(
        self, request: QueuedRequest, attempt: Attempt, result: CallResult, error: RequestError
    ) -> Completion:
        settled_usd = await self._writer.do(
            purchases.record_failure, attempt.pk, error, result.outcome, result.sent_at, result.ended_at
        )
        self._budget.give_back(request.job_pk, settled_usd)
        self._budget.settle(request, attempt.estimate_usd, None if result.outcome == "unknown" else 0.0)
        self._emit_ended(request, attempt, None, error)
        return Completion()

    async def record_download(self, request: QueuedRequest, url: PaidUrl, image: StoredImage) -> bool:
        """Record that a paid image is stored; return whether the request has succeeded with it."""
        self._flush_folder(request, [image])
        succeeded = await self._writer.do(attempts.record_download, request.pk, url.image_pk, image, time.time())
        self._emit_stored(request, image)
        return succeeded

    async def record_quarantine(self, request: QueuedRequest, files: Sequence[QuarantinedFile]) -> None:
        """Record bytes that were paid and are not a valid image."""
        if files:
            await self._writer.do(attempts.record_quarantine, request.pk, files)

    async def record_expired_url(self, url: PaidUrl) -> None:
        """Record that a paid URL expired before its image was stored."""
        await self._writer.do(attempts.record_expired_url, url.image_pk)

    async def finish(self, request: QueuedRequest, error: RequestError | None, *, succeeded: bool) -> None:
        """Record how a request ended; success was recorded with its last image."""
        self.repeats.pop(request.pk, None)
        if succeeded:
            self.emit(RequestEnded(request.job_name, request.id, "succeeded", None))
            return
        ending, error = await self._writer.do(attempts.finish, request.pk, error, time.time())
        if ending != "pending":
            self.emit(RequestEnded(request.job_name, request.id, ending, error))

    def record_pause(self, until: float) -> None:
        """Record until when the provider is not to be called, without waiting for the record."""
        self._writer.post(attempts.record_pause, self._provider, until)

    def record_outage(self, outage: Outage | None) -> None:
        """Record that the provider is down, or that it is up again (None), without waiting for the record."""
        self._writer.post(outages.record_outage, self._provider, outage)

    def _flush_folder(self, request: QueuedRequest, images: Sequence[StoredImage]) -> None:
        """Make the names of the job's new images durable before the next record, if they are on the local disk."""
        if any(bool(image.spooled) == self._held.images.is_spool for image in images):
            self._writer.flush_folder(self._held.images, request.job_name)

    def _emit_ended(
        self, request: QueuedRequest, attempt: Attempt, cost: float | None, error: RequestError | None
    ) -> None:
        if attempt.is_line:
            return
        seconds = time.monotonic() - attempt.started
        ended: Event = CallEnded(request.job_name, request.id, self._provider, seconds, cost, error)
        self.emit(ended)

    def _emit_stored(self, request: QueuedRequest, image: StoredImage) -> None:
        if image.spooled:
            self._spool.count(1, image.bytes)
        self.emit(ImageStored(request.job_name, request.id, f"{request.job_name}/{image.file}", self._provider))

    def _estimate(self, request: QueuedRequest, images: int) -> float | None:
        """Return what a call for this many images costs at most; None without a price."""
        model = self._models.find(request.model)
        if model is None:
            return None
        sizes = [
            (input_image["width"], input_image["height"])
            for input_image in request.inputs
            if input_image["role"] == "image"
        ]
        return model.max_cost(request.served_by, request.prompt, request.params, images, sizes)

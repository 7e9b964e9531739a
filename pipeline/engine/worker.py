"""A request becomes files: one function carries it from the queue to the record.

Throttle, call, record, download, check, store, record. What a death in between costs follows from the order: a call is
written down before it is sent, a URL before its download, and a file is whole before the row that names it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from pipeline.client.download import expiry
from pipeline.client.rate_limit_hints import LONGEST_PAUSE
from pipeline.client.request import Call, Upload, body_of
from pipeline.client.response import InlineImage, LinkedImage
from pipeline.engine import budget
from pipeline.engine.events import (
    CallEnded,
    CallSent,
    ImageStored,
    LimitLowered,
    Paused,
    ProviderDown,
    ProviderUp,
    RequestEnded,
    Retrying,
)
from pipeline.engine.fetch import fetch
from pipeline.engine.image_writer import ImageWriter
from pipeline.engine.provider_context import WrittenCall
from pipeline.engine.retry import retrying
from pipeline.errors import DiskFull, DownloadRefused, RateLimited, RequestError, Stop, Unusable, UrlLost
from pipeline.ledger import attempts
from pipeline.ledger.queue import claim

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from pipeline.client.request import Body
    from pipeline.client.response import ImagesResponse
    from pipeline.engine.provider_context import ProviderContext
    from pipeline.engine.throttle import Permit
    from pipeline.ledger.queue import PaidUrl, QueuedRequest
    from pipeline.storage import StoredImage


T = TypeVar("T")


class Worker:
    """Carries one request to its end."""

    def __init__(self, context: ProviderContext, work: QueuedRequest) -> None:
        self._context = context
        self._work = work
        self._urls = list(work.urls)  # paid, not yet here
        self._clock = time.monotonic() - time.time()  # when their moments of death were taken over
        self._missing = work.missing  # still to be asked for
        self._succeeded = False
        self._is_probe = False
        self._folder = context.folder / work.job_name
        self._images = ImageWriter(self._folder, work.params, work.numbers, context.threads)

    async def carry(self) -> None:
        """Fetch what is paid and ask for what is missing until nothing is, then record how it ended. Raises Stop."""
        retry = retrying(
            self._context.config.retry,
            sleep=self._context.admission.sleep,
            counts=lambda error: error.counted and not self._is_probe,
            before_sleep=self._say_retrying,
        )
        error: RequestError | None = None
        await self._wait_as_asked()
        try:
            while self._urls or self._missing > 0:
                await retry(self._make)
        except Stop:
            raise
        except RequestError as reason:
            error = reason
        await self._end(error)

    async def _wait_as_asked(self) -> None:
        """Wait on where an earlier run was asked to wait for this request; a clock that was set back adds nothing."""
        left = (self._work.wait_until or 0.0) - time.time()
        if left > 0 and not self._urls:
            await self._context.admission.sleep(min(left, LONGEST_PAUSE))

    async def _make(self) -> None:
        """The way of a request: throttle, call, record, download, check, store, record."""
        if not self._urls:
            turn = await self._leave()
            try:
                body = await self._body(turn.images)
                call = await self._begin(turn)
                answer, files = await self._call(call, body)
            finally:
                turn.unsent()
                self._context.admission.left(self._work.request)
            await self._answered(call, answer, files)
        else:
            self._images.stem = self._claimed(await self._context.writer.do(claim, self._work.request))
        await self._fetch()

    def _claimed(self, claimed: T | None) -> T:
        """Go on with what the ledger gave, or leave the request to itself: it was cancelled or changed meanwhile."""
        if claimed is None:
            raise asyncio.CancelledError
        return claimed

    async def _leave(self) -> Permit:
        """Wait for leave to call: for what is missing, or as much of it as one call may ask."""
        images = min(self._missing, self._context.provider.images_per_call)
        turn, self._is_probe = await self._context.admission.leave(self._work.request, images)
        return turn

    async def _body(self, images: int) -> Body:
        """Write the call's body. Raises Invalid where an upload is gone, before the call costs an attempt."""
        work = self._work
        params = {"prompt": work.prompt, **work.params, "n": images}
        if work.prompt is None:
            del params["prompt"]
        uploads = [Upload(one["role"], self._folder / one["file"], one["content_type"]) for one in work.inputs]
        return await body_of(Call(work.served_by, params, uploads), self._context.provider.dialect)

    async def _begin(self, turn: Permit) -> WrittenCall:
        """Set the money aside and write the call down, before it is sent."""
        context, work, images = self._context, self._work, turn.images
        estimate = self._estimate(images)
        if not work.rehearsal and not context.money.knows(work):
            context.money.learn(work, await context.writer.do(budget.committed, work.job))
        if context.is_blocked(work):
            raise asyncio.CancelledError
        context.money.reserve(work, estimate)
        begun = await context.writer.do(
            attempts.begin, work.request, context.provider.name, context.api.base_url, images, estimate, time.time()
        )
        if begun is None or context.admission.halted:
            context.money.settle(work, estimate, 0.0)
        attempt, self._images.stem = self._claimed(begun)
        if context.admission.halted:  # the stop came while this was written down
            await context.writer.do(attempts.unsent, attempt, time.time())
            raise asyncio.CancelledError
        context.emit(CallSent(work.job_name, work.id, context.provider.name, images))
        return WrittenCall(attempt, images, estimate, time.monotonic(), turn)

    async def _call(self, call: WrittenCall, body: Body) -> tuple[ImagesResponse, list[StoredImage]]:
        """Make the call, and file the pictures that came along. A failure is recorded, and raised."""
        try:
            answer = await self._context.api.call(self._work.served_by, body, call.sent)
            return answer, await self._keep_inline(answer)
        except RequestError as error:
            await self._failed(call, error)
            raise

    async def _keep_inline(self, answer: ImagesResponse) -> list[StoredImage]:
        """File the pictures that came along. Raises Unusable where the answer has no whole one."""
        inline = [picture for picture in answer.pictures if isinstance(picture, InlineImage)]
        files, broken = await self._images.keep_all(inline)
        if broken and len(broken) == len(answer.pictures):
            raise Unusable(f"the picture that came {broken[0]}", http_status=200, request_id=answer.request_id)
        return files

    async def _answered(self, call: WrittenCall, answer: ImagesResponse, files: list[StoredImage]) -> None:
        """Record an answer: what it cost, the files that are here, the URLs that are to be fetched."""
        context, work, now = self._context, self._work, time.time()
        self._clock = time.monotonic() - now
        self._say_back(context.admission.answered(work.request))
        model = context.models.find(work.model)
        cost = model.cost(work.served_by, work.params, len(answer.pictures), answer.usage) if model else None
        links = [picture for picture in answer.pictures if isinstance(picture, LinkedImage)]
        urls = [
            attempts.NewUrl(
                number,
                link.url,
                expiry(link.url, context.provider.url_ttl_seconds, skew=answer.skew, now=now),
                link.revised_prompt,
            )
            for link, number in zip(links, self._images.take(len(links)), strict=True)
        ]
        sent_at = now if call.sent_at is None else call.sent_at
        reply = attempts.Reply(
            http_status=answer.http_status,
            request_id=answer.request_id,
            usage=answer.usage,
            cost_usd=cost,
            sent_at=sent_at,
            ended_at=now,
            moderated=answer.moderated,
            settings=answer.settings,
        )
        if files:
            context.writer.settle(self._images.place)
        self._urls, self._succeeded = await context.writer.do(attempts.answered, work, call.attempt, reply, urls, files)
        context.money.settle(work, call.estimate_usd, cost)
        self._missing -= len(files) + len(links) + answer.moderated
        context.emit(CallEnded(work.job_name, work.id, context.provider.name, call.seconds, cost, None))
        for file in files:
            context.emit(ImageStored(work.job_name, work.id, f"{work.job_name}/{file.file}"))

    async def _failed(self, call: WrittenCall, error: RequestError) -> None:
        """Record a call that brought nothing, and what follows for everyone. Raises the Stop that may follow."""
        context, work = self._context, self._work
        if isinstance(error, DiskFull):
            return  # the picture was paid and could not be kept: left open in the ledger, the call counts as unknown
        now = time.time()
        await context.writer.do(attempts.failed, call.attempt, error, error.outcome, call.sent_at, now)
        context.money.settle(work, call.estimate_usd, None if error.outcome == "unknown" else 0.0)
        context.emit(CallEnded(work.job_name, work.id, context.provider.name, call.seconds, None, error))
        if isinstance(error, RateLimited):
            seconds = context.admission.pause(error)
            context.writer.post(attempts.pause, context.provider.name, now + seconds)
            context.emit(Paused(context.provider.name, seconds, error.message))
            if limit := context.admission.lower(error):
                context.emit(LimitLowered(context.provider.name, limit.images, limit.per_seconds, error.message))
        away = context.admission.away
        given_up = context.admission.failed(work.request, error)
        if context.admission.away is None:
            self._say_back(away)
        elif away is None:
            context.emit(ProviderDown(context.provider.name, error.message))
        if given_up is not None:
            raise given_up

    def _say_back(self, away: float | None) -> None:
        if away is not None:
            self._context.emit(ProviderUp(self._context.provider.name, away))

    async def _fetch(self) -> None:
        """Bring all paid pictures home at once. Raises UrlLost where not one came, and DownloadRefused."""
        urls, self._urls = self._urls, []
        results = await asyncio.gather(*(self._fetch_one(url) for url in urls), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in sorted(failures, key=lambda one: (isinstance(one, UrlLost), isinstance(one, DownloadRefused))):
            if not isinstance(failure, UrlLost) or len(failures) == len(urls):
                raise failure

    async def _fetch_one(self, url: PaidUrl) -> None:
        context, work = self._context, self._work
        try:
            file = await fetch(
                url,
                url.expires_at + self._clock,
                context.downloader,
                lambda content: self._images.keep(content, url.number),
                context.admission.sleep,
                context.config.download.attempts,
            )
        except UrlLost:
            await context.writer.do(attempts.lost, url.image)
            self._images.give_back(url.number)
            self._missing += 1
            raise
        context.writer.settle(self._images.place)
        self._succeeded |= await context.writer.do(attempts.stored, work.request, url.image, file, time.time())
        context.emit(ImageStored(work.job_name, work.id, f"{work.job_name}/{file.file}"))

    async def _end(self, error: RequestError | None) -> None:
        """Record how the request ended; a success was recorded with its last picture."""
        context, work = self._context, self._work
        if self._succeeded:
            context.emit(RequestEnded(work.job_name, work.id, "succeeded", None))
            return
        ending, error = await context.writer.do(attempts.end, work.request, error, time.time())
        if ending != "pending":
            context.emit(RequestEnded(work.job_name, work.id, ending, error))

    def _estimate(self, images: int) -> float | None:
        """Give what a call for so many images costs at most; None without a price."""
        work = self._work
        model = self._context.models.find(work.model)
        if model is None:
            return None
        sizes = [(one["width"], one["height"]) for one in work.inputs if one["role"] == "image"]
        return model.most(work.served_by, work.prompt, work.params, images, sizes)

    def _say_retrying(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RequestError):
            self._context.emit(Retrying(self._work.job_name, self._work.id, state.upcoming_sleep, error))

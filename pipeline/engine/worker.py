"""Worker: processes one request, from the queue to its record.

Permit, record, call, store, record, download, store, record. What a crash in between costs follows from the order: a
call is recorded before it is sent, a URL before its download, and a file is complete before the row that names it.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from pipeline.client.download import DownloadFailed
from pipeline.client.request import Call, Upload, body_digest
from pipeline.engine.caller import CallSpec
from pipeline.engine.events import (
    LimitLowered,
    Paused,
    ProviderUp,
    PurchasesResumed,
    Retrying,
)
from pipeline.engine.failed_calls import REFUSALS, FailedCalls, FailedError, host_silent
from pipeline.engine.hold import HeldBack
from pipeline.engine.image_writer import FileNames
from pipeline.engine.retry import call_with_retries, retrying
from pipeline.engine.routing import History
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import (
    DownloadRefused,
    Invalid,
    RateLimited,
    RequestError,
    Stop,
    UrlLost,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenacity import AsyncRetrying, RetryCallState

    from pipeline.engine.caller import CallResult
    from pipeline.engine.permit import Permit
    from pipeline.engine.provider_context import ProviderContext
    from pipeline.engine.routing import Routing
    from pipeline.ledger.queue import PaidUrl, QueuedRequest

_OVERLOADED = 503


class Worker:
    """Processes one request with the admission, the caller and the records of its provider."""

    def __init__(self, context: ProviderContext, request: QueuedRequest) -> None:
        self._context = context
        self._admission = context.admission
        self._caller = context.caller
        self._records = context.records
        self._request = request
        self._urls = list(request.urls)  # paid, to be downloaded
        self._clock = time.monotonic() - time.time()  # when their expiry was taken over
        self._missing = request.missing  # still to be requested
        self._numbers = set(request.numbers)
        self._names = FileNames(request.job_name, "", request.output_format)
        self._succeeded = False
        self._is_probe = False
        self._has_called = False  # how often it failed is known to this worker alone
        self._routing = context.routing if request.route is not None else None
        repeats = context.records.repeats.get(request.pk, request.cut_off)
        history = History(repeats) if self._routing is None else self._routing.history(request)
        self._failed_calls = FailedCalls(context, request, history)
        self._waits = 0  # downloads that wait for another attempt

    async def process(self) -> None:
        """Download what is paid and call for what is missing until nothing is, then record the end.

        Raises Stop if no further request like this one should be sent, and Withdrawn if this one should not.
        """
        error: RequestError | None = None
        is_final = False
        try:
            await self._make_all()
        except FailedError as failure:
            error, is_final = failure.error, True
        except Stop:
            raise
        except RequestError as reason:
            error = reason
        if self._routing is not None:
            self._go_on(self._routing, error, is_final=is_final)
        await self._records.finish(self._request, error, succeeded=self._succeeded)

    async def _make_all(self) -> None:
        """Make what is missing, and try again after failures; what a route serves is tried again by its members."""
        if self._routing is not None:
            await self._make_images()
            return
        left = (self._request.wait_until or 0.0) - time.time()
        if left > 0 and not self._urls:
            await self._admission.sleep(min(left, self._context.retry.outage_hours * 3600))  # the clock may be set back
        await call_with_retries(self._make_images, self._controller)

    def _go_on(self, routing: Routing, error: RequestError | None, *, is_final: bool) -> None:
        """Decide whether a request of a route has ended. Raises Withdrawn if it goes back to the queue for all."""
        if error is not None:
            seconds = routing.record_failure(self._request, error, is_final=is_final, is_probe=self._is_probe)
            if seconds is not None:
                if seconds < math.inf:
                    self._records.emit(Retrying(self._request.job_name, self._request.id, seconds, error))
                raise Withdrawn
        routing.forget(self._request)

    async def _make_images(self) -> None:
        """Process the request until no image is missing. Raises the RequestError of the first failure."""
        is_download = bool(self._urls)
        while self._urls or self._missing > 0:
            if (
                self._routing is not None
                and not self._urls
                and (is_download or self._routing.has_refused(self._request))
            ):
                raise Withdrawn  # whoever is the next to call makes what is missing
            if self._urls:
                self._set_stem(await self._records.claim(self._request))
            else:
                await self._call()
            await self._download_all()

    async def _call(self) -> None:
        """Make one call for what is missing: permit, record, call, record."""
        await self._failed_calls.check_repeats()
        self._check_mode()
        images = min(self._missing, self._context.target.provider.images_per_call)
        permit = await self._admission.acquire(self._request, images, returns=not self._has_called)
        self._is_probe = permit.is_probe
        try:
            self._check_mode()  # again: it may have changed while the call waited
            call = self._build_call(permit.images)
            body = body_digest(call, self._context.target.provider.dialect)
            attempt = await self._records.begin(self._request, permit, body)
            self._has_called = True
            self._set_stem(attempt.stem)
            spec = CallSpec(self._context.target, call, self._names, frozenset(self._numbers), attempt.headers)
            try:
                permit.check()
                on_sent = permit.on_sent if self._caller.is_elsewhere else permit.send
                result = await self._caller.call(spec, on_sent, permit.on_answered)
            except HeldBack:
                await self._records.withdraw(self._request, attempt)
                return
            except Withdrawn:
                await self._records.withdraw(self._request, attempt)
                raise
            self._clock = time.monotonic() - result.ended_at  # now, for the clock may jump at any moment
            completion = await self._records.complete(self._request, attempt, result)
            self._update_admission(result, permit)
        finally:
            permit.release()
        if result.error is not None:
            was_sent = result.outcome != "not_sent"
            await self._failed_calls.resolve(result.error, was_sent=was_sent)
            return
        if result.images:
            self._on_delivered()
        self._numbers.update(image.number for images in (result.images, result.urls) for image in images)
        self._urls, self._succeeded = list(completion.urls), completion.succeeded
        self._missing -= completion.settled
        if result.quarantined:
            self._failed_calls.count_broken(result.quarantined[0].reason)

    def _check_mode(self) -> None:
        """Check that the request may be called. Raises Withdrawn if it is to go by batch."""
        if not self._context.is_realtime(self._request):
            raise Withdrawn

    def _on_delivered(self) -> None:
        """Report that an image has arrived."""
        held_for = self._admission.delivery.record_delivery()
        if held_for is not None:
            self._records.emit(PurchasesResumed(self._context.target.provider.name, held_for))

    def _build_call(self, images: int) -> Call:
        """Return the call for this many images. Raises Invalid if an upload is gone, before the call is recorded."""
        request, folder = self._request, self._context.output / self._request.job_name
        prompt = {} if request.prompt is None else {"prompt": request.prompt}
        uploads = [
            Upload(input_image["role"], folder / input_image["file"], input_image["content_type"])
            for input_image in request.inputs
        ]
        for upload in uploads:
            upload.check()
        return Call(request.served_by, {**prompt, **request.params, "n": images}, uploads)

    def _update_admission(self, result: CallResult, permit: Permit) -> None:
        """Report to admission control how the call ended. Raises the Stop that follows from a failure."""
        admission, emit, name = self._admission, self._records.emit, self._context.target.provider.name
        error = result.error
        if error is None:
            admission.others.on_answered(result.remaining, permit.used)
            down_for, stop = admission.record_success(self._request, permit.sent_at), None
        elif result.outcome == "not_sent" and isinstance(error, Invalid):
            return  # no call was made
        else:
            is_refused = isinstance(error, RateLimited) or error.http_status == _OVERLOADED
            is_explained = is_refused and permit.reduce_after_refusal() and error.retry_after is None
            if isinstance(error, RateLimited) and not is_explained:
                self._pause(error)
            if isinstance(error, REFUSALS):
                self._failed_calls.on_refused(error)
            down_for = admission.down_for
            stop = admission.stop_after_failure(self._request, error)
            if stop is None and (down_for is None or permit.is_probe):
                self._failed_calls.report_outage(error, is_new=down_for is None)
        if admission.down_for is None and down_for is not None:
            emit(ProviderUp(name, down_for))
            self._records.record_outage(None)
        if stop is not None:
            raise stop

    def _pause(self, error: RateLimited) -> None:
        """Hold all calls after a 429, and enforce the limit that it states."""
        name = self._context.target.provider.name
        seconds = self._admission.pause(error)
        self._records.record_pause(time.time() + seconds)
        self._records.emit(Paused(name, seconds, error.message))
        if limit := self._admission.lower(self._request, error):
            model = self._request.model if self._admission.limits.stated is not limit else None
            self._records.emit(LimitLowered(name, limit.images, limit.per_seconds, error.message, model))
        else:
            self._admission.others.on_refused()

    async def _download_all(self) -> None:
        """Download all pending URLs concurrently. Raises UrlLost if every one expired, and DownloadRefused."""
        urls, self._urls = self._urls, []
        with self._admission.delivery.downloading():
            results = await asyncio.gather(*(self._download(url) for url in urls), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        await self._await_deliveries(failures)
        has_none = bool(failures) and len(failures) == len(urls)
        expired = (failure for failure in failures if isinstance(failure, UrlLost))
        lost = next(expired, None) if self._has_called else None  # another worker may have bought it days ago
        if lost is not None and has_none:
            self._failed_calls.check_delivery(lost.message, deterministic=False)
        if has_none and (stop := self._admission.delivery.stop_after_probe(self._request.pk)):
            raise stop
        if lost is not None:
            self._failed_calls.count_lost(lost)
        for failure in sorted(
            failures, key=lambda error: (isinstance(error, UrlLost), isinstance(error, DownloadRefused))
        ):
            if not isinstance(failure, UrlLost) or has_none:
                raise failure

    async def _download(self, url: PaidUrl) -> None:
        silent_since = time.monotonic()

        async def wait(reason: Exception, seconds: float) -> None:
            nonlocal silent_since
            if not isinstance(reason, DownloadFailed) or reason.http_status is not None:
                silent_since = time.monotonic()
            left = silent_since + self._context.retry.outage_hours * 3600 - time.monotonic()
            if left <= 0:
                raise host_silent(reason, self._context.retry.outage_hours)
            await self._wait_for_download(reason, min(seconds, left))

        try:
            caller = await self._context.caller_of(url.provider)
            image = await caller.download(url, self._names, url.expires_at + self._clock, wait)
        except UrlLost:
            await self._records.record_expired_url(url)
            self._numbers.discard(url.number)
            self._missing += 1
            raise
        except DownloadRefused as error:
            if error.quarantined is not None:
                await self._records.record_quarantine(self._request, [error.quarantined])
            raise
        else:
            self._succeeded |= await self._records.record_download(self._request, url, image)
            self._on_delivered()
            self._admission.on_progress()

    async def _wait_for_download(self, reason: Exception, seconds: float) -> None:
        """Wait between two downloads of a URL, and hold purchases if too many images are overdue."""
        self._failed_calls.check_delivery(str(reason), deterministic=False)
        is_first = not self._waits
        self._waits += 1
        try:  # a request whose downloads wait needs no room in flight
            await (self._admission.sleep if is_first else self._admission.pause_download)(seconds)
        finally:
            self._waits -= 1

    async def _await_deliveries(self, failures: Sequence[BaseException]) -> None:
        """If time cannot help a download, wait until others arrive: then this request fails alone, else it stops."""
        refused = next(
            (failure for failure in failures if isinstance(failure, DownloadRefused) and failure.deterministic), None
        )
        if refused is not None:
            self._failed_calls.check_delivery(refused.cause, deterministic=True, option=refused.option)
            before = self._admission.delivery.deliveries
            await self._admission.park(lambda: self._admission.delivery.deliveries > before)

    def _set_stem(self, stem: str) -> None:
        self._names = FileNames(self._names.job, stem, self._names.output_format)

    def _controller(self) -> AsyncRetrying:
        return retrying(
            self._context.retry,
            sleep=self._admission.sleep,
            counts=lambda error: error.counted and not self._is_probe,
            before_sleep=self._emit_retrying,
        )

    def _emit_retrying(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RequestError):
            self._records.emit(Retrying(self._request.job_name, self._request.id, state.upcoming_sleep, error))

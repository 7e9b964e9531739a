"""Failed calls of one request: decides what follows from each: another attempt, the request's failure, or a stop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.client.session import NO_HTTP
from pipeline.engine.events import ProviderDown, PurchasesHeld
from pipeline.engine.retry import FIRST_WAIT
from pipeline.errors import (
    DownloadRefused,
    Invalid,
    KeyRefused,
    ModelUnknown,
    OutcomeUnknown,
    PausedTooLong,
    QuotaSpent,
    RequestError,
    ServerFault,
    Stop,
    Unusable,
    UrlLost,
    WrongAddress,
)
from pipeline.ledger.error_kind import INTERRUPTED
from pipeline.ledger.outages import Outage

if TYPE_CHECKING:
    from pipeline.engine.provider_context import ProviderContext
    from pipeline.engine.refusal_guard import GuardDecision
    from pipeline.engine.routing import History
    from pipeline.ledger.queue import QueuedRequest

REFUSALS = (KeyRefused, QuotaSpent, WrongAddress, ModelUnknown)
"""Stops that one response of a server may mean by mistake."""


class FailedError(Exception):
    """This request fails with an error of a class that would otherwise be retried, or stop the provider."""

    def __init__(self, error: RequestError) -> None:
        super().__init__(error.message)
        self.error = error


def host_silent(reason: Exception, hours: float) -> DownloadRefused:
    """Return the error of a paid URL whose host has not answered for as long as an outage may last."""
    error = DownloadRefused(
        f"the host of a paid image has not answered for {hours:g} hours: {reason}; the image is paid, and `pipeline"
        " resume` downloads it without paying again"
    )
    error.cause = str(reason)
    return error


class FailedCalls:
    """The failed calls of one request, for its worker."""

    def __init__(self, context: ProviderContext, request: QueuedRequest, history: History) -> None:
        self._context = context
        self._admission = context.admission
        self._records = context.records
        self._request = request
        self._decision: GuardDecision = "stop"  # on the last refusal
        self._history = history
        self._cut_off = request.cut_off  # calls that may be paid, until they are looked at

    def on_refused(self, error: Stop) -> None:
        """Decide what follows from a refusal, while its call is still in flight; `resolve` does it."""
        self._decision = self._admission.refusals.decide_on_refusal(self._request, error, self._admission.in_flight - 1)

    def report_outage(self, error: RequestError, *, is_new: bool) -> None:
        """Record that the provider is down and until when it is tried again, if it is down; a new outage is emitted."""
        seconds, now = self._admission.given_up_in, time.time()
        if seconds is None:
            return
        self._records.record_outage(Outage(now, now + seconds, error.message))
        if is_new:
            until = now + error.retry_after if error.retry_after else None
            self._records.emit(ProviderDown(self._context.target.provider.name, error.message, until, now + seconds))

    async def resolve(self, error: RequestError, *, was_sent: bool) -> None:
        """Decide what follows from a failed call: return if it is to be made again, else raise what ends it."""
        if not isinstance(error, REFUSALS) and not self._is_paid(error):
            self._admission.yield_probes(self._request)
        match error:
            case Stop() if isinstance(error, REFUSALS):
                await self._resolve_refusal(error)
            case Invalid() if was_sent:
                await self._resolve_invalid(error)
            case OutcomeUnknown() | Unusable():
                await self._resolve_unknown(error)
            case ServerFault(retry_after=float(seconds)) if seconds > self._context.retry.outage_hours * 3600:
                raise PausedTooLong(f"{error.message} (run again in {seconds / 3600:.1f} hours)")
            case _:
                raise error

    async def _resolve_refusal(self, error: Stop) -> None:
        """One refusal is one refusal: it is a stop only if the guard confirms it."""
        guard, decision = self._admission.refusals, self._decision
        if decision == "await first":
            works = await self._admission.park(lambda: guard.known_good or not self._admission.in_flight)
            decision = "retry" if works and guard.known_good else "stop"
        if decision == "park":
            await self._admission.park(lambda: guard.others_passed(self._request, error))
            decision = guard.decide_after_parking(self._request, error)
        if decision == "stop":
            raise error
        if decision == "fail":
            raise FailedError(error)

    async def _resolve_invalid(self, error: Invalid) -> None:
        """Try again once if the provider works; then fail, unless every request in a row is refused."""
        guard = self._admission.refusals
        if guard.may_try_again(self._request):
            await self._admission.sleep(FIRST_WAIT)
            return
        if stop := guard.stop_after_invalid(self._request, error):
            raise stop
        before = guard.successes(None)
        await self._admission.park(lambda: guard.successes(None) > before)
        if guard.may_try_again(self._request):
            return
        raise error

    def _is_paid(self, error: RequestError) -> bool:
        """Return whether a failed call is a paid response without an image: by its status, or, of a provider that
        works, by being none that can be read.
        """
        if not isinstance(error, OutcomeUnknown):
            return isinstance(error, Unusable)
        is_no_http = error.type == NO_HTTP and self._admission.refusals.known_good
        return is_no_http or 200 <= (error.http_status or 0) < 300

    async def _resolve_unknown(self, error: RequestError) -> None:
        """Try another request before this one, which may be paid; at most `retry.unknown` times, probes included."""
        is_starting = not self._admission.refusals.known_good and error.http_status in {502, 503}
        if self._is_paid(error) or error.deterministic:
            self.check_delivery(error.message, deterministic=error.deterministic)
            if stop := self._admission.delivery.stop_after_probe(self._request.pk):
                raise stop
            self._admission.yield_probes(self._request)
        if not is_starting:
            self._count_repeat()
            if self._history.repeats > min(self._context.retry.unknown, 1 if error.deterministic else 10**9):
                raise FailedError(error)
            ended = self._admission.calls_ended
            await self._admission.park(lambda: self._admission.calls_ended > ended)
        raise error

    def count_broken(self, reason: str) -> None:
        """Count a response that brought broken images beside whole ones: the call for what is missing repeats it."""
        self._count_repeat()
        self._history.broken = reason

    def count_lost(self, error: UrlLost) -> None:
        """Count a response with a URL that expired: it is paid. Raises FailedError after `retry.unknown` repeats."""
        self._count_repeat()
        if self._history.repeats > self._context.retry.unknown:
            raise FailedError(error)

    def _count_repeat(self) -> None:
        """Count a call that may be paid, also for the next worker of the request in this run."""
        self._history.repeats += 1
        self._records.repeats[self._request.pk] = self._history.repeats

    async def check_repeats(self) -> None:
        """Check that the call for what is missing may be made. Raises FailedError after `retry.unknown` repeats.

        A call that the death of the last run cut off is repeated after another request, as any of unknown outcome.
        """
        broken = self._history.broken
        if self._cut_off > self._context.retry.unknown:
            what = "the last run died during this call: it may be paid"
            raise FailedError(OutcomeUnknown(what, type=INTERRUPTED))
        if self._cut_off:
            self._cut_off, ended = 0, self._admission.calls_ended
            await self._admission.park(lambda: self._admission.calls_ended > ended)
        if broken is not None and self._history.repeats > self._context.retry.unknown:
            what = f"an image in the response {broken}; the others are stored, and the broken ones may be paid"
            raise FailedError(Unusable(what, http_status=200))

    def check_delivery(self, reason: str, *, deterministic: bool, option: str | None = None) -> None:
        """Report that a paid response has brought no image. Raises the stop that may follow."""
        delivery = self._admission.delivery
        was_open = delivery.is_open
        stop = delivery.stop_after_overdue(self._request.pk, reason, deterministic=deterministic, option=option)
        if stop is not None:
            raise stop
        if delivery.is_open and not was_open:
            self._admission.give_back()
            self._records.emit(PurchasesHeld(self._context.target.provider.name, reason))

"""Refusal guard: decides whether a refusal concerns one request, one model, or the whole provider.

Before a provider's first success in the ledger, a refusal stops at once. After it, the same request is tried again
after a wait, then another request; only what repeats for different requests stops. What is refused for one request
while others pass fails that request alone.
"""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.engine.retry import until_changed
from pipeline.errors import Invalid, QuotaSpent, RepeatedRefusal, Stop

if TYPE_CHECKING:
    from pipeline.errors import RequestError
    from pipeline.ledger.queue import QueuedRequest

SAME_WAIT, OTHER_WAIT = 2.0, 4.0  # seconds before the same request is tried again, and before another one is
IN_A_ROW = 5
"""Different requests in a row that the service calls invalid with the same message, before that stops the provider."""

_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}  # OpenAI's guide to error codes
_CHANGING = re.compile(r"[\"'`][^\"'`]{0,200}[\"'`]|\b[\w-]*\d[\w-]*\b")  # names and numbers within a message


@dataclass(slots=True)
class _Suspicion:
    """A refusal that may concern more than one request, and which request may probe next."""

    first_pk: int
    model: str | None  # of the first request
    since: float
    probe_at: float
    probing: int | None = None
    is_confirmed_for_first: bool = False  # the first request was refused again: another one probes


GuardDecision = Literal["stop", "fail", "retry", "park", "await first"]
"""What follows from a refusal: a stop; the failure of this request; another attempt, when the guard admits it; or
parking until others have passed (`fail`) or nothing is left that could pass (`stop`); or parking until the calls in
flight show whether the provider works at all.
"""

RefusalScope = tuple[str, str | None] | None
"""What a refusal may concern: ("model", its name), ("operation", its name), or None for the whole provider."""


class RefusalGuard:
    """The refusals of one provider, from `known_good` on: whether the ledger knows a success of it."""

    def __init__(self, *, known_good: bool) -> None:
        self.known_good = known_good
        self._successes: dict[RefusalScope, int] = {}
        self._suspicions: dict[RefusalScope, _Suspicion] = {}
        self._refused_alone: dict[RefusalScope, set[int]] = {}
        self._invalid: dict[str, set[int]] = {}  # message -> requests, since the last success
        self._tried_again: set[int] = set()
        self._met: dict[int, tuple[int, float]] = {}  # request -> its refusals, and when the first was
        self._last_good: dict[RefusalScope, float] = {}  # when the last call that has passed was sent
        self._changed = asyncio.Event()

    def scope_of(self, request: QueuedRequest, error: Stop) -> RefusalScope:
        """Return what a refusal may concern: the operation of a wrong path, a model that the message names, or all."""
        if error.reach == "operation":
            return "operation", request.served_by
        return ("model", request.model) if error.reach == "model" or self.names_model(request, error) else None

    def names_model(self, request: QueuedRequest, error: RequestError) -> bool:
        """Return whether the message of an error names the request's model."""
        model = request.model
        return bool(model and re.search(rf"(?<![\w-]){re.escape(model)}(?![\w-])", error.message))

    def holds(self, request: QueuedRequest) -> bool:
        """Return whether a request has to wait for the confirmation of a refusal."""
        suspicion = self._suspicion_of(request)
        return suspicion is not None and suspicion.probing != request.pk

    def successes(self, scope: RefusalScope) -> int:
        """Return how many requests of this scope have passed in this run."""
        return self._successes.get(scope, 0)

    async def admit(self, request: QueuedRequest) -> None:
        """Wait until this request may be sent while a refusal is being confirmed."""
        while (suspicion := self._suspicion_of(request)) is not None:
            now = asyncio.get_running_loop().time()
            may_probe = (request.pk == suspicion.first_pk) != suspicion.is_confirmed_for_first
            if suspicion.probing == request.pk:
                return
            if may_probe and suspicion.probing is None and now >= suspicion.probe_at:
                suspicion.probing = request.pk
                return
            is_timed = may_probe and suspicion.probing is None
            await until_changed(self._changed, suspicion.probe_at - now if is_timed else None)

    def _suspicion_of(self, request: QueuedRequest) -> _Suspicion | None:
        return next((self._suspicions[scope] for scope in _scopes(request) if scope in self._suspicions), None)

    def on_passed(self, request: QueuedRequest, sent_at: float) -> None:
        """The provider served a call that was sent at this moment: no earlier refusal concerns all requests like it."""
        self.known_good = True
        for scope in _scopes(request):
            self._successes[scope] = self.successes(scope) + 1
            self._last_good[scope] = max(sent_at, self._last_good.get(scope, sent_at))
            if scope in self._suspicions and sent_at > self._suspicions[scope].since:
                del self._suspicions[scope]
        self._invalid.clear()
        self._changed.set()

    def decide_on_refusal(self, request: QueuedRequest, error: Stop, in_flight: int) -> GuardDecision:
        """Record a refusal, and return what follows from it. `in_flight` counts the other calls.

        OpenAI's own codes of a spent quota stop at once, other words about money if the same request meets them again;
        a 402 is confirmed as other refusals are.
        """
        is_quota = isinstance(error, QuotaSpent)
        if (is_quota and _QUOTA & {error.type, error.code}) or (not self.known_good and not in_flight):
            return "stop"
        scope, now = self.scope_of(request, error), asyncio.get_running_loop().time()
        count, since = self._met.get(request.pk, (0, now))
        self._met[request.pk] = (count + 1, since)
        if count and self.others_passed(request, error):
            return self._decide_alone(request, error)
        for other in [
            suspected
            for suspected, held in self._suspicions.items()
            if suspected != scope and held.first_pk == request.pk
        ]:
            del self._suspicions[other]  # the same request is refused for another reason, of another reach
        suspicion = self._suspicions.get(scope)
        if suspicion is None:
            suspicion = self._suspicions[scope] = _Suspicion(request.pk, request.model, now, now + SAME_WAIT)
        elif suspicion.probing == request.pk and (
            request.pk != suspicion.first_pk or (is_quota and error.http_status != 402)
        ):
            return self._decide_confirmed(request, scope, error)
        self._changed.set()
        if not self.known_good:
            return "await first"
        if request.pk != suspicion.first_pk or count == 0:
            return "retry"
        suspicion.is_confirmed_for_first, suspicion.probe_at = True, now + OTHER_WAIT
        return "park"

    def others_passed(self, request: QueuedRequest, error: Stop) -> bool:
        """Return whether a call that was sent after this request was first refused has passed."""
        return self._last_good.get(self.scope_of(request, error), -math.inf) > self._met[request.pk][1]

    def _decide_confirmed(self, request: QueuedRequest, scope: RefusalScope, error: Stop) -> GuardDecision:
        """A refusal repeats: it stops the model that it names, or that alone never passed, else the provider."""
        suspicion = self._suspicions.pop(scope, None)
        self._changed.set()
        own: RefusalScope = ("model", request.model)
        same_model = suspicion is not None and suspicion.model == request.model is not None
        only_model = same_model and not self.successes(own) and self.successes(None) > 0
        if error.reach == "provider" and (scope == own or only_model):
            error.reach = "provider's model"
        return "stop"

    def decide_after_parking(self, request: QueuedRequest, error: Stop) -> GuardDecision:
        """Return what follows for a request that was parked: it fails if others have passed, else it stops."""
        if self.others_passed(request, error):
            return self._decide_alone(request, error)
        return self._decide_confirmed(request, self.scope_of(request, error), error)

    def _decide_alone(self, request: QueuedRequest, error: Stop) -> GuardDecision:
        """A request is refused while others pass: it fails, unless all requests of its kind are refused."""
        kind: tuple[str, str | None] = (
            ("operation", request.served_by) if error.reach == "operation" else ("model", request.model)
        )
        refused = self._refused_alone.setdefault(kind, set())
        refused.add(request.pk)
        if kind[1] is None or len(refused) < 2 or self.successes(kind):
            return "fail"
        if error.reach == "provider":
            error.reach = "provider's model"
        return "stop"

    def on_released(self, request: QueuedRequest) -> None:
        """A call of this request is over: it probes no more."""
        for suspicion in self._suspicions.values():
            if suspicion.probing == request.pk:
                suspicion.probing = None
                self._changed.set()

    def on_ended(self, request: QueuedRequest) -> None:
        """This request is over: a refusal that only it could confirm is forgotten."""
        for scope in [scope for scope, suspicion in self._suspicions.items() if suspicion.first_pk == request.pk]:
            del self._suspicions[scope]
            self._changed.set()

    def stop_after_invalid(self, request: QueuedRequest, error: Invalid) -> Stop | None:
        """Record an invalid request; return a stop if every request in a row is refused with the same message."""
        message = _CHANGING.sub("…", error.message)
        for what, most in ((f"{error.http_status} {message}", IN_A_ROW), (str(error.http_status), 4 * IN_A_ROW)):
            same = self._invalid.setdefault(what, set())
            same.add(request.pk)
            if len(same) >= most:
                return RepeatedRefusal(
                    f"{len(same)} requests in a row were refused as invalid, such as: {error.message}",
                    http_status=error.http_status,
                    type=error.type,
                    code=error.code,
                )
        return None

    def may_try_again(self, request: QueuedRequest) -> bool:
        """Return True once for each request: a refusal of one call may be a passing fault if the provider works."""
        if not self.known_good or request.pk in self._tried_again:
            return False
        self._tried_again.add(request.pk)
        return True


def _scopes(request: QueuedRequest) -> tuple[RefusalScope, ...]:
    return None, ("model", request.model), ("operation", request.served_by)

"""Routing: which member of a route takes a request, and what follows for the request from a member's failure."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from pipeline.backoff import Backoff
from pipeline.engine.retry import FIRST_WAIT
from pipeline.errors import Moderated, NotSent, RateLimited, ServerFault, Stop, TryAgain
from pipeline.ledger.route_queue import RouteMember, RouteView, policy_refusals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.config.load import Config, RetryRules
    from pipeline.config.routes import Route
    from pipeline.engine.admission import Admission
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.errors import RequestError
    from pipeline.ledger.queue import QueuedRequest
    from pipeline.ledger.writer import Writer
    from pipeline.models.table import Models

LONG_PAUSE = 60.0
"""Seconds of a pause from which on the next member of a `fallback` route is asked."""

_FREE_STATUS = 503


class MemberAtWork(Protocol):
    """The dispatcher of a member, as others of its routes see it."""

    def call_room(self) -> int:
        """Return how many requests of a route it has room for now."""


@dataclass(slots=True)
class History:
    """What a request has met in this run, at whichever provider. `waits` says until when a member is not asked again,
    on the loop's clock.
    """

    repeats: int = 0  # calls that may be paid and are repeated
    broken: str | None = None  # what was wrong with an image beside whole ones
    failures: int = 0  # that count against retry.attempts
    waits: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # members whose content policy refused it
    unavailable: set[str] = field(default_factory=set)  # members that answered 503 since one last counted
    backoff: Backoff | None = None


class Routing:
    """The routes of one run. `busy` are the primary keys of their requests that are at work at any member."""

    def __init__(
        self, config: Config, tables: Mapping[str, Models], admissions: Mapping[str, Admission], stops: StopPolicy
    ) -> None:
        self.busy = set[int]()
        self._config = config
        self._tables = tables
        self._admissions = admissions
        self._stops = stops
        self._in_use = set[str]()
        self._at_work: dict[str, MemberAtWork] = {}
        self._histories: dict[int, tuple[QueuedRequest, History]] = {}

    @property
    def _rules(self) -> RetryRules:
        return self._config.retry

    async def use(self, names: Iterable[str], writer: Writer) -> list[Route]:
        """Return those of these names that are routes; they are looked at from now on."""
        found = [self._config.routes[name] for name in names if name in self._config.routes]
        for route in found:
            if route.name not in self._in_use and route.moderation == "next":
                self._remember(route, await writer.do(policy_refusals, route.name))
            self._in_use.add(route.name)
        return found

    def _remember(self, route: Route, refusals: Sequence[tuple[QueuedRequest, set[str]]]) -> None:
        """Take over which content policies refused a request in earlier runs, unless all did: then it begins anew."""
        for request, members in refusals:
            if any(member not in members and self._can_serve(request, member) for member in route.members):
                self.history(request).refused |= members

    def start(self, name: str, member: MemberAtWork) -> None:
        """A member's dispatcher is at work."""
        self._at_work[name] = member

    def end(self, name: str) -> None:
        """A member's dispatcher has ended."""
        self._at_work.pop(name, None)
        self.wake()

    def wake(self) -> None:
        """A request has come back to the queue: every member looks again."""
        for name in self._at_work:
            self._admissions[name].changed.set()

    def views(self, name: str) -> list[RouteView]:
        """Return the routes in use of a provider as it sees them now; none if it has stopped."""
        routes = [] if self._stops.is_stopped(name) else self._config.routes_with(name)
        return [self._view(route, name) for route in routes if route.name in self._in_use]

    def _view(self, route: Route, name: str) -> RouteView:
        living = tuple(self._member(member) for member in self.living(route))
        return RouteView(route, next(member for member in living if member.name == name), living)

    def living(self, route: Route) -> list[str]:
        """Return the members of a route that have not stopped, in order."""
        return [member for member in route.members if not self._stops.is_stopped(member)]

    def home_rules(self, request: QueuedRequest) -> tuple[tuple[str, ...], list[str]] | None:
        """Return the variables by which a request has a home, and the members that it may have; None if by none.

        What a member does not take is made by another one without its home moving.
        """
        route = self._config.routes.get(request.route or "")
        if (
            route is None
            or not route.same
            or any(self._is_barred(self.history(request), member) for member in route.members)
        ):
            return None
        return route.same, [member for member in self.living(route) if self._can_serve(request, member)]

    def _member(self, name: str) -> RouteMember:
        provider = self._config.providers[name]
        blocked = frozenset(block for block in self._stops.blocks if block.provider in {None, name})
        barred = frozenset(
            pk
            for pk, (_, history) in self._histories.items()
            if self._is_barred(history, name) or name in history.unavailable
        )
        refused = frozenset(pk for pk, (_, history) in self._histories.items() if name in history.refused)
        return RouteMember(name, provider.models, provider.operations, blocked, self._is_up(name), barred, refused)

    def _is_up(self, name: str) -> bool:
        admission = self._admissions.get(name)
        if admission is None:  # it is about to start
            return True
        is_down = admission.down_for is not None or admission.delivery.is_open or admission.hold.is_closed
        return not is_down and admission.throttle.paused_for <= LONG_PAUSE

    def _is_barred(self, history: History, name: str) -> bool:
        return name in history.refused or history.waits.get(name) == math.inf

    def _can_serve(self, request: QueuedRequest, name: str) -> bool:
        provider = self._config.providers[name]
        at = replace(request, provider=name)
        return provider.serves(request.model, request.served_by) and self._stops.allows(at)

    def excluded(self, name: str) -> set[int]:
        """Return the primary keys of requests that a member is not to take now."""
        now = asyncio.get_running_loop().time()
        return {
            pk
            for pk, (request, history) in self._histories.items()
            if self._waits(request, history, name, now) or self._belongs_to_other_member(request, history, name)
        }

    def _waits(self, request: QueuedRequest, history: History, name: str, now: float) -> bool:
        until = history.waits.get(name, 0.0)
        return until > now and (until < math.inf or self._next(request, history) is not None)

    def _belongs_to_other_member(self, request: QueuedRequest, history: History, name: str) -> bool:
        """Return whether a request that a content policy refused is not for this member to be asked next."""
        if name in history.refused:
            return True
        following = self._next(request, history) if history.refused else None
        return following is not None and following != name

    def _next(self, request: QueuedRequest, history: History) -> str | None:
        """Return the first member that may still be asked for a request that others refused."""
        route = self._config.routes[request.route or ""]
        able = (member for member in self.living(route) if self._can_serve(request, member))
        return next((member for member in able if not self._is_barred(history, member)), None)

    def rooms(self, name: str) -> dict[str, int]:
        """Return how many calls each other member at work has room for now."""
        rooms = {other: member.call_room() for other, member in self._at_work.items() if other != name}
        return {other: room for other, room in rooms.items() if room > 0 and not self._stops.is_stopped(other)}

    def choose(self, name: str, requests: Sequence[QueuedRequest], room: int) -> list[QueuedRequest]:
        """Return up to `room` of these requests that no other member with room is to be preferred for."""
        rooms = self.rooms(name)
        chosen: list[QueuedRequest] = []
        for request in requests:
            if len(chosen) >= room:
                break
            best = self._preferred(name, request, rooms)
            if best == name:
                chosen.append(request)
            else:
                rooms[best] -= 1
        return chosen

    def _preferred(self, name: str, request: QueuedRequest, rooms: Mapping[str, int]) -> str:
        """Return the member with the lowest known price for a request, then the first, among those with room."""
        route = self._config.routes[request.route or ""]
        if route.policy == "fallback" or route.same:
            return name
        _, history = self._histories.get(request.pk, (request, History()))
        now = asyncio.get_running_loop().time()
        able = [
            member
            for member in route.members
            if member == name
            or (
                rooms.get(member, 0) > 0
                and self._can_serve(request, member)
                and not self._waits(request, history, member, now)
                and not self._belongs_to_other_member(request, history, member)
            )
        ]
        return min(able, key=lambda member: (self._price(member, request), route.members.index(member)))

    def _price(self, name: str, request: QueuedRequest) -> float:
        model = self._tables[name].find(request.model)
        if model is None:
            return math.inf
        sizes = [
            (input_image["width"], input_image["height"])
            for input_image in request.inputs
            if input_image["role"] == "image"
        ]
        usd = model.max_cost(request.served_by, request.prompt, request.params, request.missing, sizes)
        return math.inf if usd is None else usd

    def history(self, request: QueuedRequest) -> History:
        """Return what a request has met in this run."""
        return self._histories.setdefault(request.pk, (request, History(request.cut_off)))[1]

    def forget(self, request: QueuedRequest) -> None:
        """A request has ended."""
        self._histories.pop(request.pk, None)

    def try_next_member(self, request: QueuedRequest) -> bool:
        """Exclude the member whose content policy has refused a request, if another one may still be asked; return
        whether that is so.
        """
        history = self.history(request)
        if self._config.routes[request.route or ""].moderation != "next":
            return False
        history.refused.add(request.provider)
        if self._next(request, history) is None:
            history.refused.discard(request.provider)
        return request.provider in history.refused

    def has_refused(self, request: QueuedRequest) -> bool:
        """Return whether its member is not asked again for what is missing, by its content policy."""
        return request.provider in self.history(request).refused

    def record_failure(
        self, request: QueuedRequest, error: RequestError, *, is_final: bool, is_probe: bool
    ) -> float | None:
        """Record a failure of a request at its member. Return the seconds until that member may be asked again, if the
        request goes back to the queue for all members; None if the request has failed.
        """
        history, member = self.history(request), request.provider
        if isinstance(error, Stop):  # which concerns this request alone
            history.waits[member] = math.inf
            return None if self._next(request, history) is None else math.inf
        if isinstance(error, Moderated):
            return math.inf if self.try_next_member(request) else None
        if is_final or not isinstance(error, TryAgain):
            return None
        if not is_probe and self._counts(request, history, error):
            history.failures += 1
        if history.failures >= self._rules.attempts:
            return None
        if isinstance(error, RateLimited | NotSent):  # the member as a whole waits
            return 0.0
        history.backoff = history.backoff or Backoff(FIRST_WAIT, self._rules.max_wait_seconds)
        seconds = history.backoff.next() if error.retry_after is None else error.retry_after
        history.waits[member] = asyncio.get_running_loop().time() + seconds
        return seconds

    def _counts(self, request: QueuedRequest, history: History, error: RequestError) -> bool:
        """Return whether a failure counts: a 503 moves a request, and counts once every member has answered so.

        One that has a home does not move.
        """
        route = self._config.routes[request.route or ""]
        if not isinstance(error, ServerFault) or error.http_status != _FREE_STATUS or route.same:
            return error.counted
        history.unavailable.add(request.provider)
        if any(self._can_serve(request, member) and member not in history.unavailable for member in self.living(route)):
            return False
        history.unavailable.clear()
        return True

"""Dispatcher: takes one provider's requests from the ledger as there is room, and starts a worker for each.

A worker is started when there is room for a call and few others wait for a permit. So the number of calls in flight
follows the latency (50 images a minute at 80 s each are 67 calls), and nothing but the limit decides the speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import TYPE_CHECKING

from pipeline.engine.events import ProviderPace
from pipeline.engine.stop_policy import Withdrawn
from pipeline.engine.worker import Worker
from pipeline.errors import Stop
from pipeline.ledger.queue import next_requests
from pipeline.ledger.route_queue import has_prospects, next_of_routes, paid_of_routes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pipeline.engine.batches.modes import Modes
    from pipeline.engine.events import Bottleneck
    from pipeline.engine.provider_context import ProviderContext
    from pipeline.engine.routing import Routing
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.ledger.queue import QueuedRequest, Scope
    from pipeline.ledger.writer import Writer

LOOKAHEAD = 128
"""Requests of one provider that wait for a permit at once: enough for the throttle to find a small call among large
ones (of calls for 1 and 10 images by turns, 32 reach 92 % of the limit, 128 reach 99 %). More would only wait in memory
instead of in the ledger.
"""

MOST_IDLE = 1000
"""Requests that are parked or between two attempts while others take their room in flight: they only take memory."""

POLL_SECONDS = 1.0  # how often the ledger is asked for what another process has submitted


class Dispatcher:
    """Processes one provider's requests. Every stop that a worker meets is passed to the stop policy."""

    def __init__(self, context: ProviderContext, scope: Scope, writer: Writer, stops: StopPolicy, modes: Modes) -> None:
        self._context = context
        self._provider = context.target.provider
        self._admission = context.admission
        self._scope = scope
        self._writer = writer
        self._stops = stops
        self._modes = modes
        self._routing = context.routing
        self._active: set[int] = set()  # primary keys of the requests at work

    async def run(self) -> None:
        """Process requests until none is left or a stop, as a member of its routes."""
        if self._routing is None:
            await self._work()
            return
        self._routing.start(self._provider.name, self)
        try:
            await self._work()
        finally:
            self._routing.end(self._provider.name)

    async def _work(self) -> None:
        """Take requests as long as there are any and no stop; return when the last one taken has ended."""
        async with asyncio.TaskGroup() as workers:
            while not self._admission.halted:
                self._admission.changed.clear()
                taken = await self._take()
                for request in taken:
                    self._active.add(request.pk)
                    workers.create_task(self._process(request), name=request.id)
                if taken:
                    await asyncio.sleep(0)  # they queue for permits
                elif not self._active and not await self._has_prospects():
                    break
                elif self._active and self._admission.parked == len(self._active):
                    self._admission.unpark_all()  # nothing else is left that they could wait for
                    await asyncio.sleep(0)
                else:
                    await self._until_changed()

    async def _take(self) -> list[QueuedRequest]:
        """Take as many requests as there is room for in flight and among those that wait for permits."""
        room = self._room()
        if room <= 0:
            return []
        try:
            found: list[QueuedRequest] = []
            for priority in self._priorities():
                found += await self._take_own(room - len(found), priority, found)
                if self._routing is not None and not self._admission.halted:
                    found += await self._take_of_routes(self._routing, len(found), priority)
        except Stop as error:  # no room even to read: calls in flight are completed nevertheless
            self._stops.stop(error, None)
            return []
        if not self._admission.halted:
            return found
        if self._routing is not None:  # others take what this one has not begun
            self._routing.busy.difference_update(request.pk for request in found if request.route is not None)
            self._routing.wake()
        return []

    def _priorities(self) -> list[int | None]:
        """Return the priorities of jobs, the highest first, if requests of routes are to be placed among others by it;
        else None alone, for all.
        """
        found = set(self._admission.priorities.values())
        if not found or self._routing is None or not self._routing.views(self._provider.name):
            return [None]
        return [*sorted({0, *found}, reverse=True)]

    async def _take_own(
        self, room: int, priority: int | None = None, found: Collection[QueuedRequest] = ()
    ) -> list[QueuedRequest]:
        """Return requests of jobs that name the provider itself, those `found` left out."""
        if room <= 0:
            return []
        return await self._writer.do(
            next_requests,
            self._provider.name,
            self._scope,
            frozenset({*self._active, *(request.pk for request in found)}),
            room,
            frozenset(self._stops.blocks),
            self._modes.realtime,
            priority,
        )

    async def _take_of_routes(self, routing: Routing, taken: int, priority: int | None) -> list[QueuedRequest]:
        """Return requests of routes: those whose images are paid here, and as many as may be called at once.

        What is taken is busy at once, so that no other member takes it.
        """
        name = self._provider.name
        views, busy = routing.views(name), routing.busy
        room = self._room_in_flight() - taken
        if not views or room <= 0:
            return []
        found = await self._writer.do(paid_of_routes, views, self._scope, frozenset(busy), room)
        found = self._keep(routing, found)
        room = min(room - len(found), self.call_room(priority) - taken)
        if room > 0:
            more = await self._next_of_routes(routing, room + sum(routing.rooms(name).values()), priority)
            found += self._keep(
                routing, routing.choose(name, [request for request in more if request.pk not in busy], room)
            )
        return found

    async def _next_of_routes(self, routing: Routing, most: int, priority: int | None) -> list[QueuedRequest]:
        views, left_out = routing.views(self._provider.name), routing.excluded(self._provider.name)
        look = functools.partial(next_of_routes, realtime=self._modes.realtime, priority=priority)
        return await self._writer.do(look, views, self._scope, frozenset(routing.busy), left_out, most)

    def _keep(self, routing: Routing, found: list[QueuedRequest]) -> list[QueuedRequest]:
        """Return what no other member has taken meanwhile, and mark it as busy."""
        kept = [request for request in found if request.pk not in routing.busy]
        routing.busy.update(request.pk for request in kept)
        return kept

    async def give_way(self) -> None:
        """If a request of a higher priority finds no room, take those of a lower one out of the line."""
        if self._room() <= 0 and self._admission.waiting:
            first: Sequence[QueuedRequest] = await self._take_own(1)
            if self._routing is not None and self._admission.is_passable:
                first = [*first, *await self._next_of_routes(self._routing, 1, None)]
            for request in first:
                priority = self._admission.priorities.get(request.job_pk, 0)
                if request.route is None or not self._admission.waiting_from(priority):
                    self._admission.give_way(priority)

    def call_room(self, priority: int | None = None) -> int:
        """Return how many requests of routes may be taken to be called: those that need not wait, and the next one.

        Calls of a lower priority than this one do not count: they wait longer.
        """
        room, admission = self._room_in_flight(), self._admission
        if admission.halted or not admission.is_passable:
            return 0
        is_limited = admission.throttle.limit is not None or admission.down_for is not None
        adaptive = admission.room.adaptive
        if adaptive is not None and not is_limited and not admission.delivery.is_open:
            return min(room, adaptive.room + 1 - admission.waiting_from(priority))
        return min(room, 1 - admission.waiting_from(priority))

    def _room(self) -> int:
        return min(self._room_in_flight(), LOOKAHEAD - self._admission.waiting)

    def _room_in_flight(self) -> int:
        at_work = len(self._active) - min(self._admission.idle, MOST_IDLE)
        return self._provider.concurrency - at_work

    async def _has_prospects(self) -> bool:
        """Return whether a request of a route is still to come: it is at work at another member, or waits."""
        routing, name = self._routing, self._provider.name
        if routing is None or self._admission.halted or not (views := routing.views(name)):
            return False
        return bool(routing.busy) or await self._writer.do(has_prospects, views, self._scope, self._modes.realtime)

    async def _until_changed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._admission.changed.wait()

    async def _process(self, request: QueuedRequest) -> None:
        """Process one request, and leave it ended or in the queue, whatever happens."""
        try:
            await Worker(self._context, request).process()
        except Stop as error:
            self._context.records.requeue(request)
            self._stops.stop(error, request)
        except Withdrawn:
            self._context.records.requeue(request)
        except asyncio.CancelledError:
            self._context.records.requeue(request)
            raise
        finally:
            self._active.discard(request.pk)
            self._admission.on_ended(request)
            self._admission.changed.set()
            if self._routing is not None and request.route is not None:
                self._routing.busy.discard(request.pk)
                self._routing.wake()

    def pace(self) -> ProviderPace:
        """Return what the requests at work wait for now. Cheap: a few numbers that are counted anyway."""
        throttle, caller = self._admission.throttle, self._context.caller
        limit, paused = throttle.limit, throttle.paused_for
        return ProviderPace(
            provider=self._provider.name,
            bottleneck=self._bottleneck(),
            until=round(time.time() + paused, 1) if paused else None,
            images=limit.images if limit else None,
            per_seconds=limit.per_seconds if limit else None,
            downloads=caller.downloads,
            expires_at=caller.next_expiry,
        )

    def _bottleneck(self) -> Bottleneck:
        """Return what most requests wait for. Permits are granted at once unless the limit binds."""
        admission, calls, downloads = self._admission, self._context.caller.in_flight, self._context.caller.downloads
        if admission.hold.is_closed:
            return "held"
        if admission.throttle.paused_for:
            return "paused"
        if admission.down_for is not None:
            return "provider"
        if admission.waiting and admission.throttle.limit:
            return "limit"
        between_calls = max(0, admission.resting - admission.waiting - downloads)
        storing = max(0, len(self._active) - admission.waiting - calls - downloads - between_calls)
        waits: dict[Bottleneck, int] = {"provider": calls + between_calls, "downloads": downloads, "disk": storing}
        most = max(waits, key=lambda name: waits[name])
        return most if waits[most] else ""

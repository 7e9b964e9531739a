"""One provider at work: requests are taken from the ledger as there is room, and each gets a worker.

A worker is made when there is room for a call and few others wait at the gate. So the number of calls in flight follows
the latency (50 pictures a minute at 80 s each are 67 calls), and nothing but the limit decides the speed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from pipeline.engine.events import ProviderPace
from pipeline.engine.worker import Worker
from pipeline.errors import Stop
from pipeline.ledger import attempts
from pipeline.ledger.queue import pending

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pipeline.engine.events import Bottleneck
    from pipeline.engine.provider_context import ProviderContext
    from pipeline.ledger.queue import Block, QueuedRequest, Scope

LOOKAHEAD = 128
"""Requests of one provider that wait at its gate at once: enough for the throttle to find a small call among large ones
(of calls for 1 and 10 pictures by turns, 32 reach 92 % of the limit, 128 reach 99 %). More would only wait in memory
and not in the ledger.
"""

POLL_SECONDS = 1.0  # how often the ledger is asked for what another process has submitted


class Dispatcher:
    """One provider at work. `stopped` is told of every stop that a worker meets, and of the request that met it."""

    def __init__(
        self,
        context: ProviderContext,
        scope: Scope,
        blocked: Collection[Block],
        stopped: Callable[[Stop, QueuedRequest | None], None],
    ) -> None:
        self._context = context
        self._scope = scope
        self._blocked = blocked
        self._stopped = stopped
        self._admission = context.admission
        self._carrying: set[int] = set()

    def halt(self) -> None:
        """Make no further call: whoever only waits goes back into the queue at once."""
        self._admission.halt()

    def pace(self) -> ProviderPace:
        """Say what the requests at work wait for now. Cheap: a few numbers that are counted anyway."""
        throttle, downloader = self._admission.throttle, self._context.downloader
        limit, paused = throttle.limit, throttle.paused_for
        return ProviderPace(
            provider=self._context.provider.name,
            bottleneck=self._bottleneck(),
            until=round(time.time() + paused, 1) if paused else None,
            images=limit.images if limit else None,
            per_seconds=limit.per_seconds if limit else None,
            downloads=downloader.under_way,
            expires_at=downloader.expires_at,
        )

    def _bottleneck(self) -> Bottleneck:
        """Give what most requests wait for. A place at the gate is free, so who stands there waits for the limit."""
        admission, calls, downloads = self._admission, self._context.api.in_flight, self._context.downloader.under_way
        if admission.throttle.paused_for:
            return "paused"
        if admission.away is not None:
            return "provider"
        if admission.waiting and admission.throttle.limit:
            return "limit"
        between_calls = max(0, admission.resting - admission.waiting - downloads)
        image_writer = max(0, len(self._carrying) - admission.waiting - calls - downloads - between_calls)
        waits: dict[Bottleneck, int] = {"provider": calls + between_calls, "downloads": downloads, "disk": image_writer}
        most = max(waits, key=lambda name: waits[name])
        return most if waits[most] else ""

    async def work(self) -> None:
        """Take requests while there are any and none after a halt; return when the last one taken has ended."""
        async with asyncio.TaskGroup() as workers:
            while not self._admission.halted:
                self._admission.moved.clear()
                taken = await self._take()
                for work in taken:
                    self._carrying.add(work.request)
                    workers.create_task(self._carry(work), name=work.id)
                if taken:
                    await asyncio.sleep(0)  # they take their places at the gate
                elif not self._carrying:
                    break
                else:
                    await self._until_moved()

    async def _take(self) -> list[QueuedRequest]:
        """Take as many requests as there is room for in flight and at the gate."""
        room = min(self._context.provider.concurrency - len(self._carrying), LOOKAHEAD - self._admission.waiting)
        if room <= 0:
            return []
        try:
            found = await self._context.writer.do(
                pending,
                self._context.provider.name,
                self._scope,
                frozenset(self._carrying),
                room,
                frozenset(self._blocked),
            )
        except Stop as error:  # no room even to read: calls in flight are to be answered all the same
            self._stopped(error, None)
            return []
        return [] if self._admission.halted else found

    async def _until_moved(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._admission.moved.wait()

    async def _carry(self, work: QueuedRequest) -> None:
        """Have one request carried, and leave it ended or back in the queue, whatever happens."""
        try:
            await Worker(self._context, work).carry()
        except Stop as error:
            self._context.writer.post(attempts.put_back, work.request)
            self._stopped(error, work)
        except asyncio.CancelledError:
            self._context.writer.post(attempts.put_back, work.request)
            raise
        finally:
            self._carrying.discard(work.request)
            self._admission.moved.set()

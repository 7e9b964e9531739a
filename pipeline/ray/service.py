"""Service of a worker: makes the calls of its orders within its lease, and reports what became of them."""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import tempfile
import time
import traceback
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.engine.caller import CallSpec, LocalCaller
from pipeline.errors import PipelineError
from pipeline.ray.lease import ORPHAN_SECONDS, Lease, LeaseOverError, clock
from pipeline.ray.messages import MANY, MOMENT, POLL_SECONDS, SHORT_MOMENT, Answer, CallOrder, Done, Failure, Sent
from pipeline.ray.uploads import fetch_uploads
from pipeline.ray.worker_store import ObjectWriter
from pipeline.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.engine.caller import CallResult, Target
    from pipeline.ray.messages import FetchOrder, Order, Work
    from pipeline.storage import LocalStore

_WATCH_SECONDS = 0.25


class Service:
    """The callers of one worker, its orders at work, and reports that the run has not confirmed.

    `end` ends the process, if the run is not heard of any more.
    """

    def __init__(self, work: Work, end: Callable[[], object]) -> None:
        stores = Stores(work.output, work.images, work.images_options)
        self._remote = stores.remote
        self._store: LocalStore = stores.new if stores.remote is None else ObjectWriter(stores.remote)
        self._environment = {**os.environ, **work.secrets}
        self._end = end
        self._lease = Lease()
        self._callers: dict[str, LocalCaller] = {}
        self._targets: dict[str, Target] = {}
        self._stack = AsyncExitStack()
        self._inputs = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))  # from an object store
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports: list[Sent | Done] = []
        self._first = 0  # the number of the first of them
        self._arrived = asyncio.Event()
        self._had_many = False  # in the last answer
        self._blocks: set[int] = set()
        self._watch = asyncio.create_task(self._end_without_lease())

    async def prepare(self) -> None:
        """Import what the first image would wait for."""
        if self._remote is not None:
            await asyncio.to_thread(self._remote.open)

    async def open(self, target: Target) -> None:
        """Open the sessions with a provider. Raises ConfigError if a variable is missing here."""
        name = target.provider.name
        if name not in self._callers:
            caller = LocalCaller(target, self._store, self._environment)
            self._callers[name] = await self._stack.enter_async_context(caller)
            self._targets[name] = target

    def take(self, stated: float, number: int, orders: Sequence[Order]) -> None:
        """Start to work on a block of orders; a block that arrives again is ignored."""
        self._lease.renew(stated)
        if number in self._blocks:
            return
        self._blocks.add(number)
        for order in orders:
            task = asyncio.create_task(self._work(order))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def poll(self, stated: float, confirmed: int) -> Answer:
        """Return the reports that the run has not confirmed, as soon as there are some, or none after a while."""
        self._lease.renew(stated)
        del self._reports[: max(0, confirmed - self._first)]
        self._first = max(self._first, confirmed)
        if not self._reports:
            self._arrived.clear()
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._arrived.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(MOMENT if self._had_many else SHORT_MOMENT)
        self._had_many = len(self._reports) >= MANY
        return Answer(clock(), time.time(), len(self._blocks), self._first, list(self._reports))

    def _report(self, report: Sent | Done) -> None:
        self._reports.append(report)
        self._arrived.set()

    async def _work(self, order: Order) -> None:
        try:
            done = Done(order.id, *await self._do(order))
            pickle.dumps(done)
        except Exception:  # noqa: BLE001 - a bug, which the run reports as its own
            done = Done(order.id, Failure(RuntimeError, (traceback.format_exc(),), {}))
        self._report(done)

    async def _do(self, order: Order) -> tuple[Any, tuple[Any, ...]]:
        names = order.names
        try:
            value: Any = await (self._call(order) if isinstance(order, CallOrder) else self._fetch(order))
        except (PipelineError, LeaseOverError) as error:
            value = Failure.of(error)
        left = self._store.take_left(names.job, names.stem) if isinstance(self._store, ObjectWriter) else ()
        return value, left

    async def _call(self, order: CallOrder) -> CallResult:
        def sent() -> None:
            self._lease.check()
            self._report(Sent(order.id))

        call = await fetch_uploads(order.call, self._remote, self._inputs)
        spec = CallSpec(self._targets[order.provider], call, order.names, order.taken, order.headers)
        return await self._callers[order.provider].call(spec, sent)

    async def _fetch(self, order: FetchOrder) -> Any:
        caller = self._callers[order.provider]
        return await caller.fetch(order.url, order.expires_at, order.names, order.number, is_last=order.is_last)

    async def _end_without_lease(self) -> None:
        """End the process once the lease is over and nothing is at work, or if that takes too long."""
        try:
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                over_for, is_busy = self._lease.over_for, bool(self._tasks or self._reports)
                if 0 <= over_for < math.inf and (not is_busy or over_for >= ORPHAN_SECONDS):
                    break
        except Exception:  # noqa: BLE001 - a bug: without this watch the process might never end
            traceback.print_exc()  # into the log of the run
        self._end()

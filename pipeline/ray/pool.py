"""Pool of workers: hands out orders to those that are alive, and decides what becomes of the orders of lost ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import TYPE_CHECKING, Any

from pipeline.engine.caller import CallResult
from pipeline.engine.circuit_breaker import WORKER_LOST
from pipeline.engine.stop_policy import Withdrawn
from pipeline.engine.worker_events import WorkerLost, WorkersReady
from pipeline.errors import ConfigError, OutcomeUnknown
from pipeline.ray.lease import LeaseOverError
from pipeline.ray.messages import Done, Failure
from pipeline.ray.tickets import LARGEST_BLOCK, OrderTicket, share_out
from pipeline.ray.worker import RemoteWorker, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.engine.caller import Target
    from pipeline.engine.events import Listener
    from pipeline.ledger.workers import WorkerRow
    from pipeline.ray.cluster import Cluster
    from pipeline.ray.messages import Order, Work

START_SECONDS = 30.0
"""How long a run waits for its first worker, and until it says how many there are."""

SLOW_START_SECONDS = 180.0
"""How long it waits for its first worker if processors are free: what they start is slow on a busy machine."""

_BUNDLE_SECONDS = 0.02  # in which orders are gathered into blocks
_AGAIN_SECONDS = 1.0  # between two tries to set up a worker that Ray has not placed again yet


class Pool:
    """The workers of a run.

    Ray places an actor for each of `processes` and replaces it if it dies; what it had in hand is decided here.
    """

    def __init__(self, cluster: Cluster, work: Work, emit: Listener) -> None:
        self.workers: list[RemoteWorker] = []  # those that are alive
        self.may_renew: Callable[[], bool] = lambda: True
        self._cluster = cluster
        self._work = work
        self._emit = emit
        self._targets: list[Target] = []
        self._ids = itertools.count()
        self._waiting: list[OrderTicket] = []  # to be handed out
        self._bundling: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._is_halted = False
        self.empty_since: float | None = None  # on the monotonic clock

    async def start(self, processes: int, tasks: asyncio.TaskGroup) -> None:
        """Ask Ray for workers and wait for the first one. Raises ConfigError if there is none in time.

        Each worker is kept by one of `tasks`; all workers end with these.
        """
        seconds = SLOW_START_SECONDS if self._cluster.has_room() else START_SECONDS
        for number in range(1, processes + 1):
            tasks.create_task(self._keep(number), name=f"worker {number}")
        tasks.create_task(self._emit_ready(processes), name="workers ready")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.workers:
                    self._changed.clear()
                    await self._changed.wait()
        if not self.workers:
            raise ConfigError(self._no_worker_message(seconds))

    def _no_worker_message(self, seconds: float) -> str:
        reasons = "".join(f"; {node} {reason}" for node, reason in self._cluster.refused.values())
        problem = "no node can be used" if reasons else f"Ray placed no worker within {seconds:.0f} seconds"
        hint = "" if reasons else f": {self._cluster.room()}; lower `workers.processes` or `workers.cpus`, or add nodes"
        return f"{problem}{reasons}{hint}"

    async def _emit_ready(self, processes: int) -> None:
        """Emit how many workers there are: when all are ready, or after `START_SECONDS`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while len(self.workers) < processes:
                    self._changed.clear()
                    await self._changed.wait()
        self._emit(WorkersReady(len(self.workers), processes, len({worker.node_id for worker in self.workers})))

    async def _keep(self, number: int) -> None:
        """Keep one worker at work: set up what Ray has placed, serve it until it is lost, and again."""
        from ray.exceptions import RayError

        actor = self._cluster.actor()
        while True:
            worker = await self._set_up(number, actor)
            if worker is None:
                with contextlib.suppress(RayError):  # Ray itself is gone
                    actor = self._cluster.actor(instead_of=actor)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            self._add(worker)
            try:
                await worker.serve()
            except WorkerLostError as reason:
                self._fail_lost_worker(worker, str(reason))
                if reason.is_silent:
                    with contextlib.suppress(RayError):
                        await asyncio.to_thread(self._cluster.restart, actor)  # not at once, if Ray itself is gone
            finally:
                self._remove(worker)

    async def _set_up(self, number: int, actor: Any) -> RemoteWorker | None:
        """Return a worker that is ready; None if its node is not to be used, or the actor is gone for good."""
        from ray.exceptions import ActorUnavailableError, RayError

        while True:
            try:
                facts = await actor.facts.remote()
                if not await self._cluster.admits(actor, facts, self._targets):
                    return None
                worker = RemoteWorker(number, actor, facts, self._may_renew_now, self._handle)
                fault = await worker.set_up(self._work, self._targets)
            except ActorUnavailableError:
                await asyncio.sleep(_AGAIN_SECONDS)
            except RayError:
                return None
            else:
                if fault is not None:
                    self._cluster.refuse(facts, fault)
                return worker if fault is None else None

    def _may_renew_now(self) -> bool:
        return self.may_renew()

    def _add(self, worker: RemoteWorker) -> None:
        self.workers.append(worker)
        self.empty_since = None
        self._changed.set()
        self._bundle()

    def _remove(self, worker: RemoteWorker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        if not self.workers:
            self.empty_since = time.monotonic()

    async def open(self, target: Target) -> None:
        """Open sessions with a provider in all workers, also those that come. Raises ConfigError."""
        self._targets.append(target)
        for worker, fault in zip(
            list(self.workers),
            await asyncio.gather(*(worker.open(target) for worker in self.workers), return_exceptions=True),
            strict=True,
        ):
            if isinstance(fault, str):
                self._targets.remove(target)
                raise ConfigError(f"node {worker.node}: {fault}")
            if isinstance(fault, BaseException):  # it may lack the sessions: another process takes its place
                await asyncio.to_thread(self._cluster.restart, worker.actor)

    def rows(self) -> list[WorkerRow]:
        """Return what the ledger records of the workers."""
        return [worker.row for worker in self.workers]

    def next_id(self) -> int:
        """Return the id of the next order."""
        return next(self._ids)

    async def do(self, order: Order, on_sent: Callable[[], None] = lambda: None) -> tuple[Done, OrderTicket]:
        """Have an order done by a worker; return what it reports, and the ticket.

        Raises Withdrawn if it is not handed out since the run is stopped and there is no worker.
        """
        ticket = OrderTicket(order, on_sent)
        self._waiting.append(ticket)
        self._bundle()
        try:
            return await ticket.done, ticket
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def _bundle(self) -> None:
        """Hand out what waits in a moment, or at once if it fills a block."""
        if self._is_halted and not self.workers:
            for ticket in self._waiting:
                if not ticket.done.done():
                    ticket.done.set_exception(Withdrawn())
        elif len(self._waiting) >= LARGEST_BLOCK:
            self._hand_out()
        elif self._waiting and self._bundling is None:
            self._bundling = asyncio.get_running_loop().call_later(_BUNDLE_SECONDS, self._hand_out)

    def _hand_out(self) -> None:
        if self._bundling is not None:
            self._bundling.cancel()
            self._bundling = None
        if not self.workers:
            return
        waiting, self._waiting = self._waiting, []
        tickets = [ticket for ticket in waiting if not ticket.done.done()]
        for worker, block in share_out(tickets, {worker: len(worker.tickets) for worker in self.workers}):
            worker.hand_out(block)

    def halt(self) -> None:
        """Withdraw what waits for a worker, if there is none: nothing more is to be begun."""
        self._is_halted = True
        self._bundle()

    def give_up(self) -> None:
        """Count the calls in flight as unknown: what their workers report does not arrive any more."""
        for worker in list(self.workers):
            self._fail_lost_worker(worker, "Ray is gone")

    def _handle(self, worker: RemoteWorker, ticket: OrderTicket, done: Done) -> None:
        """Complete a ticket by what its worker reports."""
        value = done.value
        if isinstance(value, Failure) and value.kind is LeaseOverError:  # nothing was sent: another worker does it
            self._waiting.append(ticket)
            self._bundle()
            return
        if ticket.done.done():
            return
        ticket.ahead = worker.ahead
        if not isinstance(value, Failure):
            worker.images += len(value.images) if isinstance(value, CallResult) else 1
        ticket.done.set_result(done)

    def _fail_lost_worker(self, worker: RemoteWorker, reason: str) -> None:
        """Decide on the orders of a worker whose lease is over: its calls are unknown, and its downloads are free."""
        self._remove(worker)
        now, calls = time.time(), 0
        for ticket in worker.tickets.values():
            if not ticket.is_call:
                self._waiting.append(ticket)
                continue
            calls += 1
            ticket.sent(now)
            if not ticket.done.done():
                ticket.done.set_result(Done(ticket.order.id, _unknown(worker, now)))
        worker.tickets.clear()
        self._emit(WorkerLost(worker.number, worker.node, worker.pid, calls, reason))
        self._bundle()


def _unknown(worker: RemoteWorker, now: float) -> CallResult:
    """Return what is known of a call whose worker is lost: that it may have been sent, and may be paid."""
    what = f"worker {worker.number} (process {worker.pid} on {worker.node}) was lost during this call"
    error = OutcomeUnknown(what, type=WORKER_LOST)
    return CallResult(error.outcome, now, now, error)

"""Workers in this process: their own code and the pool's, and in place of Ray calls that the loop makes a moment later.

Ray itself is in the drills and in e2e; here a test decides what dies, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray.exceptions import ActorDiedError, ActorUnavailableError

from pipeline.background import background_tasks
from pipeline.ray.actor import WorkerActor
from pipeline.ray.caller import RayCaller
from pipeline.ray.messages import Work
from pipeline.ray.pool import Pool
from pipeline.ray.uploads import SharedInputs
from pipeline.stores import Stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.workbench import Bench

_numbers = itertools.count(1)


class ActorHere(WorkerActor):
    """An actor in this process; `hung` keeps its answers back, and a dead one raises what Ray would."""

    def __init__(self) -> None:
        super().__init__()
        self.number = next(_numbers)
        self.death = asyncio.Event()
        self.hung: asyncio.Event | None = None
        self.orders: list[int] = []  # how many arrived in each block

    def facts(self) -> dict[str, Any]:
        """Return what a process on this machine would."""
        return {"host": f"node-{self.number}", "pid": os.getpid(), "node_id": f"{self.number:032x}"}

    def end(self) -> None:
        """Be dead."""
        self.die()

    def die(self) -> None:
        """Stop all work at once, as a kill does."""
        self.death.set()
        if self._service is not None:
            for task in (*self._service._tasks, self._service._watch):
                task.cancel()


@dataclass
class Method:
    """One method of an actor, as a handle has it."""

    handle: Handle
    name: str

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        """Call it as soon as the loop comes to it; what it raises is raised where it is awaited."""
        task = asyncio.ensure_future(self._call(arguments))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _call(self, arguments: tuple[Any, ...]) -> Any:
        actor = self.handle.actor
        if actor.death.is_set():
            raise ActorUnavailableError("it is being replaced", None)
        if actor.hung is not None:
            await actor.hung.wait()
        answer = getattr(actor, self.name)(*arguments)
        if not asyncio.iscoroutine(answer):
            return answer
        work, death = asyncio.ensure_future(answer), asyncio.ensure_future(actor.death.wait())
        await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
            raise ActorDiedError
        death.cancel()
        return work.result()


@dataclass
class Handle:
    """A handle of an actor."""

    actor: ActorHere

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)


@dataclass
class ClusterHere:
    """Places actors in this process."""

    handles: list[Handle] = field(default_factory=list)
    actors: list[ActorHere] = field(default_factory=list)  # all that were ever started
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)

    def actor(self, instead_of: Handle | None = None) -> Handle:
        """Place an actor."""
        if instead_of is not None:
            instead_of.actor.die()
        self.handles.append(Handle(self._start()))
        return self.handles[-1]

    def _start(self) -> ActorHere:
        self.actors.append(ActorHere())
        return self.actors[-1]

    def replace(self, handle: Handle) -> None:
        """Start an actor again, as Ray does."""
        handle.actor = self._start()

    def restart(self, handle: Handle) -> None:
        """Replace an actor that does not answer."""
        handle.actor.die()
        self.replace(handle)

    async def check(self, *_: object) -> None:
        """Find no fault in any node."""

    def close(self) -> None:
        """Leave nothing behind."""

    async def admits(self, *_: object) -> bool:
        """Admit every node."""
        return True

    async def end(self) -> None:
        """End all actors that were ever started."""
        for actor in self.actors:
            actor.die()
            if actor._service is not None:
                await actor._service._stack.aclose()

    def refuse(self, facts: dict[str, Any], reason: str) -> None:
        """Note that a node is not used."""
        self.refused[facts["node_id"]] = facts["host"], reason

    def has_room(self) -> bool:
        """Return whether there is room for a worker."""
        return True

    def room(self) -> str:
        """Return how much room there is, in words."""
        return "there is no limit here"


@contextlib.asynccontextmanager
async def workers_here(bench: Bench, processes: int = 2) -> AsyncIterator[tuple[Pool, ClusterHere]]:
    """Have workers for the runs of a bench."""
    cluster: Any = ClusterHere()
    pool = Pool(cluster, Work(bench.folder, None, {}, bench.environment), bench.events.append)
    inputs = SharedInputs(Stores(bench.folder), bench.folder)
    make: Callable[..., RayCaller] = functools.partial(RayCaller, pool=pool, inputs=inputs)
    bench.make = make
    try:
        async with background_tasks() as tasks:
            await pool.start(processes, tasks)
            yield pool, cluster
    finally:
        await cluster.end()

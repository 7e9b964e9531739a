"""Session of a run with its workers: Ray, the checks of its nodes, the pool, and the watch over Ray itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.background import background_tasks
from pipeline.engine.worker_events import EngineOutput
from pipeline.errors import OutageGivenUp
from pipeline.ray.caller import RayCaller
from pipeline.ray.cluster import Cluster
from pipeline.ray.messages import Work
from pipeline.ray.pool import Pool
from pipeline.ray.start import connected, find_address_fault
from pipeline.ray.uploads import SharedInputs
from pipeline.ray.worker_records import WorkerRecords
from pipeline.stores import Stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from pipeline.config.load import Config, Provider
    from pipeline.config.workers import WorkerSettings
    from pipeline.engine.caller import Target
    from pipeline.engine.events import Event, Listener
    from pipeline.errors import Stop
    from pipeline.storage import LocalStore

_LOOK_SECONDS = 2.0  # between two looks at Ray's control service, and at most for one
_MISSED = 3  # looks in a row, after which it counts as gone; Ray ends this process 60 seconds after its death
_LAST_CALLS_SECONDS = 40.0  # for calls in flight, after that
_NO_WORKER_SECONDS = 120.0  # without a single worker


@dataclass(slots=True)
class RaySession:
    """The workers of one run. `stop` is what ends the run; whoever runs it sets it."""

    pool: Pool
    inputs: SharedInputs
    stop: Callable[[Stop], None] = lambda _error: None

    def make(self, target: Target, images: LocalStore, environment: Mapping[str, str]) -> RayCaller:
        """Return the caller of a provider."""
        return RayCaller(target, images, environment, self.pool, self.inputs)

    async def watch(self, address: str) -> None:
        """Stop the run if Ray's control service is gone, or no worker is left, and give up its calls then."""
        missed, reason = 0, None
        while reason is None:
            await asyncio.sleep(_LOOK_SECONDS)
            fault = await asyncio.to_thread(find_address_fault, address, _LOOK_SECONDS)
            missed = missed + 1 if fault else 0
            alone = self.pool.empty_since
            if missed >= _MISSED:
                reason = f"Ray's control service at {address} is gone ({fault})"
            elif alone is not None and time.monotonic() - alone > _NO_WORKER_SECONDS:
                reason = f"no worker has been alive for {_NO_WORKER_SECONDS:.0f} seconds"
        self.stop(OutageGivenUp(f"{reason}; start Ray again, then run `pipeline run` to continue"))
        self.pool.halt()
        await asyncio.sleep(_LAST_CALLS_SECONDS)
        self.pool.give_up()


@contextlib.asynccontextmanager
async def ray_session(
    settings: WorkerSettings,
    config: Config,
    environment: Mapping[str, str],
    providers: Sequence[Provider],
    emit: Listener,
) -> AsyncIterator[RaySession]:
    """Have workers within the block. Raises ConfigError, before any call, if Ray or its nodes cannot be used."""
    emit = _without(config.secrets(environment), emit)
    stores = Stores.of(config)
    named = {name: environment.get(name, "") for name in config.secret_variables()}
    work = Work(config.output, config.images, config.images_options, named if settings.pass_keys else {})
    async with AsyncExitStack() as stack:
        stack.callback(_delete_partial_images, stores.new)
        address = await stack.enter_async_context(connected(settings, environment, emit))
        folder = config.images_folder if stores.remote is None else None
        cluster = Cluster(settings, settings.address is None, emit, folder)
        stack.callback(cluster.close)
        await cluster.check(providers)
        pool = Pool(cluster, work, emit)
        records = WorkerRecords(config.output)
        pool.may_renew = records.may_renew
        tasks = await stack.enter_async_context(background_tasks())
        await stack.enter_async_context(records.kept(pool))
        await pool.start(settings.processes, tasks)
        session = RaySession(pool, SharedInputs(stores, config.output))
        tasks.create_task(session.watch(address), name="watch over Ray")
        yield session


def _delete_partial_images(images: LocalStore) -> None:
    """Delete the half-written images of workers that were killed; they are all gone now."""
    with contextlib.suppress(OSError):
        for name in images.leftovers():
            images.delete(name)


def _without(secrets: Sequence[str], emit: Listener) -> Listener:
    """Return a listener that gets the output of Ray without these values."""

    def emit_scrubbed(event: Event) -> None:
        if isinstance(event, EngineOutput):
            line = event.line
            for secret in secrets:
                line = line.replace(secret, "***")
            event = EngineOutput(line)
        emit(event)

    return emit_scrubbed

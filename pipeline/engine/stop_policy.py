"""Stop policy: which stops have occurred in a run, how far each reaches, and which requests may still be processed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.engine.events import Stopped
from pipeline.errors import BudgetSpent, KeyRefused
from pipeline.ledger.queue import Block

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from pipeline.engine.events import Listener
    from pipeline.errors import Stop
    from pipeline.ledger.queue import QueuedRequest


class Withdrawn(Exception):
    """The request is not to be processed any further: a stop reached it, or its job changed in the meantime."""


class StopSignal:
    """Whether calls of one provider have been stopped; ends the waits of its requests at once when it is set."""

    def __init__(self) -> None:
        self.is_set = False
        self.changed = asyncio.Event()  # for the dispatcher
        self._deadlines: set[asyncio.Timeout] = set()

    @property
    def waits(self) -> int:
        """Number of interruptible waits in progress."""
        return len(self._deadlines)

    def set(self) -> None:
        """Stop: every interruptible wait ends with Withdrawn."""
        if self.is_set:
            return
        self.is_set = True
        self.changed.set()
        self.interrupt()

    def interrupt(self) -> None:
        """End every interruptible wait in progress with Withdrawn, and none that follows."""
        for deadline in self._deadlines:
            if not deadline.expired():  # it may have been interrupted just now
                deadline.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def interruptible(self, *others: StopSignal) -> AsyncIterator[None]:
        """Run the block until it ends, or this signal or one of the others is set or interrupted.

        Raises Withdrawn, also if one is set already.
        """
        signals = (self, *others)
        if any(signal.is_set for signal in signals):
            raise Withdrawn
        try:
            async with asyncio.timeout(None) as deadline:
                for signal in signals:
                    signal._deadlines.add(deadline)
                try:
                    yield
                finally:
                    for signal in signals:
                        signal._deadlines.discard(deadline)
        except TimeoutError:
            raise Withdrawn from None


class StopPolicy:
    """Decides what is stopped in one run. `stops` are all that have occurred, `blocks` what a part of them reaches.

    `record` gets each of them with the requests that it reaches, to write it down.
    """

    def __init__(self, emit: Listener) -> None:
        self.record: Callable[[Block, Stop], object] = lambda _block, _error: None
        self.stops: list[Stop] = []
        self.blocks: set[Block] = set()
        self._emit = emit
        self._by_provider: dict[int, str | None] = {}  # by the id of a stop: whose requests it reaches
        self.halting = StopSignal()  # set once no further call is made to any provider
        self._stopped: set[str] = set()  # providers
        self._signals: dict[str, StopSignal] = {}
        self._ends: dict[str, StopSignal] = {}
        self._refusing: set[str] = set()  # providers that refuse the key

    @property
    def halted(self) -> bool:
        """Whether no further call is made to any provider."""
        return self.halting.is_set

    def at(self, providers: Collection[str]) -> list[tuple[str, Stop]]:
        """Return the stops that reach requests at one of these providers alone, each with its name."""
        found = ((self._by_provider.get(id(stop)), stop) for stop in self.stops)
        return [(name, stop) for name, stop in found if name is not None and name in providers]

    def signal(self, provider: str) -> StopSignal:
        """Return the stop signal of a provider, one for the whole run."""
        if provider not in self._signals:
            self._signals[provider] = StopSignal()
            if self.is_stopped(provider):
                self._signals[provider].set()
        return self._signals[provider]

    def end_signal(self, provider: str) -> StopSignal:
        """Return the signal that nothing more is asked of a provider, not even what has become of its batches.

        It is set if the run is halted, or the provider refuses the key.
        """
        if provider not in self._ends:
            self._ends[provider] = StopSignal()
            if self.halted or provider in self._refusing:
                self._ends[provider].set()
        return self._ends[provider]

    def is_stopped(self, provider: str) -> bool:
        """Return whether no further call is made to a provider."""
        return self.halted or provider in self._stopped

    def allows(self, request: QueuedRequest) -> bool:
        """Return whether a request may be called."""
        return not self.is_stopped(request.provider) and not any(block.covers(request) for block in self.blocks)

    def allows_group(self, group: Block) -> bool:
        """Return whether requests of a group may be sent, which shares all that a block may name."""
        return not any(block.includes(group) for block in self.blocks)

    def halt(self) -> None:
        """Make no further call; calls in flight are completed."""
        for signal in (self.halting, *self._signals.values(), *self._ends.values()):
            signal.set()

    def stop(self, error: Stop, request: QueuedRequest | None) -> None:
        """Stop as much as the cause of an error reaches, and report it once. Without a request that is everything."""
        if request is None or error.reach == "everything":
            self._keep(error, Block(), None if self.halted else "everything")
            self.halt()
        elif error.reach == "provider":
            self.stop_provider(request.provider, error)
        else:
            self._block(error, request)

    def stop_provider(self, provider: str, error: Stop) -> None:
        """Make no further call to a provider."""
        what = None if provider in self._stopped else f"provider `{provider}`"
        self._keep(error, Block(provider=provider), what)
        self._stopped.add(provider)
        if provider in self._signals:
            self._signals[provider].set()
        if isinstance(error, KeyRefused):
            self._refusing.add(provider)
            if provider in self._ends:
                self._ends[provider].set()

    def _block(self, error: Stop, request: QueuedRequest) -> None:
        """Block the requests that the cause of a stop reaches."""
        match error.reach:
            case "provider's model":
                block = Block(provider=request.provider, model=request.model)
                what = f"provider `{request.provider}` and its model `{request.model}`"
            case "operation":
                block = Block(provider=request.provider, served_by=request.served_by)
                what = f"provider `{request.provider}` and its {request.served_by}s"
            case "model":
                at = None if request.route is None else request.provider
                block = Block(at, request.job_pk, request.model)
                where = "" if at is None else f" at `{at}`"
                what = f"job `{request.job_name}` and its model `{request.model}`{where}"
            case _ if request.route is not None and isinstance(error, BudgetSpent):  # another may be cheaper
                block = Block(request.provider, request.job_pk)
                what = f"job `{request.job_name}` at `{request.provider}`"
            case _:
                block = Block(job_pk=request.job_pk)
                what = f"job `{request.job_name}`"
        self.stop_block(block, what, error)

    def stop_block(self, block: Block, what: str, error: Stop) -> None:
        """Stop these requests; `what` names them."""
        self._keep(error, block, None if block in self.blocks else what)
        self.blocks.add(block)

    def _keep(self, error: Stop, block: Block, what: str | None) -> None:
        """Keep a stop, and report what it stops if that was not stopped before; then only a new kind is kept."""
        if what is not None:
            self._emit(Stopped(what, error))
        if what is not None or all(type(error) is not type(stop) for stop in self.stops):
            self.stops.append(error)
            self._by_provider[id(error)] = block.provider
            self.record(block, error)

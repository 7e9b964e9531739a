"""What the workers of one provider share: its admission control, its caller, and its records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.engine.caller import LocalCaller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from pipeline.config.load import Provider, RetryRules
    from pipeline.engine.admission import Admission
    from pipeline.engine.caller import Target
    from pipeline.engine.records import Records
    from pipeline.engine.routing import Routing
    from pipeline.ledger.queue import QueuedRequest
    from pipeline.storage import LocalStore


@dataclass(frozen=True, slots=True)
class Callers:
    """How a run calls its providers: with keys from `environment`, and in which process, as `make` decides.

    `address` returns a provider's base_url, and starts its sandbox if it is one.
    """

    environment: Mapping[str, str] = field(repr=False)
    address: Callable[[Provider], Awaitable[str]]
    make: Callable[[Target, LocalStore, Mapping[str, str]], LocalCaller] = LocalCaller


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What the workers of one provider share. `output` is the output folder, which has the jobs' uploads.

    `is_realtime` returns whether a request may be called, and is not to go by batch; `find_caller` the caller of
    another provider, None for one that is not known any more.
    """

    target: Target
    output: Path
    retry: RetryRules
    admission: Admission
    caller: LocalCaller
    records: Records
    is_realtime: Callable[[QueuedRequest], bool] = lambda _request: True
    routing: Routing | None = None  # of the routes that it is a member of
    find_caller: Callable[[str], Awaitable[LocalCaller | None]] | None = None

    async def caller_of(self, provider: str) -> LocalCaller:
        """Return the caller by whose rules an image of a provider is downloaded: its own, if it is known."""
        if provider == self.target.provider.name or self.find_caller is None:
            return self.caller
        return await self.find_caller(provider) or self.caller

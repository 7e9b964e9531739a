"""Hold: no call is sent to a provider while people have paused it; downloads and calls in flight go on."""

from __future__ import annotations

import asyncio

from pipeline.engine.retry import until_changed


class Hold:
    """Whether calls of one provider are held; whoever waits goes on when they are not."""

    def __init__(self) -> None:
        self.since: float | None = None  # seconds since 1970, when people paused the provider
        self._changed = asyncio.Event()

    @property
    def is_closed(self) -> bool:
        """Whether no call may be sent now."""
        return self.since is not None

    def set(self, since: float | None) -> None:
        """Pause the provider since this moment; None ends that."""
        self.since = since
        self._changed.set()

    async def admit(self) -> None:
        """Wait until calls may be sent."""
        while self.is_closed:
            await until_changed(self._changed, None)

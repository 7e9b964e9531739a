"""What all workers of one provider share, and the note of a call that is written down."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from pathlib import Path

    from pipeline.client.client import ImagesClient
    from pipeline.client.download import Downloader
    from pipeline.config.load import Config, Provider
    from pipeline.engine.admission import Admission
    from pipeline.engine.budget import Budget
    from pipeline.engine.events import Listener
    from pipeline.engine.throttle import Permit
    from pipeline.ledger.queue import QueuedRequest
    from pipeline.ledger.writer import Writer
    from pipeline.models.table import Models


_BEYOND_CORES = 1
"""One thread more than cores waits for the disk while the others compute. Six threads on two cores were no faster and
delayed the event loop by up to 37 ms (99th percentile, images of 2.6 MB), compared with 15 ms.
"""


def image_threads() -> ThreadPoolExecutor:
    """Create the thread pool that decodes and stores images, so that the event loop stays responsive."""
    return ThreadPoolExecutor((os.cpu_count() or 1) + _BEYOND_CORES, "images")


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What all workers of one provider share."""

    provider: Provider
    config: Config
    models: Models
    folder: Path
    api: ImagesClient
    downloader: Downloader
    threads: Executor
    admission: Admission
    writer: Writer
    money: Budget
    emit: Listener
    is_blocked: Callable[[QueuedRequest], bool]


@dataclass(slots=True)
class WrittenCall:
    """A call that is written down: when it began (monotonic) and when its first bytes left (seconds since 1970)."""

    attempt: int
    images: int
    estimate_usd: float | None
    began: float
    turn: Permit
    sent_at: float | None = None

    def sent(self) -> None:
        """The first bytes leave now."""
        self.sent_at = time.time()
        self.turn.sent()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

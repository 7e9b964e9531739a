"""What all workers of one provider share, and the note of a call that is written down."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.config import Config, Provider
    from pipeline.engine.api import Api
    from pipeline.engine.budget import Budget
    from pipeline.engine.download import Downloader
    from pipeline.engine.events import Listener
    from pipeline.engine.gate import Gate
    from pipeline.engine.threads import Threads
    from pipeline.engine.throttle import Turn
    from pipeline.engine.work import Work
    from pipeline.engine.writer import Writer
    from pipeline.spec.models import Models


@dataclass(frozen=True, slots=True)
class Desk:
    """What all workers of one provider share."""

    provider: Provider
    config: Config
    models: Models
    folder: Path
    api: Api
    downloader: Downloader
    threads: Threads
    gate: Gate
    writer: Writer
    money: Budget
    emit: Listener
    is_barred: Callable[[Work], bool]


@dataclass(slots=True)
class WrittenCall:
    """A call that is written down: when it began (monotonic) and when its first bytes left (seconds since 1970)."""

    attempt: int
    images: int
    estimate_usd: float | None
    began: float
    turn: Turn
    sent_at: float | None = None

    def sent(self) -> None:
        """The first bytes leave now."""
        self.sent_at = time.time()
        self.turn.sent()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

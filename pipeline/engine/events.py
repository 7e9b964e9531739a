"""What happened, as small frozen values; the terminal and the log listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.errors import RequestError


Bottleneck = Literal["", "limit", "provider", "downloads", "disk", "paused"]
"""What decides the speed of a provider's requests now; empty where nothing is at work."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins to work on these jobs; what is submitted meanwhile joins them."""

    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProviderPace:
    """What a provider's requests wait for, looked at once a second and told where it has changed.

    The limit in force is `images` in `per_seconds`, None without one. `until` is the end of a pause, `expires_at` the
    nearest death of a URL whose picture is on its way, both in seconds since 1970.
    """

    provider: str
    bottleneck: Bottleneck
    until: float | None
    images: int | None
    per_seconds: float | None
    downloads: int
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class CallSent:
    """A call left for its provider."""

    job: str
    id: str
    provider: str
    images: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call came back, with `error` where it brought no picture. `seconds` since it was sent."""

    job: str
    id: str
    provider: str
    seconds: float
    cost_usd: float | None
    error: RequestError | None


@dataclass(frozen=True, slots=True)
class ImageStored:
    """A picture is whole on disk and in the ledger. `file` is relative to the output folder."""

    job: str
    id: str
    file: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """A request is tried again, after `seconds` of waiting."""

    job: str
    id: str
    seconds: float
    error: RequestError


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request has reached its end: succeeded, partial or failed."""

    job: str
    id: str
    status: str
    error: RequestError | None


@dataclass(frozen=True, slots=True)
class Paused:
    """A provider asked everyone to wait."""

    provider: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class LimitLowered:
    """A provider stated a lower limit than the configured one; it holds for the rest of the run."""

    provider: str
    images: int
    per_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class ProviderDown:
    """A provider does not answer; the run waits for it and probes."""

    provider: str
    reason: str


@dataclass(frozen=True, slots=True)
class ProviderUp:
    """A provider answers again, after `seconds`."""

    provider: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """No further call is made: to a provider, for a job, or at all."""

    what: str
    error: RequestError


@dataclass(frozen=True, slots=True)
class Stopping:
    """A signal asked the run to stop: what is in flight is finished, and no further call is made."""

    signal: str


@dataclass(frozen=True, slots=True)
class BackupFailed:
    """There was no room for a copy of the ledger; the last one stays, and the run goes on."""

    error: RequestError


@dataclass(frozen=True, slots=True)
class NotificationFailed:
    """Somebody who wanted to be told of the run's end, stop or pause could not be; the run goes on all the same."""

    how: str
    reason: str


Event = (
    RunStarted
    | ProviderPace
    | Stopping
    | BackupFailed
    | CallSent
    | CallEnded
    | ImageStored
    | Retrying
    | RequestEnded
    | Paused
    | LimitLowered
    | ProviderDown
    | ProviderUp
    | Stopped
    | NotificationFailed
)
Listener = Callable[[Event], None]

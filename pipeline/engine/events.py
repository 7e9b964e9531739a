"""Events of a run, as small frozen values for the terminal, the log and notifications."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.engine.worker_events import WorkerEvent

if TYPE_CHECKING:
    from pipeline.errors import RequestError


Bottleneck = Literal["", "limit", "provider", "downloads", "disk", "paused", "held"]
"""What limits the speed of a provider's requests now; empty if none is at work."""


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run starts to work on these jobs; jobs that are submitted meanwhile join them."""

    jobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyExposed:
    """A provider's key is sent without encryption to this host, which is in a private network."""

    provider: str
    host: str


@dataclass(frozen=True, slots=True)
class ProviderPace:
    """What a provider's requests wait for, sampled once a second and emitted when it has changed.

    The limit in force is `images` in `per_seconds`, None without one. `until` is the end of a pause, `expires_at` the
    next expiry of a URL whose image is being downloaded; both are in seconds since 1970.
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
    """A call was sent to its provider."""

    job: str
    id: str
    provider: str
    images: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call ended, with `error` if it brought no image. `seconds` since it was recorded."""

    job: str
    id: str
    provider: str
    seconds: float
    cost_usd: float | None
    error: RequestError | None


@dataclass(frozen=True, slots=True)
class ImageStored:
    """An image is stored and recorded. `file` is relative to the output folder."""

    job: str
    id: str
    file: str
    provider: str = ""  # that it came from, if that is known


@dataclass(frozen=True, slots=True)
class Retrying:
    """A request is retried after `seconds` of waiting."""

    job: str
    id: str
    seconds: float
    error: RequestError


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request has ended: succeeded, partial or failed."""

    job: str
    id: str
    status: str
    error: RequestError | None


@dataclass(frozen=True, slots=True)
class Paused:
    """A provider asked all calls to wait."""

    provider: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class StoreSilent:
    """The object store does not answer: paid images wait on the local disk."""

    root: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoreAnswers:
    """The object store has taken an image again, after so many seconds."""

    root: str
    seconds: float


@dataclass(frozen=True, slots=True)
class PurchasesHeld:
    """Paid images of a provider do not arrive: nothing more is bought until one does, except as a probe."""

    provider: str
    reason: str


@dataclass(frozen=True, slots=True)
class PurchasesResumed:
    """A paid image of the provider has arrived, after so many seconds in which purchases were held."""

    provider: str
    seconds: float


@dataclass(frozen=True, slots=True)
class UsageIgnored:
    """A response of a model stated a usage that is far below its price table, which counts instead; in USD."""

    provider: str
    model: str
    stated_usd: float
    counted_usd: float | None


@dataclass(frozen=True, slots=True)
class ImagesLeftOut:
    """A response had more images than are kept of one: of `returned`, so many were left out."""

    job: str
    id: str
    provider: str
    returned: int
    left_out: int


@dataclass(frozen=True, slots=True)
class LimitLowered:
    """A provider stated a lower limit than the configured one, for all calls or for one model; it is in force for the
    rest of the run.
    """

    provider: str
    images: int
    per_seconds: float
    reason: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderDown:
    """A provider does not answer; the run waits and probes it, not before `until` (seconds since 1970) if it is set,
    and gives up at `given_up_at`.
    """

    provider: str
    reason: str
    until: float | None = None
    given_up_at: float | None = None


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
    """A signal asked the run to stop: calls in flight are completed, and no further call is made."""

    signal: str


@dataclass(frozen=True, slots=True)
class BackupFailed:
    """The ledger could not be backed up; the last copy stays, and the run goes on."""

    error: RequestError


@dataclass(frozen=True, slots=True)
class ImagesFound:
    """Images were on disk and in no row of the ledger: `adopted` are recorded now, `unknown` stay as they are."""

    adopted: int
    unknown: int


@dataclass(frozen=True, slots=True)
class ThumbnailsMade:
    """So many of the thumbnails that a job's report lacked are made, after the run; emitted now and then."""

    job: str
    made: int
    total: int


@dataclass(frozen=True, slots=True)
class BatchSent:
    """A batch was created at the service, which calls it `id`."""

    id: str
    provider: str
    model: str | None
    requests: int
    images: int


@dataclass(frozen=True, slots=True)
class BatchMoved:
    """The service reports another status of a batch, or progress: the lines of it that are made or have failed."""

    id: str
    status: str
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class BatchCollected:
    """All that a batch has brought is recorded; `returned` of its lines were not run and are pending again."""

    id: str
    succeeded: int
    failed: int
    returned: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class BatchLineIgnored:
    """A line of a batch's files is malformed, or is of no line that was sent; the others are recorded."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class NotificationFailed:
    """A notification could not be delivered; the run goes on."""

    how: str
    reason: str


Event = (
    RunStarted
    | KeyExposed
    | ProviderPace
    | Stopping
    | BackupFailed
    | ImagesFound
    | CallSent
    | CallEnded
    | ImageStored
    | Retrying
    | RequestEnded
    | Paused
    | LimitLowered
    | Held
    | Throttled
    | Reprioritised
    | StoreSilent
    | StoreAnswers
    | PurchasesHeld
    | PurchasesResumed
    | UsageIgnored
    | ImagesLeftOut
    | ProviderDown
    | ProviderUp
    | Stopped
    | BatchSent
    | BatchMoved
    | BatchCollected
    | BatchLineIgnored
    | NotificationFailed
    | ThumbnailsMade
    | WorkerEvent
)
Listener = Callable[[Event], None]

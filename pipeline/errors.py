"""Exception hierarchy; the class decides: retry, fail the request, or stop the run.

PipelineError
├── BadInput                    exit 2: nothing was changed, no call was sent
│   ├── ConfigError             config.yaml, the environment or the command line
│   ├── JobError                a job file or a file that it names
│   ├── ImageError              an input image
│   └── LedgerError             a ledger that is damaged, read-only or newer than the program
├── FolderBusy                  exit 3: another run holds the output folder
│   └── LeftToRunAtWork             what was given is queued, and the other run processes it
├── BrokenImage                 bytes that are not a complete image
├── RequestError                a request that brought no images; three error classes:
│   ├── TryAgain                    retry: the same call may succeed
│   │   ├── NotSent                 connect, DNS or TLS failed: not billed
│   │   ├── RateLimited             a 429 of the rate limit: not billed, and every call to the provider pauses
│   │   ├── ServerFault             the server refused and reports a fault of its own (500, 503, 408, 409)
│   │   ├── OutcomeUnknown          cut off after sending: may have been billed
│   │   ├── Unusable                a success response without a usable image: may have been billed
│   │   └── UrlLost                 a paid URL expired before its image was downloaded
│   ├── GiveUp                      fail the request: as it is, it never succeeds
│   │   ├── Invalid                 the service rejects the request as invalid
│   │   ├── Moderated               the content policy refused it
│   │   └── DownloadRefused         a paid URL that is valid but brings no image; it stays in the ledger
│   └── Stop                        stop, exit 3: no call like this one succeeds until a person acts
│       ├── KeyRefused              401, 403
│       ├── QuotaSpent              quota or billing, whatever the status; a limit of zero
│       ├── WrongAddress            a redirect, or a provider that never answered
│       │   └── WrongPath               404: stops the provider's requests for that operation
│       ├── Deferred                a task id or 202 in place of images: may be billed, and never brings an image
│       ├── ModelUnknown            404 or 400 model_not_found: stops the job's requests for that model
│       ├── ProviderHeld            a pause, or hours outside the provider's window, that the run was not to wait for
│       ├── PausedTooLong           a Retry-After of more than an hour
│       ├── OutageGivenUp           the provider was down for longer than `retry.outage_hours`
│       ├── RepeatedRefusal         every request in a row was refused with the same message
│       ├── NotDelivered            images are paid and do not arrive
│       ├── BatchGone               the service no longer knows a batch that was sent: may be billed
│       ├── BatchRefused            the service refuses a job's batches: stops the job
│       ├── BudgetSpent             the next call could exceed `budget_usd`: stops the job
│       └── DiskFull                stops everything
│           ├── StoreRefused            the object store takes no images; paid ones wait on the disk: stops everything
│           ├── TooManyOpenFiles        no file descriptor became free: stops everything
│           └── FolderGone              the output folder or its ledger was moved or removed: stops everything
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

AttemptOutcome = Literal["not_sent", "refused", "answered", "unknown"]
"""How an attempt ended: only `answered` was certainly billed, and only `unknown` may have been."""

Reach = Literal["provider", "provider's model", "operation", "model", "job", "everything"]
"""Which queued requests a stop affects; all others are processed to the end."""


class PipelineError(Exception):
    """An error whose message is written for users of the program."""

    exit_code: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in the input: its location (file, line, field), and a message that says what to write instead."""

    location: str
    message: str
    count: int = 1  # more if it stands for mistakes of a kind that is not listed in full

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


class BadInput(PipelineError):
    """Invalid input, with every problem that was found, not only the first one."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[Problem]) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(BadInput):
    """A mistake in config.yaml, the environment or the command line."""


class JobError(BadInput):
    """A mistake in a job file or in a file that it names."""


class ImageError(BadInput):
    """An input image that does not meet the requirements of the model."""


class LedgerError(BadInput):
    """The ledger is damaged, read-only or newer than the program."""


class FolderBusy(PipelineError):
    """Another run holds the output folder."""

    exit_code = 3


class LeftToRunAtWork(FolderBusy):
    """What was given is queued, and the run that holds the output folder processes it."""


class BrokenImage(PipelineError):
    """Bytes that are not a complete image."""


class RequestError(PipelineError):
    """A request that brought no images.

    `http_status` is None if no HTTP response came. `error` is the API's own error body, each value a string or None.
    """

    outcome: ClassVar[AttemptOutcome] = "refused"
    counted: ClassVar[bool] = True  # counts against retry.attempts
    deterministic: bool = False  # the same call is answered in the same way until a person changes something
    is_replay: bool = False  # the response to an earlier call with the same idempotency key

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        self.type = type
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after  # seconds

    @property
    def error(self) -> dict[str, str | None]:
        """The error body, as the API writes it."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class TryAgain(RequestError):
    """The same call may succeed later."""


class NotSent(TryAgain):
    """The call was not sent, because connect, DNS or TLS failed. It is not billed."""

    outcome = "not_sent"
    counted = False


class RateLimited(TryAgain):
    """A 429 of the rate limit: not billed, and every call to it pauses. `limit` is what the server states."""

    counted = False
    limit: tuple[int, float | None] | None = None  # images, and the seconds of the window if it says that too


class ServerFault(TryAgain):
    """The server refused and reports a fault of its own; nothing was billed."""


class OutcomeUnknown(TryAgain):
    """The call was sent and its response was lost: the image may have been made and billed."""

    outcome = "unknown"


class Unusable(TryAgain):
    """The server reported success, and its response holds no usable image."""

    outcome = "unknown"


class UrlLost(TryAgain):
    """A paid URL expired before its image was downloaded; the image is generated again."""


class GiveUp(RequestError):
    """The request fails: as it is, it never succeeds."""


class Invalid(GiveUp):
    """The service rejects the request as invalid."""


class Moderated(GiveUp):
    """The content policy refused the request or its images."""


class DownloadRefused(GiveUp):
    """A paid URL is valid but brings no image; it stays in the ledger, and `resume` tries it again at no cost."""

    cause: str = ""  # without what it costs and how to go on
    option: str | None = None  # what would allow it
    quarantined: Any = None  # a QuarantinedFile: the bytes that came instead of an image


class Stop(RequestError):
    """The run stops calls like this one: none succeeds until a person acts."""

    exit_code = 3
    reach: Reach = "provider"
    counted = False


class KeyRefused(Stop):
    """The provider refuses the key, or the key lacks a permission."""


class QuotaSpent(Stop):
    """The quota or the billing limit is reached, not the rate limit."""


class WrongAddress(Stop):
    """Nothing at this address speaks the Images API."""


class WrongPath(WrongAddress):
    """The server does not know this path; it may still serve other operations."""

    reach = "operation"


class Deferred(Stop):
    """The server queues calls for later: the image may be made and billed, but no response brings it."""

    outcome = "unknown"


class ModelUnknown(Stop):
    """The provider does not know the model, or has shut it down."""

    reach = "model"


class ProviderHeld(Stop):
    """The provider is paused by a person, or outside its window, and the run was not to wait."""

    outcome = "not_sent"


class PausedTooLong(Stop):
    """The server asks for a pause of more than an hour."""


class OutageGivenUp(Stop):
    """The provider was down for longer than `retry.outage_hours`."""

    outcome = "not_sent"


class RepeatedRefusal(Stop):
    """Every request in a row was refused with the same message: none of those that follow would pass."""


class NotDelivered(Stop):
    """Images are paid and do not arrive: no more are bought."""

    outcome = "not_sent"


class BatchGone(Stop):
    """The service no longer knows a batch that was sent: it may have been billed, and is not bought again by itself."""

    outcome = "unknown"
    reach = "job"


class BatchRefused(Stop):
    """The service refuses batches: for their form, or for a reason that a person must look at."""

    reach = "job"


class BudgetSpent(Stop):
    """The next call could exceed `budget_usd`."""

    outcome = "not_sent"
    reach = "job"


class DiskFull(Stop):
    """The disk is full, or writing is not permitted."""

    reach = "everything"


class StoreRefused(DiskFull):
    """The object store takes no images until a person acts: paid ones wait in the spool. Handled like a full disk."""


class TooManyOpenFiles(DiskFull):
    """No file descriptor was free, and none became free for a minute. Handled like a full disk, and told otherwise."""


class FolderGone(DiskFull):
    """The output folder or its ledger was moved, removed or replaced during the run. Handled like a full disk."""


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended a group of tasks: the first PipelineError, else the first of any class."""
    first = (group.subgroup(PipelineError) or group).exceptions[0]
    return first_error(first) if isinstance(first, BaseExceptionGroup) else first

"""The tree of errors: the class of an error is its fate.

PipelineError
├── BadInput                    exit 2: nothing was changed, nobody was called
│   ├── ConfigError             config.yaml, the environment or the command line
│   ├── JobError                a job file or what it names
│   ├── ImageError              an input picture
│   └── LedgerError             a ledger that is damaged, read-only or newer than the program
├── FolderBusy                  exit 3: another run holds the output folder
├── BrokenImage                 bytes that are no whole picture
├── RequestError                a request that did not bring its pictures; the three fates:
│   ├── TryAgain                    the same call may succeed
│   │   ├── NotSent                 connect, DNS or TLS failed: free
│   │   ├── RateLimited             a 429 of pace: free, and everyone pauses
│   │   ├── ServerFault             the server refused and blames itself or the moment (500, 503, 408, 409)
│   │   ├── OutcomeUnknown          cut off after sending: may have been billed
│   │   ├── Unusable                a success answer without a usable picture: may have been billed
│   │   └── UrlLost                 a paid URL died before its picture was here
│   ├── GiveUp                      this request, as it is, never succeeds
│   │   ├── Invalid                 the service calls the request wrong
│   │   ├── Moderated               the content policy refused it
│   │   └── DownloadRefused         a paid URL that lives but gives no picture; it stays in the ledger
│   └── Stop                        exit 3: no call like this one succeeds until a person acts
│       ├── KeyRefused              401, 403
│       ├── QuotaSpent              quota or billing, whatever its status; a zero limit
│       ├── WrongAddress            a redirect, or a provider that never answered
│       │   └── WrongPath               404: stops the provider's requests for that operation
│       ├── Deferred                a task number or 202 in place of pictures: may be billed, and never come
│       ├── ModelUnknown            404 or 400 model_not_found: stops the job's requests for that model
│       ├── PausedTooLong           a Retry-After of more than an hour
│       ├── OutageGivenUp           the provider stayed away for longer than `retry.outage_hours`
│       ├── BudgetSpent             the next call could cross `budget_usd`: stops the job
│       └── DiskFull                stops everything
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

AttemptOutcome = Literal["not_sent", "refused", "answered", "unknown"]
"""How an attempt ended, for the money: only `answered` was billed for sure, and only `unknown` may have been."""

Reach = Literal["provider", "operation", "model", "job", "everything"]
"""What a stop holds up; all else that is queued goes on to its end."""


class PipelineError(Exception):
    """Whatever this program has to say to a person, in one clear sentence."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what was given: where it stands (file, line, field), and what to write instead."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class BadInput(PipelineError):
    """The input is wrong; every problem that was found is named, not the first alone."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[Problem]) -> None:
        self.problems = (Problem("", problems),) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(BadInput):
    """config.yaml, the environment or the command line asks for something that does not exist."""


class JobError(BadInput):
    """A job file, or a file that it names, is wrong."""


class ImageError(BadInput):
    """An input picture does not meet what the model demands."""


class LedgerError(BadInput):
    """The ledger is damaged, read-only or newer than the program."""


class FolderBusy(PipelineError):
    """Another run holds the output folder."""

    exit_code = 3


class BrokenImage(PipelineError):
    """These bytes are no whole picture."""


class RequestError(PipelineError):
    """A request did not bring its pictures.

    `http_status` is None where no HTTP answer came. `error` is the API's own envelope:
    {"message", "type", "param", "code"}, each a string or None.
    """

    outcome: ClassVar[AttemptOutcome] = "refused"
    counted: ClassVar[bool] = True  # against retry.attempts

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
        """The API's error envelope."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}


class TryAgain(RequestError):
    """The same call may succeed later."""


class NotSent(TryAgain):
    """The call never left: connect, DNS or TLS failed. It is free."""

    outcome = "not_sent"
    counted = False


class RateLimited(TryAgain):
    """A 429 of pace: free, and everyone who calls this provider pauses.

    `limit` is what the server says it allows: images, and in how many seconds where it says that too.
    """

    counted = False
    limit: tuple[int, float | None] | None = None


class ServerFault(TryAgain):
    """The server refused and blames itself or the moment; nothing was billed."""


class OutcomeUnknown(TryAgain):
    """The call was sent and its answer was lost: the picture may have been made and billed."""

    outcome = "unknown"


class Unusable(TryAgain):
    """The server said success, and there is no usable picture in what it sent."""

    outcome = "unknown"


class UrlLost(TryAgain):
    """A paid URL died before its picture was here; the picture is generated again."""


class GiveUp(RequestError):
    """This request, as it is, never succeeds."""


class Invalid(GiveUp):
    """The service calls the request wrong."""


class Moderated(GiveUp):
    """The content policy refused the request or its pictures."""


class DownloadRefused(GiveUp):
    """A paid URL lives but gives no picture; it stays in the ledger, and `resume` tries it again for nothing."""


class Stop(RequestError):
    """No call like this one succeeds until a person acts."""

    exit_code = 3
    reach: ClassVar[Reach] = "provider"
    counted = False


class KeyRefused(Stop):
    """The provider refuses the key or what it may do."""


class QuotaSpent(Stop):
    """Quota or billing: money, not pace."""


class WrongAddress(Stop):
    """Nothing at this address speaks the Images API."""


class WrongPath(WrongAddress):
    """This address knows no such path: it may still serve other operations."""

    reach = "operation"


class Deferred(Stop):
    """The server takes calls for later: the picture may be made and billed, and no answer brings it."""

    outcome = "unknown"


class ModelUnknown(Stop):
    """The provider does not know the model, or has shut it down."""

    reach = "model"


class PausedTooLong(Stop):
    """The server asks for a wait of more than an hour."""


class OutageGivenUp(Stop):
    """The provider stayed away for longer than `retry.outage_hours`."""

    outcome = "not_sent"


class BudgetSpent(Stop):
    """The next call could cross `budget_usd`."""

    outcome = "not_sent"
    reach = "job"


class DiskFull(Stop):
    """There is no room, or no right, to write."""

    reach = "everything"

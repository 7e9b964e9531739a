"""Groups failed requests by cause, each with an example, advice and commands: for terminal, pages and JSON."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.ledger.queries import read_failures

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence

    from pipeline.ledger.queries import RecordedFailure

ADVICE = {
    "Moderated": "change the prompt or the image: what the content policy refused once it refuses again",
    "Invalid": "correct in the job file what the message names",
    "DownloadRefused": "its image is paid and still at the server: try again while its URL lives, at no cost",
    "UrlLost": "its image was paid but not downloaded in time: check that its host can be reached, then try again",
    "OutcomeUnknown": "calls were cut off: check the network and `timeout_seconds`, then try again",
    "Unusable": "the server reported success without a whole image: try again",
    "ServerFault": "the server reports a fault of its own: try again later",
}
_TO_EDIT = {"Moderated", "Invalid"}
"""Error classes that no retry can help."""

_CHANGING = re.compile(r"\b(?:req|img|org|proj)[-_][A-Za-z0-9-_]+|\b[0-9a-f]{12,}\b|\d+(?:\.\d+)?")
"""Parts of a message that differ from call to call: identifiers and numbers."""

_NO_REASON = "no reason was recorded"

CauseKey = tuple[str, int | None, str | None, str]
"""What requests that failed for one cause have in common: class, HTTP status, code or type, message without numbers."""


@dataclass(frozen=True, slots=True)
class JobFailures:
    """The requests of one job that failed for one cause; `id`, `prompt` and `message` are of the first of them."""

    job: str
    file: str | None  # the job file, None for a job made in Python
    provider: str
    count: int
    id: str
    prompt: str | None
    message: str

    @property
    def resubmission(self) -> tuple[str, ...]:
        """The words that submit and run the job's edited file; none for a job made in Python."""
        if self.file is None:
            return ()
        rehearsal = ("--provider", self.provider) if self.job.endswith(f".{self.provider}") else ()
        return ("run", self.file, *rehearsal)


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Requests that failed for one cause, by job: the job with the most of them first."""

    key: CauseKey
    code: str | None
    jobs: tuple[JobFailures, ...]

    @property
    def kind(self) -> str:
        """The error's class."""
        return self.key[0]

    @property
    def http_status(self) -> int | None:
        """The HTTP status, None if there was no response."""
        return self.key[1]

    @property
    def count(self) -> int:
        """The number of requests."""
        return sum(job.count for job in self.jobs)

    @property
    def title(self) -> str:
        """The status, and the most telling name of the error."""
        _, status, name, message = self.key
        if status is None and name is None and not message:
            return "not all images came"
        return " ".join(str(word) for word in (status, name or self.kind) if word)

    @property
    def advice(self) -> str:
        """What a person can do about it."""
        return ADVICE.get(self.kind, "nothing is wrong with the request: try it again")

    @property
    def commands(self) -> list[tuple[str, ...]]:
        """The commands to type, without the program's name: edited jobs are run, all others resumed in one command."""
        if self.kind in _TO_EDIT:
            return [words for words in dict.fromkeys(job.resubmission for job in self.jobs) if words]
        return [("resume", *(job.job for job in self.jobs))]


def read_causes(connection: sqlite3.Connection, jobs: Collection[str]) -> list[FailureCause]:
    """Return why requests of these jobs failed or came back partial, the most frequent cause first."""
    groups: dict[CauseKey, list[RecordedFailure]] = {}
    for failure in read_failures(connection, jobs):
        groups.setdefault(cause_key(failure.error), []).append(failure)
    causes = [_cause(key, failures) for key, failures in groups.items()]
    return sorted(causes, key=lambda cause: -cause.count)


def _cause(key: CauseKey, failures: Sequence[RecordedFailure]) -> FailureCause:
    by_job: dict[str, list[RecordedFailure]] = {}
    for failure in failures:
        by_job.setdefault(failure.job, []).append(failure)
    jobs = [
        JobFailures(
            first.job,
            first.file,
            first.provider,
            sum(one.count for one in same),
            first.id,
            first.prompt,
            (first.error or {}).get("message") or _NO_REASON,
        )
        for first, same in ((same[0], same) for same in by_job.values())
    ]
    jobs.sort(key=lambda job: -job.count)
    return FailureCause(key, (failures[0].error or {}).get("code"), tuple(jobs))


def cause_key(error: Mapping[str, Any] | None) -> CauseKey:
    """Return what identifies the cause of an error."""
    error = error or {}
    name = error.get("code") or error.get("type")
    return kind_of(error), error.get("http_status"), name, _without_numbers(error.get("message") or "")


@functools.lru_cache(maxsize=4096)
def _without_numbers(message: str) -> str:
    return _CHANGING.sub("#", message)


def kind_of(error: Mapping[str, Any]) -> str:
    """Return the class of a recorded error; a guess for one that was recorded before classes were."""
    if kind := error.get("kind"):
        return str(kind)
    if error.get("code") in {"content_policy_violation", "moderation_blocked"}:
        return "Moderated"
    status = error.get("http_status")
    is_refusal = status is not None and 400 <= status < 500 and status not in {408, 409, 429}
    return "Invalid" if is_refusal else "ServerFault"


def causes_json(causes: Sequence[FailureCause]) -> list[dict[str, object]]:
    """Return the causes as `run --json` shows them in its summary, one object per cause and job."""
    return [
        {
            "job": job.job,
            "kind": cause.kind,
            "code": cause.code,
            "http_status": cause.http_status,
            "count": job.count,
            "example": {"id": job.id, "message": job.message},
            "advice": cause.advice,
        }
        for cause in causes
        for job in cause.jobs
    ]

"""Groups failed requests by cause, each with an example, advice and commands: for terminal, pages and JSON."""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.ledger.error_kind import kind_of
from pipeline.ledger.failure_queries import read_failures, read_job_files, read_lost_calls
from pipeline.reports.advice import find_cut, request_advice

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping, Sequence

    from pipeline.ledger.failure_queries import RecordedFailure
    from pipeline.reports.advice import TimeCut
    from pipeline.reports.forms import CauseForm
    from pipeline.reports.next_command import NextCommand

_TO_EDIT = {"Moderated"}
"""Error classes that no retry can help."""

_TO_EDIT_OR_RESUME = {"Invalid", "KeyRefused", "QuotaSpent", "WrongAddress", "WrongPath", "ModelUnknown"}

_STOPS_IN_JOB_FILE = {"ModelUnknown", "RepeatedRefusal", "BudgetSpent", "BatchRefused"}
"""Stops that an edit of the job file mends."""

_CHANGING = re.compile(r"\b(?:req|img|org|proj)[-_][A-Za-z0-9-_]+|\b[0-9a-f]{12,}\b|\d+(?:\.\d+)?")
"""Parts of a message that differ from call to call: identifiers and numbers."""

BUDGET_OPTION = "--budget"

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
    quarantined: str | None  # what came instead of an image of one of them, relative to the job's folder

    @property
    def resubmission(self) -> tuple[str, ...]:
        """The words that submit and run the job's edited file; none for a job made in Python."""
        return _resubmission(self.job, self.file, self.provider)


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Requests that failed for one cause, by job: the job with the most of them first."""

    key: CauseKey
    code: str | None
    jobs: tuple[JobFailures, ...]
    cut: TimeCut | None = None

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
        file = next((job.file for job in self.jobs if job.file is not None), None)
        if self.cut is not None:
            return self.cut.advice(file)
        advice = request_advice(self.kind, file)
        kept = next((f"{job.job}/{job.quarantined}" for job in self.jobs if job.quarantined), None)
        return f"{advice}; what came instead is kept beside the images, in {kept}" if kept else advice

    @property
    def commands(self) -> list[tuple[str, ...]]:
        """The commands to type, without the program's name: edited jobs are run, all others resumed in one command."""
        runs = [words for words in dict.fromkeys(job.resubmission for job in self.jobs) if words]
        resume = ("resume", *(job.job for job in self.jobs))
        if self.kind in _TO_EDIT:
            return runs
        return [*runs, resume] if self.kind in _TO_EDIT_OR_RESUME or self.cut is not None else [resume]


def read_causes(connection: sqlite3.Connection, jobs: Collection[str]) -> list[FailureCause]:
    """Return why requests of these jobs failed or came back partial, the most frequent cause first."""
    groups: dict[CauseKey, list[RecordedFailure]] = {}
    for failure in read_failures(connection, jobs):
        groups.setdefault(cause_key(failure.error), []).append(failure)
    causes = [_cause(connection, key, failures) for key, failures in groups.items()]
    return sorted(causes, key=lambda cause: -cause.count)


def _cause(connection: sqlite3.Connection, key: CauseKey, failures: Sequence[RecordedFailure]) -> FailureCause:
    by_job: dict[str, list[RecordedFailure]] = {}
    for failure in failures:
        by_job.setdefault(failure.job, []).append(failure)
    jobs = [
        JobFailures(
            job=first.job,
            file=first.file,
            provider=first.provider,
            count=sum(failure.count for failure in same),
            id=first.id,
            prompt=first.prompt,
            message=(first.error or {}).get("message") or _NO_REASON,
            quarantined=next((failure.quarantined for failure in same if failure.quarantined), None),
        )
        for first, same in ((same[0], same) for same in by_job.values())
    ]
    jobs.sort(key=lambda job: -job.count)
    cut = None
    if key[0] == "OutcomeUnknown":
        cuts = (find_cut(read_lost_calls(connection, job.job), key[1]) for job in jobs)
        cut = next((candidate for candidate in cuts if candidate is not None), None)
    return FailureCause(key, (failures[0].error or {}).get("code"), tuple(jobs), cut)


def _resubmission(job: str, file: str | None, provider: str) -> tuple[str, ...]:
    if file is None:
        return ()
    return ("run", file, *(("--provider", provider) if job.endswith(f".{provider}") else ()))


def stop_commands(
    connection: sqlite3.Connection, kinds: Collection[str], again: Sequence[str], jobs: Collection[str]
) -> list[tuple[str, ...]]:
    """Return the commands that continue a run: `again`, or those that submit edited files if a stop needs an edit.

    `kinds` are the classes of the stops, `jobs` those with queued requests. If `again` names job files, other jobs,
    which the run took up, have commands of their own, with the budget of `again`.
    """
    files = [Path(word).absolute() for word in itertools.takewhile(lambda word: not word.startswith("-"), again[1:])]
    if not files and _STOPS_IN_JOB_FILE.isdisjoint(kinds):
        return [tuple(again)]
    budget = again[again.index(BUDGET_OPTION) :][:2] if BUDGET_OPTION in again else ()
    others = [
        job_file
        for job_file in read_job_files(connection, jobs)
        if job_file.file is None or Path(job_file.file) not in files
    ]
    runs = dict.fromkeys(_resubmission(job_file.job, job_file.file, job_file.provider) for job_file in others)
    if not files:
        return [(*words, *budget) for words in runs if words] or [tuple(again)]
    own = [tuple(again)] if len(others) < len(jobs) or not runs else []
    return [*own, *((*(words or ("run",)), *budget) for words in runs)]


def with_budget(words: Sequence[str], needed: float | None) -> list[str]:
    """Return the words of a command with the budget that is needed, added or in place of its own; None changes none."""
    if needed is None:
        return list(words)
    place = words.index(BUDGET_OPTION) if BUDGET_OPTION in words else len(words)
    return [*words[:place], BUDGET_OPTION, f"{needed:.2f}", *words[place + 2 :]]


def cause_key(error: Mapping[str, Any] | None) -> CauseKey:
    """Return what identifies the cause of an error."""
    error = error or {}
    name = error.get("code") or error.get("type")
    return kind_of(error), error.get("http_status"), name, _without_numbers(error.get("message") or "")


@functools.lru_cache(maxsize=4096)
def _without_numbers(message: str) -> str:
    return _CHANGING.sub("#", message)


def causes_json(causes: Sequence[FailureCause], command: NextCommand) -> list[CauseForm]:
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
            "commands": [command.line(*words) for words in cause.commands],
        }
        for cause in causes
        for job in cause.jobs
    ]

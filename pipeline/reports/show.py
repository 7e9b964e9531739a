"""Writes everything about one request: what was asked, every attempt, the files, and why it stands where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import ledger
from pipeline.ledger import queries
from pipeline.ledger.failure_queries import read_job_files
from pipeline.ledger.image_flags import read_flags
from pipeline.ledger.request_history import check_ids, read_attempts
from pipeline.reports.facts import clock, counted, dollars, rfc3339
from pipeline.reports.failure_report import FailureCause, JobFailures, cause_key
from pipeline.reports.manifest import entries_of, shown_error
from pipeline.reports.status import read_owner
from pipeline.reports.stops import read_holding_stops, stop_lines
from pipeline.stores import Addresses

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.config.load import Config
    from pipeline.ledger.lock import LockOwner
    from pipeline.ledger.queries import RecordedRequest
    from pipeline.ledger.request_history import RecordedAttempt
    from pipeline.reports.next_command import NextCommand
    from pipeline.reports.stops import HoldingStop


@dataclass(frozen=True, slots=True)
class ShownRequest:
    """One request: its object of the manifest, its attempts, why it stands where it stands, and what to type."""

    entry: Mapping[str, Any]
    attempts: Sequence[RecordedAttempt]
    reason: str
    commands: Sequence[tuple[str, ...]]
    stops: Sequence[HoldingStop] = ()  # that hold for it


def read_shown(config: Config, job: str, request_id: str) -> list[ShownRequest]:
    """Return the requests of a job that have this id, the newest first: others are superseded.

    Raises BadInput if there is none.
    """
    with ledger.reading(config.output, job) as connection:
        check_ids(connection, [job], [request_id])
        found = sorted(
            queries.read_requests(connection, job, request_id=request_id),
            key=lambda request: (request.status == "superseded", -request.request_pk),
        )
        owner = read_owner(config.output, connection)
        return [_shown(connection, request, Addresses.of(config), owner) for request in found]


def _shown(
    connection: sqlite3.Connection, request: RecordedRequest, addresses: Addresses, owner: LockOwner | None
) -> ShownRequest:
    quarantined, flags = queries.read_quarantine(connection, request.job), read_flags(connection, request.job)
    (entry,) = entries_of(connection, [request], quarantined, flags, addresses)
    stops = read_holding_stops(connection, [request.job]) if request.status == "pending" else ()
    attempts = read_attempts(connection, request.request_pk)
    is_running = request.status == "running"
    reason, commands = _running(attempts, owner) if is_running else _standing(connection, request, entry)
    return ShownRequest(entry, attempts, reason, commands, stops)


def _running(attempts: Sequence[RecordedAttempt], owner: LockOwner | None) -> tuple[str, list[tuple[str, ...]]]:
    """Return what is at work on a request, and the words of the commands to type: none while a run is."""
    line = next((attempt for attempt in attempts if attempt.outcome is None and attempt.key is None), None)
    if line is not None:
        batch = "a batch that is being sent" if line.batch_id is None else f"batch {line.batch_id}"
        follows = "the next run collects it" if owner is None else "the run at work collects it"
        return f"it is in {batch}; {follows}", [("run",)] if owner is None else []
    if owner is not None:
        return f"a run is at work on it ({owner.who})", []
    return "the run that was at work on it has died; the next one continues", [("run",)]


def _standing(
    connection: sqlite3.Connection, request: RecordedRequest, entry: Mapping[str, Any]
) -> tuple[str, list[tuple[str, ...]]]:
    """Return why a request stands where it stands, and the words of the commands to type."""
    came = f"{len(entry['images']):,} of {counted(request.n, 'image')} came"
    match request.status:
        case "succeeded":
            return f"{counted(request.n, 'image')} asked for, and all are here", []
        case "pending":
            return f"it is queued: {came}", [("run",)]
        case "cancelled":
            return f"it was taken out of the queue: {came}", [("resume", request.job, "--id", request.id)]
        case "superseded":
            return "it has left its job: it is no longer made, and its images stay", []
        case _:
            cause = _cause(connection, request, entry)
            resume = ("resume", request.job, "--id", request.id)
            commands = [resume if words[0] == "resume" else words for words in cause.commands]
            return f"{came}; {cause.title}: {cause.jobs[0].message}; {cause.advice}", commands


def _cause(connection: sqlite3.Connection, request: RecordedRequest, entry: Mapping[str, Any]) -> FailureCause:
    """Return the cause of a failed request, with what helps."""
    (job,) = read_job_files(connection, [request.job])
    error = request.error or {}
    kept = [file["file"] for file in entry["quarantined"]]
    failure = JobFailures(
        job=request.job,
        file=job.file,
        provider=job.provider,
        count=1,
        id=request.id,
        prompt=request.prompt,
        message=error.get("message") or "no reason was recorded",
        quarantined=kept[-1] if kept else None,
    )
    return FailureCause(cause_key(error), error.get("code"), (failure,))


def shown_json(shown: ShownRequest, command: NextCommand) -> dict[str, Any]:
    """Return a request as `show --json` prints it: the manifest's object with `attempts` as a list."""
    return {
        **shown.entry,
        "attempts": [_attempt_json(attempt) for attempt in shown.attempts],
        "reason": shown.reason,
        "commands": [command.line(*words) for words in shown.commands],
    }


def _attempt_json(attempt: RecordedAttempt) -> dict[str, Any]:
    return {
        "at": rfc3339(attempt.sent_at),
        "seconds": _seconds(attempt),
        "outcome": attempt.outcome,
        "http_status": attempt.http_status,
        "error": None if attempt.error is None else shown_error(attempt.error),
        "cost_usd": None if attempt.cost_usd is None else round(attempt.cost_usd, 6),
        "request_id": attempt.request_id,
        "key": attempt.key,
        "provider": attempt.provider,
        "n": attempt.n,
        "batch_id": attempt.batch_id,
    }


def _seconds(attempt: RecordedAttempt) -> float | None:
    """Return how long the answer to an attempt took."""
    return None if attempt.ended_at is None else round(max(0.0, attempt.ended_at - attempt.sent_at), 3)


def shown_lines(shown: ShownRequest, output: str, command: NextCommand, now: float) -> Iterator[str]:
    """Yield a request for people; `output` is the output folder."""
    entry = shown.entry
    folder = f"{output}/{entry['job']}"
    yield f"{entry['id']} of {entry['job']}: {entry['status']}"
    yield f"  {shown.reason}"
    yield from (f"  {line}" for line in stop_lines(shown.stops, command))
    yield from (f"  to type: {command.line(*words)}" for words in shown.commands)
    yield from _asked(entry)
    if shown.attempts:
        yield f"  {counted(len(shown.attempts), 'attempt')}{_cost(entry)}"
    for attempt in shown.attempts:
        yield f"    {_attempt_line(attempt, now)}"
    for name in ("images", "replaced", "quarantined"):
        for file in entry[name]:
            yield f"  {_file_line(name, file, folder)}"


def _asked(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a request asks for."""
    params = ", ".join(f"{name} {value}" for name, value in entry["params"].items())
    yield f"  prompt: {entry['prompt'] if entry['prompt'] is not None else '(none)'}"
    yield f"  {entry['operation']} at {entry['provider']}: {params}"
    if entry["variables"]:
        yield f"  variables: {', '.join(f'{name} {value}' for name, value in entry['variables'].items())}"
    for input_file in entry["inputs"]:
        yield f"  {input_file['role']}: {input_file['source']}, uploaded as {input_file['file']}"


def _cost(entry: Mapping[str, Any]) -> str:
    cost = "" if entry["cost_usd"] is None else f", {dollars(entry['cost_usd'])}"
    rehearsal = " (rehearsal price, not charged)" if cost and entry["rehearsal"] else ""
    unclear = f", {entry['maybe_paid']:,} more may have been paid" if entry["maybe_paid"] else ""
    return f"{cost}{rehearsal}{unclear}"


def _attempt_line(attempt: RecordedAttempt, now: float) -> str:
    seconds, error = _seconds(attempt), attempt.error or {}
    parts = [
        clock(attempt.sent_at, now, seconds=True),
        attempt.provider,
        counted(attempt.n, "image"),
        (attempt.outcome or "in flight").replace("_", " "),
        attempt.http_status,
        seconds is not None and f"{seconds:.3g} s",
        attempt.cost_usd is not None and dollars(attempt.cost_usd),
        attempt.request_id,
        attempt.key and f"key {attempt.key}",
        attempt.batch_id and f"batch {attempt.batch_id}",
        error.get("code") or error.get("type"),
        error.get("message"),
    ]
    return " · ".join(str(part) for part in parts if part)


def _file_line(name: str, shown: Mapping[str, Any], folder: str) -> str:
    word = {"images": "image"}.get(name, name)
    place = shown.get("url") or f"{folder}/{shown['file']}"
    what = f", {shown['reason']}" if "reason" in shown else f", {shown['width']}x{shown['height']} {shown['format']}"
    flags = f", {', '.join(shown['flags'])}" if shown.get("flags") else ""
    return f"{word}: {place}{what}{flags.replace('_', ' ')}"

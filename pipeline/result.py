"""How a run ended, for Python and for the command line."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import RequestError
from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.reports.manifest import entries

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import RateLimit
    from pipeline.errors import Stop
    from pipeline.ledger.job_summary import JobSummary


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image on disk; width and height in pixels."""

    path: Path
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    revised_prompt: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request. `error` has `http_status` and the API's own `error`; None where all is well."""

    job: str
    id: str
    key: str
    operation: str
    prompt: str | None
    params: Mapping[str, Any]
    variables: Mapping[str, Any]
    status: str
    images: tuple[ImageFile, ...]
    error: RequestError | None
    attempts: int
    maybe_paid: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `summaries` are those of the jobs it was asked for; `lowered` are the limits that
    providers stated, by provider, and that held instead of the configured ones; `unwritten` says what of the reports
    could not be written.
    """

    folder: Path
    summaries: Sequence[JobSummary]
    stops: Sequence[Stop]
    signal: signal.Signals | None
    manifests: Sequence[Path]
    lowered: Mapping[str, RateLimit]
    reports: Sequence[Path] = ()
    unwritten: Sequence[str] = ()

    @property
    def requests(self) -> list[Outcome]:
        """What became of each request of these jobs, in their order; read from the ledger each time."""
        return [outcome for summary in self.summaries for outcome in read_outcomes(self.folder, summary.name)]

    def raise_for_error(self) -> None:
        """Raise what stopped the run, else the error of the first request that failed, if one did: a RequestError."""
        failed = (one.error for one in self.requests if one.status in {"failed", "partial"})
        error = next(iter(self.stops), None) or next(failed, None)
        if error is not None:
            raise error

    @property
    def exit_code(self) -> int:
        """Say in a number what became of what was asked for, as the README lists it."""
        if self.signal is not None:
            return 128 + self.signal
        if self.stops:
            return 3
        return int(any(summary.unsuccessful for summary in self.summaries))


def read_outcomes(folder: Path, job: str) -> Iterator[Outcome]:
    """Yield a job's requests in the order of the job, then what is superseded. Raises LedgerError."""
    connection = open_for_reading(folder)
    if connection is None:
        return
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        for entry in entries(connection, job):
            yield _outcome(folder / job, entry)


def _outcome(folder: Path, entry: Mapping[str, Any]) -> Outcome:
    error = entry["error"]
    same = ("job", "id", "key", "operation", "prompt", "params", "variables", "status", "attempts", "maybe_paid")
    return Outcome(
        **{name: entry[name] for name in (*same, "cost_usd")},
        images=tuple(ImageFile(path=folder / image.pop("file"), **image) for image in entry["images"]),
        error=error
        and RequestError(error["message"], http_status=error["http_status"], type=error["type"], code=error["code"]),
    )

"""How a run ended: its jobs, what stopped it, and the outcome of each request, for Python and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import errors, ledger
from pipeline.errors import RequestError
from pipeline.reports.manifest import entries
from pipeline.storage import ImageStore

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Config, RateLimit
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
    remark: str | None = None  # what deviates in its file and harms no pixel
    provider: str | None = None  # that made it


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one request.

    `error` is of the class that the run raised, such as Moderated or Invalid, with `http_status` and the API's own
    `error`; None if there is none. `mode` is realtime or batch, as its last images were made, and `batch_id` what the
    service calls their batch.
    """

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
    mode: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    `summaries` are those of the jobs that it was given or took up while it worked; `unreached` counts the requests that
    it was to work on and that are still queued; `lowered` are the limits that providers stated, by provider,
    and that were in force instead of the configured ones; `unwritten` says which reports could not be written, and why;
    `passed_on` are those of the stops that left requests to other members of a route, with the names of their members.
    """

    config: Config
    summaries: Sequence[JobSummary]
    stops: Sequence[Stop]
    signal: signal.Signals | None
    manifests: Sequence[Path]
    lowered: Mapping[str, RateLimit]
    reports: Sequence[Path] = ()
    unwritten: Sequence[str] = ()
    unreached: int = 0
    passed_on: Sequence[tuple[str, Stop]] = ()

    @property
    def requests(self) -> list[Outcome]:
        """The outcome of each request of these jobs, in their order; read from the ledger each time."""
        return [outcome for summary in self.summaries for outcome in read_outcomes(self.config, summary.name)]

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.config.output

    def raise_for_error(self) -> None:
        """Raise the RequestError that stopped the run, else that of the first failed request, if there is one."""
        failed = (one.error for one in self.requests if one.status in {"failed", "partial"})
        passed_on = [] if self.unreached else [id(stop) for _, stop in self.passed_on]
        decisive = [stop for stop in self.stops if id(stop) not in passed_on]
        error = next(iter(decisive), None) or next(failed, None)
        if error is not None:
            raise error

    @property
    def exit_code(self) -> int:
        """The exit code of the command line, as the README lists it."""
        if self.signal is not None:
            return 128 + self.signal
        if len(self.stops) > len(self.passed_on) or self.unreached or any(one.out.batches for one in self.summaries):
            return 3
        return int(any(summary.unsuccessful for summary in self.summaries))


def read_outcomes(config: Config, job: str) -> Iterator[Outcome]:
    """Yield a job's requests in the order of the job, then what is superseded. Raises LedgerError."""
    images = ImageStore(config.images_folder)
    with ledger.reading(config.output) as connection:
        for entry in entries(connection, job):
            yield _outcome(images, entry)


def _outcome(images: ImageStore, entry: Mapping[str, Any]) -> Outcome:
    same = ("job", "id", "key", "operation", "prompt", "params", "variables", "status", "attempts", "maybe_paid")
    return Outcome(
        **{name: entry[name] for name in (*same, "cost_usd", "mode", "batch_id")},
        images=tuple(
            ImageFile(path=images.local_path(f"{entry['job']}/{image.pop('file')}"), **image)
            for image in entry["images"]
        ),
        error=None if entry["error"] is None else _error(entry["error"]),
    )


def _error(shown: Mapping[str, Any]) -> RequestError:
    """Return the error of a manifest's entry, of the class that its `kind` names."""
    found = getattr(errors, shown["kind"], None)
    kind = found if isinstance(found, type) and issubclass(found, RequestError) else RequestError
    return kind(shown["message"] or "", http_status=shown["http_status"], type=shown["type"], code=shown["code"])

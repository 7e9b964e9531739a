"""How a run ended: its jobs, what stopped it, and the outcome of each request, for Python and the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import errors, ledger
from pipeline.errors import RequestError
from pipeline.reports.manifest import entries
from pipeline.stores import Addresses, Stores

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Config, RateLimit
    from pipeline.errors import Stop
    from pipeline.ledger.job_summary import JobSummary


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image; width and height in pixels. `path` is None if it is in an object store."""

    path: Path | None
    sha256: str
    bytes: int
    width: int
    height: int
    format: str
    revised_prompt: str | None
    remark: str | None = None  # what deviates in its file and harms no pixel
    url: str | None = None
    provider: str | None = None  # that made it
    flags: tuple[str, ...] = ()  # blank, duplicate, wrong_size, wrong_format
    duplicate_of: str | None = None  # the file of the earlier one, relative to the job's folder


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
    replaced: tuple[ImageFile, ...] = ()  # in whose place images were made


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    `summaries` are those of the jobs that it was given or took up while it worked; `unreached` counts the requests that
    it was to work on and that are still queued; `lowered` are the limits that providers stated, by provider,
    and that were in force instead of the configured ones; `unwritten` says which reports could not be written, and why;
    `passed_on` are those of the stops that left requests to other members of a route, with the names of their members;
    `unsuccessful` counts the failed and partial requests if only some of the jobs' requests decide how it ended.
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
    unsuccessful: int | None = None

    @classmethod
    def of_nothing(cls, config: Config) -> Result:
        """Return how a run ends for which nothing was ever submitted."""
        return cls(config, summaries=(), stops=(), signal=None, manifests=(), lowered={})

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
        failed = (request.error for request in self.requests if request.status in {"failed", "partial"})
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
        if (
            len(self.stops) > len(self.passed_on)
            or self.unreached
            or any(summary.out.batches for summary in self.summaries)
        ):
            return 3
        if self.unsuccessful is not None:
            return int(self.unsuccessful > 0)
        return int(any(summary.unsuccessful for summary in self.summaries))


def read_outcomes(config: Config, job: str) -> Iterator[Outcome]:
    """Yield a job's requests in the order of the job, then what is superseded. Raises LedgerError."""
    stores, addresses = Stores.of(config), Addresses.of(config)
    with ledger.reading(config.output) as connection:
        for entry in entries(connection, job):
            yield _outcome(stores, addresses, entry)


def _outcome(stores: Stores, addresses: Addresses, entry: Mapping[str, Any]) -> Outcome:
    same = ("job", "id", "key", "operation", "prompt", "params", "variables", "status", "attempts", "maybe_paid")
    return Outcome(
        **{name: entry[name] for name in (*same, "cost_usd", "mode", "batch_id")},
        images=tuple(_image_file(stores, addresses, entry["job"], **image) for image in entry["images"]),
        replaced=tuple(_image_file(stores, addresses, entry["job"], **image) for image in entry["replaced"]),
        error=None if entry["error"] is None else _error(entry["error"]),
    )


class _Place(NamedTuple):
    root: str | None
    spooled: int


def _image_file(
    stores: Stores, addresses: Addresses, job: str, *, file: str, url: str | None, **shown: Any
) -> ImageFile:
    """Return an image that an entry shows; `url` is below the image's root, None in the output folder and its spool."""
    name = f"{job}/{file}"
    waits = url is None and stores.spool.local_path(name).exists()
    place = _Place(url and url.removesuffix(f"/{name}"), int(waits))
    store = stores.local(place)
    path = None if store is None else store.local_path(name)
    flags = tuple(shown.pop("flags"))
    return ImageFile(path=path, url=addresses.url(job, file, place), flags=flags, **shown)


def _error(shown: Mapping[str, Any]) -> RequestError:
    """Return the error of a manifest's entry, of the class that its `kind` names."""
    found = getattr(errors, shown["kind"], None)
    kind = found if isinstance(found, type) and issubclass(found, RequestError) else RequestError
    return kind(shown["message"] or "", http_status=shown["http_status"], type=shown["type"], code=shown["code"])

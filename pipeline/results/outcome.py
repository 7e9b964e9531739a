"""The ledger → what became of each request, as objects for Python."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.engine.ledger import FILE_NAME, named_errors, open_for_reading
from pipeline.errors import RequestError
from pipeline.results.manifest import entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


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

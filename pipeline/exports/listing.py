"""Listing of what an export contains: written once from the ledger, read as often as needed, in little memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

from pipeline.errors import BadInput
from pipeline.exports.variables import VariableTypes
from pipeline.files import disk_error
from pipeline.ledger.queries import read_places
from pipeline.reports.manifest import entries
from pipeline.storage import StoredImage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from types import TracebackType

    from pipeline.exports.picks import Picks
    from pipeline.reports.manifest_forms import ManifestLine

_LISTS = ("images", "replaced", "inputs", "quarantined")
_IMAGE_FIELDS = ("file", "sha256", "bytes", "width", "height", "format", "revised_prompt", "remark")

_FIRST_BYTES = 2**20
"""The beginning of a listing, which any reader of the export has seen before it decides what types columns have."""


class ListedRequest(NamedTuple):
    """A request with its images that are exported. `entry` is as in the manifest, without lists of files."""

    entry: dict[str, Any]
    images: tuple[StoredImage, ...]


class Listing:
    """The requests of an export in the order of the job file, in a temporary file without a name."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.images = 0
        self.bytes = 0
        self.formats: set[str] = set()
        self.variables = VariableTypes()
        self.exemplars: list[int] = []  # places of requests that first have a column, far behind the beginning
        self._columns: set[str] = set()
        self._requests = 0
        self._size = 0
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="pipeline-")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def fingerprint(self) -> str:
        """A hash of everything that is listed."""
        return self._hash.hexdigest()

    def __len__(self) -> int:
        """Return the number of requests."""
        return self._requests

    def add(self, request: ListedRequest) -> None:
        """Add a request at the end. Raises OSError."""
        line = json.dumps(request, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._note_columns(request.entry)
        self._file.write(line)
        self._hash.update(line)
        self._requests += 1
        self._size += len(line)
        self.images += len(request.images)
        for image in request.images:
            self.bytes += image.bytes
            self.formats.add(image.format)

    def _note_columns(self, entry: dict[str, Any]) -> None:
        columns = {name for name in ("prompt", "request_id", "custom_id") if entry.get(name) is not None}
        columns |= {"model"} if entry["params"].get("model") is not None else set()
        columns |= {f"variables/{name}" for name, value in entry["variables"].items() if value is not None}
        if not columns <= self._columns:
            self._columns |= columns
            if self._size > _FIRST_BYTES:
                self.exemplars.append(self._requests)
        self.variables.add(entry["variables"])

    def has(self, column: str) -> bool:
        """Return whether any request has a value in a column."""
        return column in self._columns

    def __iter__(self) -> Iterator[ListedRequest]:
        """Yield all requests; one iterator at a time."""
        self._file.seek(0)
        for line in self._file:
            entry, images = json.loads(line)
            yield ListedRequest(entry, tuple(StoredImage(*image) for image in images))

    def iter_images(self, *, exemplars_first: bool = False) -> Iterator[tuple[ListedRequest, StoredImage]]:
        """Yield each image with its request; with `exemplars_first`, those first that make columns known."""
        first = set(self.exemplars) if exemplars_first else set()
        for is_first in (True, False) if first else (False,):
            for place, request in enumerate(self):
                if (place in first) is is_first:
                    yield from ((request, image) for image in request.images)


def make_listing(
    connection: sqlite3.Connection, job: str, picks: Picks | None, *, with_failures: bool = False
) -> Listing:
    """List the stored images of a job's stated requests, or those of them that `picks` accepts.

    With `with_failures`, failed requests are listed, too, unless there are picks. Raises BadInput if nothing is left,
    or if a pick is of no stored image, and DiskFull.
    """
    try:
        return _make_listing(connection, job, picks, with_failures=with_failures)
    except OSError as reason:
        raise disk_error(reason, Path(tempfile.gettempdir())) from None


def _make_listing(connection: sqlite3.Connection, job: str, picks: Picks | None, *, with_failures: bool) -> Listing:
    with contextlib.ExitStack() as stack:
        listing = stack.enter_context(Listing(job))
        for entry in stack.enter_context(contextlib.closing(entries(connection, job))):
            if entry["status"] == "superseded":
                continue
            images = tuple(image for image in _images(connection, entry) if picks is None or picks.take(image))
            if images or (with_failures and picks is None and entry["status"] == "failed"):
                listing.add(ListedRequest({name: value for name, value in entry.items() if name not in _LISTS}, images))
        if picks is not None:
            picks.check_all_found(job)
        if not len(listing):
            raise BadInput(f"job `{job}` has no stored images: there is nothing to export; `pipeline run` makes them")
        stack.pop_all()
        return listing


def _images(connection: sqlite3.Connection, entry: ManifestLine) -> Iterator[StoredImage]:
    """Yield the images that the manifest has of a request, with where they are."""
    places = read_places(connection, entry["job"], entry["key"]) if entry["images"] else {}
    for number, image in enumerate(entry["images"], start=1):
        root, spooled = places[image["file"]]
        fields = {name: value for name, value in image.items() if name in _IMAGE_FIELDS}
        yield StoredImage(number=number, **fields, root=root, spooled=spooled)  # type: ignore[arg-type] # as named

"""Every SELECT whose result people read, in reports, on the terminal and on the web page, as frozen values.

What a worker reads is in `queue` and `attempts`. Moments are seconds since 1970, money is US dollars.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.storage import QuarantinedFile, StoredImage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from pipeline.ledger.queue import Scope


class RecordedRequest(NamedTuple):
    """One request with everything that reports show of it. `error` is None once it has succeeded.

    A named tuple, since one is created for each request of a job: a frozen dataclass takes six times as long.
    """

    request_pk: int
    job: str
    provider: str
    id: str
    key: str
    operation: str
    served_by: str
    prompt: str | None
    n: int
    status: str
    attempts: int
    maybe_paid: int
    cost_usd: float | None
    endpoint: str | None
    created_at: float
    finished_at: float | None
    custom_id: str | None  # of the line of a Batch input file
    params: Mapping[str, Any]
    variables: Mapping[str, Any]
    inputs: tuple[Mapping[str, Any], ...]
    rehearsal: bool
    error: Mapping[str, Any] | None


_REQUESTS = """
SELECT r.pk, j.name, j.provider, r.id, r.key, r.operation, r.served_by, r.prompt, r.n,
    iif(r.stated < j.revision, 'superseded', r.status), r.attempts, r.maybe_paid, r.cost_usd, r.endpoint,
    r.created_at, r.finished_at, r.custom_id, r.params, r.variables, r.inputs, j.rehearsal,
    iif(r.status = 'succeeded', NULL, r.error)
FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?1 AND r.stated <= j.revision
AND (?3 IS NULL OR r.id = ?3 COLLATE NOCASE) AND (?2 IS NULL OR r.pk IN (
    SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?1 AND r.stated <= j.revision
    ORDER BY r.stated = j.revision AND r.status IN ('failed', 'partial') DESC, r.stated < j.revision, r.position
    LIMIT ?2))
ORDER BY r.stated < j.revision, CASE WHEN r.stated < j.revision THEN r.pk ELSE r.position END
"""  # the columns are in the order of the fields


def read_requests(
    connection: sqlite3.Connection, job: str, most: int | None = None, request_id: str | None = None
) -> Iterator[RecordedRequest]:
    """Yield a job's requests in the order of the job file, then those that are superseded.

    With `most`, at most so many, and the failed ones before any other; with `request_id`, those of that id.
    """
    for *plain, params, variables, inputs, rehearsal, error in connection.execute(_REQUESTS, (job, most, request_id)):
        read = json.loads(params), json.loads(variables), tuple(json.loads(inputs))
        yield RecordedRequest._make((*plain, *read, bool(rehearsal), None if error is None else json.loads(error)))


class AttemptResponse(NamedTuple):
    """What the response to one attempt contained in addition to its images, and the batch that it came in.

    `mode` is None if it brought no images.
    """

    request_id: str | None
    usage: Mapping[str, Any] | None
    settings: Mapping[str, Any] | None
    mode: str | None
    batch_id: str | None


def read_responses(connection: sqlite3.Connection, request_pks: Iterable[int]) -> dict[int, list[AttemptResponse]]:
    """Return what the responses to the attempts of these requests said, by the request's key, the newest first."""
    found: dict[int, list[AttemptResponse]] = {}
    for request_pk, request_id, usage, settings, mode, batch_id in connection.execute(
        "SELECT a.request, a.request_id, a.usage, a.settings, iif(EXISTS (SELECT 1 FROM image i"
        " WHERE i.request = a.request AND i.attempt = a.pk), iif(a.batch IS NULL, 'realtime', 'batch'), NULL), b.id"
        " FROM attempt a LEFT JOIN batch b ON b.pk = a.batch"
        " WHERE a.request IN (SELECT value FROM json_each(?)) AND a.outcome != 'not_sent' ORDER BY a.pk DESC",
        (json.dumps(list(request_pks)),),
    ):
        read = usage and json.loads(usage), settings and json.loads(settings)
        found.setdefault(request_pk, []).append(AttemptResponse(request_id, *read, mode, batch_id))
    return found


_STORED = ", ".join(StoredImage._fields)


class ReportedImage(NamedTuple):
    """An image on disk, the provider that made it, and whether another one was made in its place."""

    image: StoredImage
    provider: str
    is_replaced: bool


def read_images(connection: sqlite3.Connection, request_pks: Iterable[int]) -> dict[int, list[ReportedImage]]:
    """Return the images of these requests that are on disk, by the request's key, each list by number."""
    found: dict[int, list[ReportedImage]] = {}
    for request_pk, provider, is_replaced, *image in connection.execute(
        f"SELECT request, (SELECT provider FROM attempt WHERE pk = i.attempt), redo IS 'replaced', {_STORED}"
        " FROM image i WHERE request IN (SELECT value FROM json_each(?)) AND state = 'stored' ORDER BY number",
        (json.dumps(list(request_pks)),),
    ):
        found.setdefault(request_pk, []).append(ReportedImage(StoredImage(*image), provider, bool(is_replaced)))
    return found


def read_places(connection: sqlite3.Connection, job: str, key: str) -> dict[str, tuple[str | None, int]]:
    """Return where the images on disk of a request are, by file: the store's URL, and whether they wait for it."""
    rows = connection.execute(
        "SELECT file, root, spooled FROM image WHERE state = 'stored' AND request = ("
        "SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ? AND r.key = ?)",
        (job, key),
    )
    return {file: (root, spooled) for file, root, spooled in rows}


def read_quarantine(connection: sqlite3.Connection, job: str) -> dict[int, list[QuarantinedFile]]:
    """Return the bytes that a job's responses brought and that are not valid images, by the request's key."""
    found: dict[int, list[QuarantinedFile]] = {}
    for request_pk, *file in connection.execute(
        "SELECT request, file, q.sha256, q.bytes, reason FROM quarantine q JOIN request r ON r.pk = q.request"
        " WHERE r.job = (SELECT pk FROM job WHERE name = ?) ORDER BY q.pk",
        (job,),
    ):
        found.setdefault(request_pk, []).append(QuarantinedFile(*file))
    return found


def read_images_of_job(
    connection: sqlite3.Connection, job: str, requests: Collection[int], *, replaced: bool = False
) -> dict[int, list[StoredImage]]:
    """Return the images on disk of these requests of a job, by the request's key, each list by number.

    They are those that count, or those in whose place others were made.
    """
    found: dict[int, list[StoredImage]] = {}
    for row in connection.execute(
        f"SELECT request, {_STORED} FROM image WHERE job = (SELECT pk FROM job WHERE name = ?) AND state = 'stored'"
        " AND (redo IS 'replaced') = ? ORDER BY request, number",
        (job, replaced),
    ):
        if row["request"] in requests:
            found.setdefault(row["request"], []).append(StoredImage(*row[1:]))
    return found


def read_seconds(connection: sqlite3.Connection, job: str) -> dict[int, float]:
    """Return the seconds that the calls of a job's requests took, by the request's primary key; without batches."""
    rows = connection.execute(
        "SELECT a.request, sum(a.ended_at - a.sent_at) FROM attempt a JOIN request r ON r.pk = a.request"
        " JOIN job j ON j.pk = r.job WHERE j.name = ? AND a.outcome IN ('answered', 'refused', 'unknown')"
        " AND a.batch IS NULL GROUP BY a.request",
        (job,),
    )
    return dict(rows.fetchall())


@dataclass(frozen=True, slots=True)
class RecordedImage:
    """One image on disk, as the ledger has it. `file` is relative to the job's folder."""

    image_pk: int
    job: str
    file: str
    sha256: str
    bytes: int
    format: str
    root: str | None = None
    spooled: int = 0  # 1: it waits on the local disk until the store at `root` has it

    @property
    def name(self) -> str:
        """The image's name in an ImageStore."""
        return f"{self.job}/{self.file}"


_RECORDED = """
SELECT i.pk, j.name, i.file, i.sha256, i.bytes, i.format, i.root, i.spooled FROM image i JOIN job j ON j.pk = i.job
WHERE i.state = 'stored'
"""


def read_recorded_images(connection: sqlite3.Connection, job: str | None) -> list[RecordedImage]:
    """Return every image on disk of a job, or of all, in the order in which they came."""
    rows = connection.execute(f"{_RECORDED} AND (?1 IS NULL OR j.name = ?1) ORDER BY i.pk", (job,))
    return [RecordedImage(*row) for row in rows]


def count_images(connection: sqlite3.Connection, job: str | None) -> int:
    """Return the number of images on disk of a job, or of all."""
    row = connection.execute(
        "SELECT count(*) FROM image i JOIN job j ON j.pk = i.job WHERE i.state = 'stored'"
        " AND (?1 IS NULL OR j.name = ?1)",
        (job,),
    ).fetchone()
    return int(row[0])


def count_unsuccessful(connection: sqlite3.Connection, request_pks: Collection[int]) -> int:
    """Count those of these requests that failed or came back partial."""
    row = connection.execute(
        "SELECT count(*) FROM request WHERE status IN ('failed', 'partial') AND pk IN (SELECT value FROM json_each(?))",
        (json.dumps(list(request_pks)),),
    ).fetchone()
    return int(row[0])


def count_superseded_images(connection: sqlite3.Connection, job: str) -> int:
    """Return the number of images on disk of a job's superseded requests, without those that are replaced."""
    row = connection.execute(
        "SELECT count(*) FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = i.job"
        " WHERE i.state = 'stored' AND i.redo IS NOT 'replaced' AND j.name = ? AND r.stated < j.revision",
        (job,),
    ).fetchone()
    return int(row[0])


def find_image(connection: sqlite3.Connection, image_pk: int) -> RecordedImage | None:
    """Return one image on disk, None if there is none of this primary key."""
    row = connection.execute(f"{_RECORDED} AND i.pk = ?", (image_pk,)).fetchone()
    return None if row is None else RecordedImage(*row)


def find_job_image(
    connection: sqlite3.Connection, job: str, *, file: str | None = None, sha256: str | None = None
) -> RecordedImage | None:
    """Return an image on disk of a job by its file or its hash, None if there is none."""
    row = connection.execute(
        f"{_RECORDED} AND j.name = ?1 AND i.file IS NOT NULL AND (?2 IS NULL OR i.file = ?2)"
        " AND (?3 IS NULL OR i.sha256 = ?3) LIMIT 1",
        (job, file, sha256),
    ).fetchone()
    return None if row is None else RecordedImage(*row)


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """An input file that requests of a job upload. `file` is relative to the job's folder."""

    job: str
    file: str


def read_uploaded_files(connection: sqlite3.Connection, job: str | None) -> list[UploadedFile]:
    """Return the input files of a job, or of all, each once."""
    rows = connection.execute(
        "SELECT DISTINCT j.name, json_extract(i.value, '$.file') AS file FROM request r JOIN job j ON j.pk = r.job,"
        " json_each(r.inputs) i WHERE ?1 IS NULL OR j.name = ?1 ORDER BY j.pk, file",
        (job,),
    )
    return [UploadedFile(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An image on disk with its caption."""

    image_pk: int
    job: str
    file: str
    id: str
    prompt: str | None


def read_newest_images(connection: sqlite3.Connection, window: int) -> list[int]:
    """Return the primary keys of the images on disk among the newest `window` rows, the oldest first.

    A row may be older than its file: a paid image has one before it is downloaded.
    """
    rows = connection.execute(
        "SELECT pk FROM image WHERE state = 'stored' AND pk > (SELECT max(pk) FROM image) - ? ORDER BY pk", (window,)
    )
    return [row[0] for row in rows]


def read_captions(connection: sqlite3.Connection, image_pks: Collection[int]) -> list[CaptionedImage]:
    """Return these images with their captions, the oldest first."""
    rows = connection.execute(
        "SELECT i.pk, j.name, i.file, r.id, r.prompt"
        " FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = i.job"
        " WHERE i.pk IN (SELECT value FROM json_each(?)) ORDER BY i.pk",
        (json.dumps(list(image_pks)),),
    )
    return [CaptionedImage(*row) for row in rows]


def jobs_in_scope(connection: sqlite3.Connection, scope: Scope) -> list[str]:
    """Return the names of the jobs that a run is about: those it was given, and those submitted while it worked."""
    rows = connection.execute("SELECT name, submitted_at FROM job WHERE revision > 0 ORDER BY pk").fetchall()
    return [
        name for name, submitted_at in rows if scope.names is None or name in scope.names or submitted_at > scope.since
    ]


def has_owner_record(connection: sqlite3.Connection) -> bool:
    """Return whether a run is recorded as the owner of the folder; its process may be dead."""
    return connection.execute("SELECT 1 FROM holder").fetchone() is not None

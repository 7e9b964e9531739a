"""Writes `manifest.jsonl` from the ledger: one object per request in the order of the job file, for people's scripts.

It is written whole or not at all. Nothing but `adopt` reads it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any, cast

from pipeline.files import disk_error, make_folder, whole_file
from pipeline.ledger import queries
from pipeline.ledger.database import file_mode, read_transaction
from pipeline.ledger.error_kind import kind_of
from pipeline.ledger.image_flags import NO_FLAGS, read_flags
from pipeline.reports.facts import utc_time
from pipeline.reports.manifest_evidence import keep_evidence
from pipeline.stores import Addresses

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.ledger.image_flags import ImageFlags
    from pipeline.ledger.queries import AttemptResponse, RecordedRequest, ReportedImage
    from pipeline.reports.manifest_forms import (
        ErrorForm,
        ManifestImage,
        ManifestLine,
        QuarantinedForm,
        ShownImage,
        Status,
    )
    from pipeline.storage import QuarantinedFile, StoredImage

FILE_NAME = "manifest.jsonl"

_AT_ONCE = 500  # requests whose attempts and images are read together: each SELECT of its own costs more than its rows
_as_json = json.JSONEncoder(ensure_ascii=False).encode


def write_manifest(connection: sqlite3.Connection, name: str, folder: Path, addresses: Addresses = Addresses()) -> Path:
    """Write the manifest of a job into its folder below `folder`; return its path. Raises DiskFull.

    What the last one proves of images that the ledger does not know is kept.
    """
    path = folder / name / FILE_NAME
    try:
        make_folder(path.parent)
        keep_evidence(connection, name, folder, path, addresses)
        with (
            whole_file(path, file_mode(folder)) as file,
            contextlib.closing(entries(connection, name, addresses)) as found,
        ):
            for entry in found:
                file.write(_as_json(entry).encode("utf-8", "replace") + b"\n")
    except OSError as reason:
        raise disk_error(reason, folder) from None
    return path


def entries(connection: sqlite3.Connection, name: str, addresses: Addresses = Addresses()) -> Generator[ManifestLine]:
    """Yield a job's requests as the manifest shows them: what the job file states, in its order, then the others."""
    with read_transaction(connection):
        quarantined, flags = queries.read_quarantine(connection, name), read_flags(connection, name)
        requests = queries.read_requests(connection, name)
        while group := list(itertools.islice(requests, _AT_ONCE)):
            yield from entries_of(connection, group, quarantined, flags, addresses)


def entries_of(
    connection: sqlite3.Connection,
    requests: Sequence[RecordedRequest],
    quarantined: Mapping[int, Sequence[QuarantinedFile]],
    flags: Mapping[str, ImageFlags],
    addresses: Addresses,
) -> Iterator[ManifestLine]:
    """Yield requests of a job as the manifest shows them; `flags` are those of the job's images, by their files."""
    keys = [request.request_pk for request in requests]
    responses, made = queries.read_responses(connection, keys), queries.read_images(connection, keys)
    for request in requests:
        images: tuple[list[ManifestImage], list[ManifestImage]] = ([], [])
        for image in made.get(request.request_pk, ()):
            images[image.is_replaced].append(_image(request.job, image, flags, addresses))
        files: list[QuarantinedForm] = [
            {"file": file.file, "sha256": file.sha256, "bytes": file.bytes, "reason": file.reason}
            for file in quarantined.get(request.request_pk, ())
        ]
        yield _entry(request, responses.get(request.request_pk, ()), *images, files)


def _entry(
    request: RecordedRequest,
    responses: Sequence[AttemptResponse],
    images: list[ManifestImage],
    replaced: list[ManifestImage],
    quarantined: list[QuarantinedForm],
) -> ManifestLine:
    """Return one object of the manifest; `responses` are the newest first."""
    last = next((response for response in responses if response.mode is not None), None)  # that brought images
    return {
        "id": request.id,
        "key": request.key,
        "custom_id": request.custom_id,
        "job": request.job,
        "operation": request.operation,
        "provider": request.provider,
        "endpoint": request.endpoint,
        "served_by": f"images/{request.served_by}s",
        "prompt": request.prompt,
        "params": shown_params(request),
        "variables": dict(request.variables),
        "inputs": [
            {
                "role": input_file["role"],
                "source": input_file["source"],
                "file": input_file["file"],
                "sha256": input_file["sha256"],
            }
            for input_file in request.inputs
        ],
        "status": cast("Status", request.status),
        "attempts": request.attempts,
        "maybe_paid": request.maybe_paid,
        "error": None if request.error is None else shown_error(request.error),
        "images": images,
        "replaced": replaced,
        "quarantined": quarantined,
        "usage": _sum([response.usage for response in responses if response.usage is not None]),
        "cost_usd": None if request.cost_usd is None else round(request.cost_usd, 6),
        "settings": dict(next((response.settings for response in responses if response.settings), {})),
        "rehearsal": request.rehearsal,
        "mode": None if last is None else last.mode,
        "batch_id": None if last is None else last.batch_id,
        "request_id": next((response.request_id for response in responses if response.request_id is not None), None),
        "created_at": utc_time(request.created_at),
        "finished_at": utc_time(request.finished_at),
    }


def shown_error(error: Mapping[str, Any]) -> ErrorForm:
    """Return an error in the fields that scripts know; `kind` is its class."""
    return {
        "http_status": error.get("http_status"),
        "type": error.get("type"),
        "code": error.get("code"),
        "message": error.get("message"),
        "kind": kind_of(error),
    }


def shown_params(request: RecordedRequest) -> dict[str, Any]:
    """Return a request's parameters as people read them: the model and n first."""
    params = dict(request.params)
    model = {"model": params.pop("model")} if "model" in params else {}
    return {**model, "n": request.n, **params}


def shown_image(image: StoredImage, flags: Mapping[str, ImageFlags]) -> ShownImage:
    """Return an image in the fields that scripts know."""
    own = flags.get(image.file, NO_FLAGS)
    return {
        "file": image.file,
        "sha256": image.sha256,
        "bytes": image.bytes,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "revised_prompt": image.revised_prompt,
        "remark": image.remark,
        "flags": list(own.flags),
        "duplicate_of": own.duplicate_of,
    }


def _image(job: str, made: ReportedImage, flags: Mapping[str, ImageFlags], addresses: Addresses) -> ManifestImage:
    url = addresses.url(job, made.image.file, made.image)
    return {**shown_image(made.image, flags), "url": url, "provider": made.provider}


def _sum(usages: list[Any]) -> Any:
    """Return the total usage of a request's responses, including the numbers of nested details."""
    if len(usages) < 2:
        return usages[0] if usages else None
    total: dict[str, Any] = {}
    for usage in usages:
        for key, value in usage.items():
            if isinstance(value, dict):
                total[key] = _sum([total[key], value]) if isinstance(total.get(key), dict) else value
            elif isinstance(value, int | float) and isinstance(total.get(key, 0), int | float):
                total[key] = total.get(key, 0) + value
            else:
                total.setdefault(key, value)
    return total

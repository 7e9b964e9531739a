"""Reads from the ledger what the report shows of a job: its requests, their images, the causes of its failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pipeline.ledger import queries
from pipeline.ledger.database import read_transaction
from pipeline.ledger.image_flags import read_flags
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.reports.batches import batch_facts, batch_sentence
from pipeline.reports.facts import spent_facts
from pipeline.reports.failure_report import cause_key, read_causes
from pipeline.reports.manifest import shown_image, shown_params
from pipeline.reports.next_command import WITHOUT_OPTIONS
from pipeline.reports.stops import read_holding_stops, stops_json
from pipeline.reports.thumbnails import thumbnail_name

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from pipeline.ledger.image_flags import ImageFlags
    from pipeline.ledger.queries import RecordedRequest
    from pipeline.reports.failure_report import CauseKey, FailureCause
    from pipeline.reports.next_command import NextCommand
    from pipeline.storage import StoredImage
    from pipeline.stores import Addresses

MOST = 50_000
"""Requests on one page, at most, failures before others: some 30 MB, which a browser still reads in seconds."""


def read_report_data(
    connection: sqlite3.Connection,
    name: str,
    most: int = MOST,
    command: NextCommand = WITHOUT_OPTIONS,
    addresses: Addresses | None = None,
) -> dict[str, Any]:
    """Return a job as plain values for JSON, all of one state of the ledger, even beside a working run.

    With `addresses`, images that are not in the job's folder have the address of what a page may show in their place;
    without, the page is served, and the server finds them.
    """
    with read_transaction(connection):
        (summary,) = read_job_summaries(connection, [name])
        requests = list(queries.read_requests(connection, name, most))
        keys = {request.request_pk for request in requests}
        images = queries.read_images_of_job(connection, name, keys)
        replaced = queries.read_images_of_job(connection, name, keys, replaced=True)
        flags = read_flags(connection, name)
        seconds = queries.read_seconds(connection, name)
        superseded_images = queries.count_superseded_images(connection, name)
        causes = read_causes(connection, [summary.name])
        stops = read_holding_stops(connection, [summary.name])
        by_batch = batch_facts(connection, summary)
    return {
        "job": summary.name,
        "provider": summary.provider,
        "rehearsal": summary.rehearsal,
        "counts": dict(summary.counts),
        "images": summary.images - superseded_images,
        "superseded_images": superseded_images,
        "cost_usd": summary.cost_usd,
        "maybe_paid": summary.maybe_paid,
        "spent": [[fact.label, fact.value] for fact in (*spent_facts(summary), *by_batch)],
        "batches": batch_sentence(summary, time.time()) if summary.living else None,
        "unfinished": summary.unfinished,
        "left_out": sum(summary.counts.values()) - len(requests),
        "written_at": time.time(),
        "requests": [
            {
                **_request(request, seconds.get(request.request_pk)),
                "images": [_shown_image(name, image, flags, addresses) for image in images.get(request.request_pk, ())],
                "replaced": [
                    _shown_image(name, image, flags, addresses) for image in replaced.get(request.request_pk, ())
                ],
            }
            for request in requests
        ],
        "causes": _causes(causes, requests, command),
        "commands": {
            "folder": command.folder and str(command.folder),
            "run": command.line("run"),
            "redo": command.line("redo", summary.name, "--picks", "picks.jsonl"),
        },
        "stops": stops_json(stops, command),
    }


def _causes(
    causes: Sequence[FailureCause], requests: Sequence[RecordedRequest], command: NextCommand
) -> list[dict[str, Any]]:
    """Return the causes with what mends them and their requests, as places in the list of requests that are shown."""
    places: dict[CauseKey, list[int]] = {}
    for place, request in enumerate(requests):
        if request.status in {"failed", "partial"}:
            places.setdefault(cause_key(request.error), []).append(place)
    return [
        {
            "title": cause.title,
            "count": cause.count,
            "message": cause.jobs[0].message,
            "advice": cause.advice,
            "commands": [command.line(*words) for words in cause.commands],
            "requests": places.get(cause.key, []),
        }
        for cause in causes
    ]


def _request(request: RecordedRequest, seconds: float | None) -> dict[str, Any]:
    return {
        "id": request.id,
        "operation": request.operation,
        "prompt": request.prompt,
        "params": shown_params(request),
        "variables": request.variables,
        "inputs": [{"role": input_file["role"], "file": input_file["file"]} for input_file in request.inputs],
        "status": request.status,
        "attempts": request.attempts,
        "maybe_paid": request.maybe_paid,
        "error": request.error,
        "cost_usd": None if request.cost_usd is None else round(request.cost_usd, 6),
        "seconds": None if seconds is None else round(seconds, 2),
        "finished_at": request.finished_at,
    }


def _shown_image(
    job: str, image: StoredImage, flags: Mapping[str, ImageFlags], addresses: Addresses | None
) -> dict[str, Any]:
    """Return an image for the page; `address` is what it shows if the image is not in the job's folder.

    Without an `images_url` that is the thumbnail: a link that needs no key would be a secret in a file.
    """
    shown: dict[str, Any] = {**shown_image(image, flags)}
    if addresses is None or (image.root is None and addresses.images_url is None):
        return shown
    return {**shown, "address": addresses.public(job, image.file, image) or thumbnail_name(image.sha256)}

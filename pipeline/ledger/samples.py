"""Reads requests and their images as samples of their kind: alike in provider, model, size and quality."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class StatedRequest:
    """A request that a job states now. `usd` is the estimate of all its images, None without a price."""

    pk: int
    job: str
    provider: str  # or the route that the job names
    key: str
    id: str
    status: str
    params: Mapping[str, Any]
    usd: float | None


@dataclass(frozen=True, slots=True)
class SampleImage:
    """An image of a sample; width and height are None for one that states none."""

    width: int | None
    height: int | None
    format: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """A request with what came of it. `estimate_usd` is that of what it received, in realtime."""

    job: str
    provider: str  # or the route that the job names
    id: str
    status: str
    served_by: str  # the operation whose endpoint was called
    prompt: str | None
    params: Mapping[str, Any]
    cost_usd: float | None
    estimate_usd: float | None
    by_batch: bool
    error_kind: str | None
    error_message: str | None
    images: tuple[SampleImage, ...]


def read_stated(connection: sqlite3.Connection, jobs: Collection[str]) -> list[StatedRequest]:
    """Return the requests of these jobs, as they are stated now."""
    rows = connection.execute(
        "SELECT r.pk, j.name, j.provider, r.key, r.id, r.status, r.params, r.estimate_usd"
        " FROM job j JOIN request r ON r.job = j.pk AND r.stated = j.revision"
        " WHERE j.name IN (SELECT value FROM json_each(?)) ORDER BY j.submitted_at, r.position",
        (json.dumps(list(jobs)),),
    )
    return [
        StatedRequest(pk, job, provider, key, name, status, json.loads(params), usd)
        for pk, job, provider, key, name, status, params, usd in rows
    ]


def newest_made(connection: sqlite3.Connection, request_pks: Collection[int]) -> int | None:
    """Return the primary key of the request whose image was stored last; None if none of them has an image."""
    row = connection.execute(
        "SELECT request FROM image WHERE state = 'stored' AND request IN (SELECT value FROM json_each(?))"
        " ORDER BY pk DESC LIMIT 1",
        (json.dumps(list(request_pks)),),
    ).fetchone()
    return None if row is None else int(row[0])


def read_sample(connection: sqlite3.Connection, request_pk: int) -> Sample:
    """Return a request with its images."""
    row = connection.execute(
        "SELECT j.name, j.provider, r.id, r.status, r.served_by, r.prompt, r.params, r.cost_usd,"
        " r.estimate_usd * r.received / r.n AS estimate_usd,"
        " EXISTS (SELECT 1 FROM attempt WHERE request = r.pk AND batch IS NOT NULL) AS by_batch,"
        " error_kind(r.error) AS error_kind, json_extract(r.error, '$.message') AS message"
        " FROM request r JOIN job j ON j.pk = r.job WHERE r.pk = ?",
        (request_pk,),
    ).fetchone()
    images = connection.execute(
        "SELECT width, height, format FROM image WHERE request = ? AND state = 'stored' ORDER BY number", (request_pk,)
    )
    return Sample(
        job=row["name"],
        provider=row["provider"],
        id=row["id"],
        status=row["status"],
        served_by=row["served_by"],
        prompt=row["prompt"],
        params=json.loads(row["params"]),
        cost_usd=row["cost_usd"],
        estimate_usd=row["estimate_usd"],
        by_batch=bool(row["by_batch"]),
        error_kind=row["error_kind"],
        error_message=row["message"],
        images=tuple(SampleImage(*image) for image in images),
    )

"""The ledger → what the report shows of a job: its requests, their pictures, the causes of its failures."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pipeline.ledger.job_summary import read_job_summaries
from pipeline.reports.causes import find_causes
from pipeline.reports.manifest import show_params

if TYPE_CHECKING:
    import sqlite3

MOST = 50_000
"""Requests on one page, at most, failures before others: some 30 MB, which a browser still reads in seconds."""

_REQUESTS = """
SELECT r.*, r.stated < j.revision AS superseded FROM request r JOIN job j ON j.pk = r.job
WHERE j.name = ? AND r.stated <= j.revision
ORDER BY r.stated = j.revision AND r.status IN ('failed', 'partial') DESC, superseded, r.position LIMIT ?
"""
_IMAGES = """
SELECT i.* FROM image i JOIN job j ON j.pk = i.job WHERE j.name = ? AND i.state = 'stored' ORDER BY i.request, i.number
"""
_SECONDS = """
SELECT a.request, sum(a.ended_at - a.sent_at) AS seconds FROM attempt a JOIN request r ON r.pk = a.request
JOIN job j ON j.pk = r.job WHERE j.name = ? AND a.outcome IN ('answered', 'refused', 'unknown') GROUP BY a.request
"""


def read_report_data(connection: sqlite3.Connection, name: str, most: int = MOST) -> dict[str, Any]:
    """Give a job as plain values for JSON, of one moment of the ledger, even beside a working run."""
    connection.execute("BEGIN")
    try:
        (summary,) = read_job_summaries(connection, [name])
        rows = connection.execute(_REQUESTS, (name, most)).fetchall()
        images = _images(connection, name, {row["pk"] for row in rows})
        seconds = dict(connection.execute(_SECONDS, (name,)).fetchall())
    finally:
        connection.execute("COMMIT")
    rows.sort(key=lambda row: (row["superseded"], row["pk"] if row["superseded"] else row["position"]))
    requests = [_request(row, images.get(row["pk"], []), seconds.get(row["pk"])) for row in rows]
    unsuccessful = (
        (place, one["error"]) for place, one in enumerate(requests) if one["status"] in {"failed", "partial"}
    )
    return {
        "job": summary.name,
        "provider": summary.provider,
        "rehearsal": summary.rehearsal,
        "counts": dict(summary.counts),
        "images": summary.images,
        "cost_usd": summary.cost_usd,
        "maybe_paid": summary.maybe_paid,
        "unfinished": summary.unfinished,
        "left_out": sum(summary.counts.values()) - len(requests),
        "written_at": time.time(),
        "requests": requests,
        "causes": [
            {"title": one.title, "message": one.message, "advice": one.advice, "requests": one.requests}
            for one in find_causes(unsuccessful)
        ],
    }


def _images(connection: sqlite3.Connection, name: str, shown: set[int]) -> dict[int, list[dict[str, Any]]]:
    fields = ("file", "sha256", "bytes", "width", "height", "format", "revised_prompt")
    found: dict[int, list[dict[str, Any]]] = {}
    for row in connection.execute(_IMAGES, (name,)):
        if row["request"] in shown:
            found.setdefault(row["request"], []).append({field: row[field] for field in fields})
    return found


def _request(row: sqlite3.Row, images: list[dict[str, Any]], seconds: float | None) -> dict[str, Any]:
    return {
        "id": row["id"],
        "operation": row["operation"],
        "prompt": row["prompt"],
        "params": show_params(row),
        "variables": json.loads(row["variables"]),
        "status": "superseded" if row["superseded"] else row["status"],
        "attempts": row["attempts"],
        "maybe_paid": row["maybe_paid"],
        "error": None if row["error"] is None or row["status"] == "succeeded" else json.loads(row["error"]),
        "cost_usd": None if row["cost_usd"] is None else round(row["cost_usd"], 6),
        "seconds": None if seconds is None else round(seconds, 2),
        "finished_at": row["finished_at"],
        "images": images,
    }

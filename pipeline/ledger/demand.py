"""Reads what is still to be made of the queued jobs, added up over requests that are alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True, slots=True)
class QueuedDemand:
    """Images to come of a job's queued requests that share operation, model, size, quality and format.

    `usd` is their estimated cost in realtime, None if a price is missing.
    """

    job: str
    provider: str  # or the route that the job names
    served_by: str
    model: str | None
    size: str | None
    quality: str | None
    output_format: str | None
    requests: int
    images: int
    usd: float | None


def read_queued_demand(connection: sqlite3.Connection) -> list[QueuedDemand]:
    """Return what is still to be made of all jobs, by job and kind."""
    rows = connection.execute(
        "SELECT j.name, j.provider, r.served_by, json_extract(r.params, '$.model') AS model,"
        " json_extract(r.params, '$.size') AS size, json_extract(r.params, '$.quality') AS quality,"
        " json_extract(r.params, '$.output_format') AS output_format, count(*) AS requests,"
        " sum(max(0, r.n - r.received)) AS images,"
        " CASE count(*) WHEN count(r.estimate_usd) THEN total(r.estimate_usd * max(0, r.n - r.received) / r.n) END"
        " FROM job j JOIN request r ON r.job = j.pk AND r.stated = j.revision"
        " WHERE r.status IN ('pending', 'running')"
        " GROUP BY j.pk, r.served_by, model, size, quality, output_format"
        " ORDER BY j.submitted_at, j.pk, min(r.position)"
    )
    return [QueuedDemand(*row) for row in rows]


def read_budgets(connection: sqlite3.Connection) -> dict[str, float | None]:
    """Return the budget that each job states, by its name."""
    return dict(connection.execute("SELECT name, budget_usd FROM job WHERE revision > 0").fetchall())

"""How each job stands, read from the ledger: its requests by status, its images, what it cost, what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

STATUSES = ("pending", "running", "succeeded", "partial", "failed", "cancelled", "superseded")


@dataclass(frozen=True, slots=True)
class JobSummary:
    """How one job stands: requests by status, images on disk and to come, US dollars (None if unknown)."""

    name: str
    provider: str
    rehearsal: bool
    counts: Mapping[str, int]
    images: int
    missing: int
    cost_usd: float | None
    expected_usd: float | None  # of the images to come
    maybe_paid: int
    paid_waiting: int = 0  # images that are paid and not downloaded yet

    @property
    def unfinished(self) -> int:
        """Requests that are still to be worked on."""
        return self.counts["pending"] + self.counts["running"]

    @property
    def unsuccessful(self) -> int:
        """Requests that were tried to the end and have not all their images."""
        return self.counts["failed"] + self.counts["partial"]


def read_job_summaries(connection: sqlite3.Connection, names: Collection[str] | None = None) -> list[JobSummary]:
    """Return how these jobs stand, or all, the oldest first."""
    jobs = connection.execute("SELECT * FROM job WHERE revision > 0 ORDER BY pk").fetchall()
    return [_job_summary(connection, job) for job in jobs if names is None or job["name"] in names]


def _job_summary(connection: sqlite3.Connection, job: sqlite3.Row) -> JobSummary:
    counts = dict.fromkeys(STATUSES, 0)
    images = missing = maybe_paid = paid_waiting = 0
    cost: float | None = None
    expected: float | None = 0.0
    rows = connection.execute(
        "SELECT CASE WHEN stated < ?1 THEN 'superseded' ELSE status END AS state, count(*) AS requests,"
        " sum(received) AS images, sum(max(0, n - received)) AS missing, sum(maybe_paid) AS maybe_paid,"
        " sum(cost_usd) AS cost, total(estimate_usd * max(0, n - received) / n) AS expected,"
        " count(*) - count(estimate_usd) AS unpriced,"
        " (SELECT count(*) FROM image i JOIN request q ON q.pk = i.request"
        " WHERE i.state = 'paid' AND q.job = ?2 AND q.stated = ?1) AS paid_waiting"
        " FROM request WHERE job = ?2 AND stated <= ?1 GROUP BY state",
        (job["revision"], job["pk"]),
    )
    for row in rows:
        counts[row["state"]] = row["requests"]
        paid_waiting = row["paid_waiting"]  # of the whole job
        images += row["images"]
        if row["state"] in {"pending", "running"}:
            missing += row["missing"]
            expected = None if row["unpriced"] or expected is None else expected + row["expected"]
        maybe_paid += row["maybe_paid"]
        if row["cost"] is not None:
            cost = (cost or 0.0) + row["cost"]
    return JobSummary(
        name=job["name"],
        provider=job["provider"],
        rehearsal=bool(job["rehearsal"]),
        counts=counts,
        images=images,
        missing=missing,
        cost_usd=cost,
        expected_usd=expected,
        maybe_paid=maybe_paid,
        paid_waiting=paid_waiting,
    )


def received_images(connection: sqlite3.Connection, name: str) -> dict[str, int]:
    """Return how many images each request of a job has on disk, or has paid and is still to download, by its key."""
    rows = connection.execute(
        "SELECT r.key, r.received + (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.state = 'paid')"
        " FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?",
        (name,),
    )
    return dict(rows.fetchall())

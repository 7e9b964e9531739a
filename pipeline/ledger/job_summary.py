"""How each job stands, read from the ledger: its requests by status, its images, what it cost, what is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.ledger.batch_queries import BatchesOut, InBatches, read_batches, read_in_batches

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from pipeline.ledger.batch_queries import RecordedBatch

STATUSES = ("pending", "running", "succeeded", "partial", "failed", "cancelled", "superseded")


@dataclass(frozen=True, slots=True)
class ServedImages:
    """What one provider made of a job: images on disk, and US dollars (None if unknown)."""

    provider: str
    images: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class JobSummary:
    """How one job stands: requests by status, images on disk and to come, US dollars (None if unknown).

    `in_batches` are those of its running requests that are out in batches, and not calls in flight.
    """

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
    priority: int = 0
    mode: str = "realtime"
    deadline: float | None = None  # of mode auto, seconds since 1970
    realtime_since: float | None = None  # when its deadline came near
    is_being_cancelled: bool = False
    batches: tuple[RecordedBatch, ...] = ()
    in_batches: InBatches = field(default_factory=InBatches)
    members: tuple[str, ...] = ()  # of a route: the providers that serve it
    served: tuple[ServedImages, ...] = ()  # of a route: what each provider made

    @property
    def serving(self) -> tuple[str, ...]:
        """The names of the providers that serve it."""
        return self.members or (self.provider,)

    @property
    def by_provider(self) -> tuple[ServedImages, ...]:
        """What each provider made of it."""
        return self.served if self.members else (ServedImages(self.provider, self.images, self.cost_usd),)

    @property
    def goes_by_batch(self) -> bool:
        """Whether what is to come is made by batch, as far as its requests can."""
        return self.mode != "realtime" and self.realtime_since is None

    @property
    def unfinished(self) -> int:
        """Requests that are still to be worked on."""
        return self.counts["pending"] + self.counts["running"]

    @property
    def unsuccessful(self) -> int:
        """Requests that were tried to the end and have not all their images."""
        return self.counts["failed"] + self.counts["partial"]

    @property
    def living(self) -> tuple[RecordedBatch, ...]:
        """Its batches that are out."""
        return tuple(batch for batch in self.batches if batch.is_living)

    @property
    def out(self) -> BatchesOut:
        """Its batches that are out, added up."""
        return BatchesOut.of(self.living)


def read_job_summaries(
    connection: sqlite3.Connection,
    names: Collection[str] | None = None,
    discounts: Mapping[str, float] | None = None,
) -> list[JobSummary]:
    """Return how these jobs stand, or all, the oldest first. `discounts` are those of batches, by provider."""
    jobs = connection.execute(
        "SELECT *, EXISTS (SELECT 1 FROM batch WHERE job = job.pk) AS has_batches,"
        " EXISTS (SELECT 1 FROM attempt WHERE outcome IS NULL AND batch IS NULL) AS has_calls"  # of all jobs
        " FROM job WHERE revision > 0 ORDER BY pk"
    ).fetchall()
    found = [_job_summary(connection, job) for job in jobs if names is None or job["name"] in names]
    if jobs and jobs[0]["has_calls"]:
        lost = _lost_calls(connection)
        found = [replace(summary, maybe_paid=summary.maybe_paid + lost.get(summary.name, 0)) for summary in found]
    return [_discounted(summary, (discounts or {}).get(summary.provider, 0.0)) for summary in found]


def _lost_calls(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the calls in flight by job if the run that made them died: the next run finds that they may be paid."""
    from pipeline.ledger.lock import find_owner  # with filelock, a third of the time that `status` takes

    folder = Path(connection.execute("PRAGMA database_list").fetchone()["file"]).parent
    if find_owner(folder, connection) is not None:
        return {}
    calls = connection.execute(
        "SELECT j.name, count(*) FROM attempt a CROSS JOIN request r ON r.pk = a.request JOIN job j ON j.pk = r.job"
        " WHERE a.outcome IS NULL AND a.batch IS NULL AND r.stated <= j.revision GROUP BY j.pk"
    )
    return dict(calls.fetchall())


def _discounted(summary: JobSummary, discount: float) -> JobSummary:
    """Return the summary with the cost of what is to come by batch; the ledger has estimates in realtime."""
    if not summary.goes_by_batch or summary.expected_usd is None:
        return summary
    return replace(summary, expected_usd=summary.expected_usd * (1 - discount))


def _job_summary(connection: sqlite3.Connection, job: sqlite3.Row) -> JobSummary:
    """Return the summary of one job. With CROSS JOIN, SQLite starts from the few images that a partial index has."""
    counts = dict.fromkeys(STATUSES, 0)
    images = missing = maybe_paid = paid_waiting = made_again = 0
    cost: float | None = None
    expected: float | None = 0.0
    rows = connection.execute(
        "SELECT CASE WHEN stated < ?1 THEN 'superseded' ELSE status END AS state, count(*) AS requests,"
        " sum(received) AS images, sum(max(0, n - received)) AS missing, sum(maybe_paid) AS maybe_paid,"
        " sum(cost_usd) AS cost, total(estimate_usd * max(0, n - received) / n) AS expected,"
        " count(*) - count(estimate_usd) AS unpriced,"
        " (SELECT count(*) FROM image i CROSS JOIN request q ON q.pk = i.request"
        " WHERE i.state = 'paid' AND q.job = ?2 AND q.stated = ?1) AS paid_waiting,"
        " (SELECT count(*) FROM image i CROSS JOIN request q ON q.pk = i.request"
        " WHERE i.redo = 'asked' AND q.job = ?2 AND q.stated <= ?1) AS made_again"
        " FROM request WHERE job = ?2 AND stated <= ?1 GROUP BY state",
        (job["revision"], job["pk"]),
    )
    for row in rows:
        counts[row["state"]] = row["requests"]
        paid_waiting, made_again = row["paid_waiting"], row["made_again"]  # of the whole job
        images += row["images"]
        if row["state"] in {"pending", "running"}:
            missing += row["missing"]
            expected = None if row["unpriced"] or expected is None else expected + row["expected"]
        maybe_paid += row["maybe_paid"]
        if row["cost"] is not None:
            cost = (cost or 0.0) + row["cost"]
    batches = read_batches(connection, job["pk"]) if job["has_batches"] else ()
    members = () if job["members"] is None else tuple(json.loads(job["members"]))
    in_batches = InBatches()
    if any(batch.is_living for batch in batches):
        in_batches = read_in_batches(connection, job["pk"])
    return JobSummary(
        name=job["name"],
        provider=job["provider"],
        rehearsal=bool(job["rehearsal"]),
        counts=counts,
        images=images + made_again,  # which are in their place until others are here
        missing=missing,
        cost_usd=cost,
        expected_usd=expected,
        maybe_paid=maybe_paid,
        paid_waiting=paid_waiting,
        priority=job["priority"],
        mode=job["mode"],
        deadline=job["deadline"],
        realtime_since=job["realtime_since"],
        is_being_cancelled=job["cancel_since"] is not None,
        batches=batches,
        in_batches=in_batches,
        members=members,
        served=_read_served(connection, job["pk"], members) if members else (),
    )


def _read_served(connection: sqlite3.Connection, job_pk: int, members: tuple[str, ...]) -> tuple[ServedImages, ...]:
    """Return what each provider made of a job at a route: its members in order, then those of earlier times."""
    images = dict(
        connection.execute(
            "SELECT a.provider, count(*) FROM image i JOIN attempt a ON a.pk = i.attempt"
            " WHERE i.job = ? AND i.state = 'stored' AND i.redo IS NOT 'replaced' GROUP BY 1",
            (job_pk,),
        ).fetchall()
    )
    costs = dict(
        connection.execute(
            "SELECT a.provider, sum(a.cost_usd) FROM attempt a JOIN request r ON r.pk = a.request"
            " WHERE r.job = ? GROUP BY 1",
            (job_pk,),
        ).fetchall()
    )
    names = dict.fromkeys((*members, *images, *costs))
    return tuple(ServedImages(name, images.get(name, 0), costs.get(name)) for name in names)


def received_images(connection: sqlite3.Connection, name: str) -> dict[str, int]:
    """Return how many images each request of a job has on disk, or has paid and is still to download, by its key."""
    rows = connection.execute(
        "SELECT r.key, r.received + (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.state = 'paid')"
        " FROM request r JOIN job j ON j.pk = r.job WHERE j.name = ?",
        (name,),
    )
    return dict(rows.fetchall())


def unsuccessful_requests(connection: sqlite3.Connection, name: str) -> dict[str, int]:
    """Return how many images each request of a job wants that has ended without all of them, by its content key."""
    rows = connection.execute(
        "SELECT r.key, r.n FROM request r JOIN job j ON j.pk = r.job"
        " WHERE j.name = ? AND r.status IN ('failed', 'partial', 'cancelled')",
        (name,),
    )
    return dict(rows.fetchall())

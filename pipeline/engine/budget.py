"""The wall that `budget_usd` is: what is spent, may be spent, is in flight and would come must fit before a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import BudgetSpent

if TYPE_CHECKING:
    import sqlite3

    from pipeline.ledger.queue import QueuedRequest


class Budget:
    """Money of the jobs at work, in US dollars. Rehearsals cost nothing and are outside."""

    def __init__(self, limit: float | None, default: float | None) -> None:
        self._limit = limit  # --budget, which wins over every job's own
        self._default = default  # config's, for jobs that state none
        self._committed: dict[int, float] = {}

    def limit(self, work: QueuedRequest) -> float | None:
        """Give the budget of a request's job, or None."""
        if work.rehearsal:
            return None
        own = work.budget_usd if work.budget_usd is not None else self._default
        return self._limit if self._limit is not None else own

    def knows(self, work: QueuedRequest) -> bool:
        """Say whether the job's money so far has been taken from the ledger."""
        return work.job in self._committed

    def learn(self, work: QueuedRequest, committed: float) -> None:
        """Take over what the job has spent, or may have spent, before this run."""
        self._committed.setdefault(work.job, committed)

    def reserve(self, work: QueuedRequest, estimate: float | None) -> None:
        """Set the estimate of a call aside before it is sent. Raises BudgetSpent."""
        limit = self.limit(work)
        committed = self._committed.get(work.job, 0.0)
        if limit is not None and committed + (estimate or 0.0) > limit + 1e-9:
            what = f"the next call of job `{work.job_name}` may cost ${estimate or 0:.4f} and ${committed:.4f} of its"
            raise BudgetSpent(
                f"{what} ${limit:.2f} are spent or may be; raise `budget_usd`, then `pipeline run` goes on"
            )
        self._committed[work.job] = committed + (estimate or 0.0)

    def settle(self, work: QueuedRequest, estimate: float | None, cost: float | None) -> None:
        """Replace a reservation by what the call cost; None keeps the estimate, as for an unknown outcome."""
        if cost is not None:
            self._committed[work.job] += cost - (estimate or 0.0)


def committed(connection: sqlite3.Connection, job: int) -> float:
    """Add up what a job has spent or may have spent: known costs, and the estimates of calls whose cost is unknown."""
    row = connection.execute(
        "SELECT total(CASE WHEN a.outcome IN ('not_sent', 'refused') THEN 0"
        " ELSE coalesce(a.cost_usd, a.estimate_usd, 0) END)"
        " FROM attempt a JOIN request r ON r.pk = a.request WHERE r.job = ?",
        (job,),
    ).fetchone()
    return float(row[0])

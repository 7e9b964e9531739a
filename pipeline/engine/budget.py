"""Budget: what is spent, may be spent, is in flight and would be spent must fit `budget_usd` before each call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.config.load import budget_in_force
from pipeline.errors import BudgetSpent

if TYPE_CHECKING:
    from pipeline.ledger.queue import QueuedRequest


class Budget:
    """Committed money of the jobs at work, in US dollars. A rehearsal has the budget that its job would have."""

    def __init__(self, limit: float | None, default: float | None) -> None:
        self._limit = limit  # --budget, which overrides every job's own
        self._default = default  # the config's, for jobs that state none
        self._committed: dict[int, float] = {}  # by job_pk

    def limit(self, request: QueuedRequest) -> float | None:
        """Return the budget of a request's job, or None."""
        return budget_in_force(self._limit, request.budget_usd, self._default)

    def knows(self, request: QueuedRequest) -> bool:
        """Return whether the money committed by earlier runs has been loaded for the request's job."""
        return request.job_pk in self._committed

    def load(self, request: QueuedRequest, committed: float) -> None:
        """Set what the job spent, or may have spent, before this run."""
        self._committed.setdefault(request.job_pk, committed)

    def reserve(self, request: QueuedRequest, estimate: float | None) -> None:
        """Reserve the estimate of a call before it is sent. Raises BudgetSpent."""
        limit = self.limit(request)
        committed = self._committed.get(request.job_pk, 0.0)
        if limit is not None and committed + (estimate or 0.0) > limit + 1e-9:
            rehearsal = " (a rehearsal: nothing is billed)" if request.rehearsal else ""
            raise BudgetSpent(
                f"the next call of job `{request.job_name}` may cost ${estimate or 0:.4f}, and ${committed:.4f} of its"
                f" budget of {_limit(limit)} is spent or may be{rehearsal}; raise `budget_usd`, or `--budget`"
            )
        self._committed[request.job_pk] = committed + (estimate or 0.0)

    def settle(self, request: QueuedRequest, estimate: float | None, cost: float | None) -> None:
        """Replace a reservation by the actual cost; None keeps the estimate, as for an unknown outcome."""
        if cost is not None:
            self._committed[request.job_pk] += cost - (estimate or 0.0)

    def give_back(self, job_pk: int, usd: float) -> None:
        """Release a part of what was reserved for a job, if that is known."""
        if job_pk in self._committed:
            self._committed[job_pk] -= usd

    def stop_if_exceeded(self, request: QueuedRequest, requested: int, returned: int) -> BudgetSpent | None:
        """Return the stop that follows if a response cost more than its estimate, and more than the budget had left."""
        limit = self.limit(request)
        committed = self._committed.get(request.job_pk, 0.0)
        if limit is None or committed <= limit + 1e-9:
            return None
        more = f": a response brought {returned:,} images for a call for {requested:,}" if returned > requested else ""
        return BudgetSpent(
            f"${committed:.4f} of job `{request.job_name}` is spent or may be, more than its budget of"
            f" {_limit(limit)}{more}; its images are stored, and nothing more is bought until you raise `budget_usd`,"
            " or `--budget`"
        )


def _limit(usd: float) -> str:
    """Return a budget in dollars and cents, one of less than a cent with four decimals."""
    return f"${usd:,.2f}" if usd >= 0.01 or usd == 0 else f"${usd:.4f}"

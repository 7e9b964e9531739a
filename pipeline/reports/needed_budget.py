"""The budget that is enough for the rest of a job."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.ledger.purchases import committed_of_job, most_of_calls

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from pipeline.ledger.job_summary import JobSummary


def needed_budget(connection: sqlite3.Connection, summaries: Iterable[JobSummary]) -> float | None:
    """Return the budget in whole cents that is enough for each of these jobs; None without a price.

    A call is sent if the most that it may cost fits, so the estimate of the rest is raised as those of past calls were,
    and lowered with the discount of batches. `summaries` have estimates in realtime.
    """
    needed = 0.0
    for summary in summaries:
        if summary.expected_usd is None:
            return None
        rest = summary.expected_usd * most_of_calls(connection, summary.name)
        needed = max(needed, committed_of_job(connection, summary.name) + rest)
    return math.ceil(needed * 100 - 1e-6) / 100 or None

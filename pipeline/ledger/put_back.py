"""Puts requests that ended without all their images back into the queue, and says before what that may cost."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests are put back: of the jobs `names`, or of all; those that failed with an error of `kinds`, or all.

    What was cancelled, and what the content policy refused, is put back only if it is asked for: by the job's name or,
    also among all jobs, by `cancelled` and `kinds`. With `only_retryable`, a job's name alone does not ask for it.
    """

    names: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    cancelled: bool = False
    only_retryable: bool = False

    def parameters(self) -> dict[str, Any]:
        """Return the values of the SQL below."""
        is_asked = bool(self.names) and not self.only_retryable
        return {
            "names": json.dumps(self.names) if self.names else None,
            "kinds": json.dumps(sorted(self.kinds)) if self.kinds else None,
            "cancelled": self.cancelled or (is_asked and not self.kinds),
            "moderated": is_asked,
        }


@dataclass(frozen=True, slots=True)
class JobPutBack:
    """What a selection puts back of one job, what that costs (None if unknown), and what it leaves alone."""

    job: str
    provider: str
    rehearsal: bool
    requests: int
    images: int  # to be bought
    paid: int  # images that are only to be downloaded
    cost_usd: float | None
    cancelled_left: int
    moderated_left: int
    others_left: int


_CHOSEN = """CASE WHEN r.status = 'cancelled' THEN :cancelled
 WHEN :kinds IS NOT NULL THEN error_kind(r.error) IN (SELECT value FROM json_each(:kinds))
 ELSE :moderated OR error_kind(r.error) != 'Moderated' END"""

_ENDED = """r.status IN ('failed', 'partial', 'cancelled') AND r.stated = j.revision
 AND (:names IS NULL OR j.name IN (SELECT value FROM json_each(:names)))"""

_FOUND = f"""
WITH ended AS MATERIALIZED (
  SELECT j.pk AS job_pk, j.name, j.provider, j.rehearsal, r.status, error_kind(r.error) AS kind, r.n, r.estimate_usd,
    {_CHOSEN} AS chosen, (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.state = 'paid') AS paid, r.received
  FROM request r JOIN job j ON j.pk = r.job WHERE {_ENDED}),
counted AS MATERIALIZED (SELECT *, max(0, n - received - paid) AS missing FROM ended)
SELECT name, provider, rehearsal, sum(chosen), sum(chosen * missing), sum(chosen * paid),
  CASE WHEN sum(chosen AND missing AND estimate_usd IS NULL) THEN NULL
    ELSE total(chosen * estimate_usd * missing / n) END,
  sum(NOT chosen AND status = 'cancelled'), sum(NOT chosen AND status != 'cancelled' AND kind = 'Moderated'),
  sum(NOT chosen AND status != 'cancelled' AND kind != 'Moderated')
FROM counted GROUP BY job_pk ORDER BY job_pk
"""  # the columns are in the order of the fields


def find_ended(connection: sqlite3.Connection, selection: Selection) -> list[JobPutBack]:
    """Return what a selection would put back of each job, and what it would leave; the oldest job first."""
    rows = connection.execute(_FOUND, selection.parameters())
    return [JobPutBack(name, provider, bool(rehearsal), *rest) for name, provider, rehearsal, *rest in rows]


def put_back(
    connection: sqlite3.Connection, selection: Selection, *, for_run_at_work: bool = False
) -> list[JobPutBack]:
    """Queue the selected requests again, and return what `find_ended` returned just before.

    Moderated images are requested again too, since a person has decided so. With `for_run_at_work`, their jobs count as
    submitted now, so that a run that was given other jobs takes them up.
    """
    with transaction(connection):
        found = find_ended(connection, selection)
        connection.execute(
            "UPDATE request SET status = 'pending', moderated = 0, cut_off = 0, finished_at = NULL WHERE pk IN"
            f" (SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE {_ENDED} AND {_CHOSEN})",
            selection.parameters(),
        )
        if for_run_at_work:
            names = json.dumps([one.job for one in found if one.requests])
            connection.execute(
                "UPDATE job SET submitted_at = ? WHERE name IN (SELECT value FROM json_each(?))", (time.time(), names)
            )
    return found

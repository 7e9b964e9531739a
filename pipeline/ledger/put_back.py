"""Puts requests that ended without all their images back into the queue, and says before what that may cost."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadInput
from pipeline.ledger.database import transaction
from pipeline.ledger.request_history import check_ids
from pipeline.ledger.submit import known_names

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Selection:
    """Which requests are put back: of the jobs `names`, or of all; those that failed with an error of `kinds`, are in
    one of `statuses`, and have one of `ids`. An empty one of these leaves nothing out.

    What was cancelled, and what the content policy refused, is put back only if it is asked for: by the job's name or,
    also among all jobs, by `cancelled`, `kinds`, `statuses` and `ids`. With `only_retryable`, a job's name alone does
    not ask for it.
    """

    names: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    cancelled: bool = False
    only_retryable: bool = False
    statuses: frozenset[str] = frozenset()
    ids: frozenset[str] = frozenset()

    @property
    def filters(self) -> str:
        """What it asks of requests, beside their jobs, as options of the command line."""
        options = (("--kind", self.kinds), ("--status", self.statuses), ("--id", self.ids))
        return " ".join(f"{option} {value}" for option, values in options for value in sorted(values))

    def parameters(self) -> dict[str, Any]:
        """Return the values of the SQL below."""
        is_asked = (bool(self.names) and not self.only_retryable) or bool(self.ids)
        return {
            "names": json.dumps(self.names) if self.names else None,
            "kinds": _as_list(self.kinds),
            "statuses": _as_list(self.statuses),
            "ids": _as_list(request_id.lower() for request_id in self.ids),
            "cancelled": self.cancelled or (is_asked and not self.kinds),
            "cancelled_of_kind": "cancelled" in self.statuses,
            "moderated": is_asked,
        }


def _as_list(values: Iterable[str]) -> str | None:
    found = sorted(values)
    return json.dumps(found) if found else None


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


_OF_KIND = "error_kind(r.error) IN (SELECT value FROM json_each(:kinds))"

_CHOSEN = f"""(CASE WHEN r.status = 'cancelled' THEN
  :cancelled OR (:cancelled_of_kind AND (:kinds IS NULL OR (r.error IS NOT NULL AND {_OF_KIND})))
 WHEN :kinds IS NOT NULL THEN {_OF_KIND}
 ELSE :moderated OR error_kind(r.error) != 'Moderated' END
 AND (:statuses IS NULL OR r.status IN (SELECT value FROM json_each(:statuses)))
 AND (:ids IS NULL OR lower(r.id) IN (SELECT value FROM json_each(:ids))))"""

_ENDED = """r.status IN ('failed', 'partial', 'cancelled') AND r.stated = j.revision
 AND (:names IS NULL OR j.name IN (SELECT value FROM json_each(:names)))"""

_DISCOUNT = """CASE WHEN j.mode = 'realtime' OR j.realtime_since IS NOT NULL THEN 0
 ELSE coalesce(json_extract(:discounts, '$."' || j.provider || '"'), 0) END"""

_FOUND = f"""
WITH ended AS MATERIALIZED (
  SELECT j.pk AS job_pk, j.name, j.provider, j.rehearsal, r.status, error_kind(r.error) AS kind, r.n, r.estimate_usd,
    {_DISCOUNT} AS discount, {_CHOSEN} AS chosen,
    (SELECT count(*) FROM image i WHERE i.request = r.pk AND i.state = 'paid') AS paid, r.received
  FROM request r JOIN job j ON j.pk = r.job WHERE {_ENDED}),
counted AS MATERIALIZED (SELECT *, max(0, n - received - paid) AS missing FROM ended)
SELECT name, provider, rehearsal, sum(chosen), sum(chosen * missing), sum(chosen * paid),
  CASE WHEN sum(chosen AND missing AND estimate_usd IS NULL) THEN NULL
    ELSE total(chosen * estimate_usd * (1 - discount) * missing / n) END,
  sum(NOT chosen AND status = 'cancelled'), sum(NOT chosen AND status != 'cancelled' AND kind = 'Moderated'),
  sum(NOT chosen AND status != 'cancelled' AND kind != 'Moderated')
FROM counted GROUP BY job_pk ORDER BY job_pk
"""  # the columns are in the order of the fields


_KEEP_CALLING = """UPDATE request SET cancel_asked = 0 WHERE cancel_asked AND :cancelled AND job IN
 (SELECT pk FROM job WHERE :names IS NULL OR name IN (SELECT value FROM json_each(:names)))"""


def find_ended(
    connection: sqlite3.Connection, selection: Selection, discounts: Mapping[str, float] | None = None
) -> list[JobPutBack]:
    """Return what a selection would put back of each job, and what it would leave; the oldest job first.

    `discounts` are those of batches, by provider.
    """
    rows = connection.execute(_FOUND, {**selection.parameters(), "discounts": json.dumps(discounts or {})})
    return [JobPutBack(name, provider, bool(rehearsal), *rest) for name, provider, rehearsal, *rest in rows]


def select(
    connection: sqlite3.Connection,
    names: Iterable[str],
    kinds: Iterable[str] = (),
    statuses: Iterable[str] = (),
    ids: Iterable[str] = (),
    *,
    cancelled: bool = False,
) -> Selection:
    """Return the selection of these jobs with these filters; a text in place of several stands for itself.

    Raises BadInput for an unknown job or id, and if filters are given and no request matches them.
    """
    names, kinds, statuses, ids = (
        [given] if isinstance(given, str) else given for given in (names, kinds, statuses, ids)
    )
    chosen = frozenset(kinds), cancelled, False, frozenset(statuses), frozenset(ids)
    selection = Selection(tuple(known_names(connection, names)), *chosen)
    check_ids(connection, selection.names or None, ids)
    if selection.filters and not any(job.requests for job in find_ended(connection, selection)):
        where = f"of {' and '.join(f'`{name}`' for name in selection.names)} " if selection.names else ""
        what = f"no request {where}that failed, came back partial or was cancelled matches {selection.filters}"
        raise BadInput(f"{what}; `pipeline status --failed` lists what failed")
    return selection


def put_back(
    connection: sqlite3.Connection,
    selection: Selection,
    discounts: Mapping[str, float] | None = None,
    *,
    for_run_at_work: bool = False,
) -> list[JobPutBack]:
    """Queue the selected requests again, and return what `find_ended` returned just before.

    Moderated images are requested again too, since a person has decided so. With `for_run_at_work`, their jobs count as
    submitted now, so that a run that was given other jobs takes them up.
    """
    with transaction(connection):
        found = find_ended(connection, selection, discounts)
        connection.execute(
            "UPDATE request SET status = 'pending', moderated = 0, cut_off = 0, finished_at = NULL WHERE pk IN"
            f" (SELECT r.pk FROM request r JOIN job j ON j.pk = r.job WHERE {_ENDED} AND {_CHOSEN})",
            selection.parameters(),
        )
        connection.execute(_KEEP_CALLING, selection.parameters())
        if for_run_at_work:
            names = json.dumps([job.job for job in found if job.requests])
            connection.execute(
                "UPDATE job SET submitted_at = ? WHERE name IN (SELECT value FROM json_each(?))", (time.time(), names)
            )
    return found

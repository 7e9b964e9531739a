"""Calls that were or may have been charged, as `pipeline reconcile` compares them with a provider's own books.

Moments are seconds since 1970, money is US dollars.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable

Settlement = Literal["charged", "not_charged", "open"]


@dataclass(frozen=True, slots=True)
class ChargedCall:
    """One call, or one line of a batch. `ended_at` is None while it is in flight, or if its process was killed.

    `images` are those that came, or that were asked for if none did; `first_sent_at` is when the first call of its
    purchase was sent, if what came is a replay. `model`, `size` and `quality` are None if the request names none.
    """

    attempt_pk: int
    request_pk: int
    job: str
    id: str
    provider: str
    operation: str
    model: str | None
    size: str | None
    quality: str | None
    n: int
    images: int
    outcome: str | None
    settled: str | None
    cost_usd: float | None
    estimate_usd: float | None
    first_sent_at: float
    sent_at: float
    ended_at: float | None
    is_line: bool
    http_status: int | None
    error_type: str | None
    idempotency_key: str | None
    number: int  # of the attempt, among those of its request

    @property
    def is_known(self) -> bool:
        """Whether it was certainly charged."""
        return self.outcome == "answered" or self.settled == "charged"


_CALLS = """
SELECT a.pk, r.pk, j.name, r.id, a.provider, r.served_by, json_extract(r.params, '$.model'),
  coalesce(json_extract(a.settings, '$.size'), json_extract(r.params, '$.size')), json_extract(r.params, '$.quality'),
  a.n, CASE WHEN a.outcome = 'answered' THEN (SELECT count(*) FROM image i WHERE i.attempt = a.pk) ELSE a.n END,
  a.outcome, a.settled, a.cost_usd, a.estimate_usd,
  CASE WHEN a.is_replay THEN (SELECT min(f.sent_at) FROM attempt f WHERE f.request = a.request
    AND f.idempotency_key = a.idempotency_key) ELSE a.sent_at END,
  a.sent_at, a.ended_at, a.batch IS NOT NULL, a.http_status, json_extract(a.error, '$.type'), a.idempotency_key,
  (SELECT count(*) FROM attempt f WHERE f.request = a.request AND f.pk <= a.pk)
FROM attempt a JOIN request r ON r.pk = a.request JOIN job j ON j.pk = r.job
WHERE a.provider IN (SELECT value FROM json_each(?1)) AND coalesce(a.ended_at, ?2) >= ?2
  AND (a.outcome IS NULL OR a.outcome IN ('answered', 'unknown'))
  AND (a.settled IS NULL OR a.settled = 'charged') AND NOT (a.outcome = 'answered' AND a.ended_at IS a.sent_at)
ORDER BY a.pk
"""  # the columns are in the order of the fields; an answer that took no time is one that the ledger has been told of


def read_charged_calls(connection: sqlite3.Connection, providers: Collection[str], since: float) -> list[ChargedCall]:
    """Return the calls of these providers that ended since a moment, or are open, and that may have been charged."""
    rows = connection.execute(_CALLS, (json.dumps(sorted(providers)), since))
    return [ChargedCall(*row) for row in rows]


def called_providers(connection: sqlite3.Connection) -> set[str]:
    """Return the providers that were ever called."""
    return {row[0] for row in connection.execute("SELECT DISTINCT provider FROM attempt")}


def compared_until(connection: sqlite3.Connection, providers: Collection[str]) -> float | None:
    """Return until when the calls of these providers are settled, else when the first was sent; None without one."""
    moments = [
        connection.execute(
            "SELECT coalesce((SELECT complete_until FROM reconciliation WHERE provider = ?1),"
            " (SELECT min(sent_at) FROM attempt WHERE provider = ?1))",
            (provider,),
        ).fetchone()[0]
        for provider in providers
    ]
    return min((float(moment) for moment in moments if moment is not None), default=None)


def settle_calls(
    connection: sqlite3.Connection,
    calls: Iterable[tuple[int, Settlement, float | None]],
    providers: Collection[str],
    complete_until: float,
) -> None:
    """Record what became of calls of unknown outcome, each with what it cost, and until when all are settled.

    Only for the process that holds the lock of the folder.
    """
    with transaction(connection):
        for attempt_pk, settlement, usd in calls:
            cost_usd = 0.0 if settlement == "not_charged" else usd
            row = connection.execute(
                "UPDATE attempt SET settled = ?2, cost_usd = ?3 WHERE pk = ?1 AND outcome = 'unknown'"
                " AND settled IS NULL RETURNING request",
                (attempt_pk, settlement, cost_usd),
            ).fetchone()
            if row is not None:
                connection.execute(
                    "UPDATE request SET maybe_paid = maybe_paid - 1, cost_usd = CASE WHEN ?2 IS NULL OR ?3 THEN"
                    " cost_usd ELSE coalesce(cost_usd, 0.0) + ?2 END WHERE pk = ?1",
                    (row["request"], cost_usd, settlement == "not_charged"),
                )
        connection.executemany(
            "INSERT INTO reconciliation VALUES (?, ?) ON CONFLICT (provider) DO UPDATE SET"
            " complete_until = max(complete_until, excluded.complete_until)",
            [(provider, complete_until) for provider in providers],
        )

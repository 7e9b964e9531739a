"""What a provider's calls do now, read from the ledger: one set of figures for `status --watch` and for the live page.

Every query is answered from an index or from the newest attempts, so a reading costs the same with many requests as
with few. Moments are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from pipeline.config.provider import RateLimit
    from pipeline.ledger.lock import LockOwner

_NEWEST = 5000
"""Attempts of a provider that are read; one that makes more of them in a minute is measured by the time they span."""

_SECONDS = 60.0  # over which images per minute are counted
_AT_THE_LIMIT = 0.9  # what part of the limit counts as all of it: large calls leave gaps in the window
_LEAST_CALLS = 3  # in the window, before they are called a pace


@dataclass(frozen=True, slots=True)
class ProviderActivity:
    """Speed and state of one provider.

    `per_minute` counts the images that are on disk of the calls answered in the last minute; None if no call was ever
    made. `bottleneck` is one of the engine's. `expires_at` is the earliest expiry of a paid URL.
    """

    name: str
    per_minute: float | None
    in_flight: int
    bottleneck: str
    paused_until: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class _RecentCall:
    n: int
    sent_at: float
    ended_at: float | None
    outcome: str | None
    stored: int


_CALLS = """
SELECT n, sent_at, ended_at, outcome, CASE WHEN outcome = 'answered' AND ended_at > ?2
    THEN (SELECT count(*) FROM image i WHERE i.request = a.request AND i.attempt = a.pk AND i.state = 'stored')
    ELSE 0 END
FROM attempt a WHERE provider = ?1 AND batch IS NULL ORDER BY sent_at DESC LIMIT ?3
"""


def read_activity(
    connection: sqlite3.Connection, provider: str, limit: RateLimit | None, owner: LockOwner | None, now: float
) -> ProviderActivity:
    """Return what a provider's calls do now. Without a lock owner, open attempts are of a dead run: none in flight.

    The lines of batches are no calls.
    """
    calls = [_RecentCall(*row) for row in connection.execute(_CALLS, (provider, now - _SECONDS, _NEWEST))]
    in_flight = 0
    if owner is not None:
        (in_flight,) = connection.execute(
            "SELECT count(*) FROM attempt WHERE outcome IS NULL AND batch IS NULL AND provider = ?", (provider,)
        ).fetchone()
    paused, held_since = connection.execute(
        "SELECT max(paused_until), max(held_since) FROM provider WHERE name = ?", (provider,)
    ).fetchone()
    paid, expires_at = connection.execute(
        "SELECT count(*), min(i.expires_at) FROM image i JOIN attempt a ON a.pk = i.attempt"
        " WHERE i.state = 'paid' AND a.provider = ?",
        (provider,),
    ).fetchone()
    paused_until = paused if paused is not None and paused > now else None
    if held_since is not None:
        bottleneck = "held"
    elif paused_until is not None:
        bottleneck = "paused"
    elif limit and owner is not None and _keeps_pace(calls, limit, now):
        bottleneck = "limit"
    else:
        bottleneck = "downloads" if paid > in_flight else "provider" if in_flight else ""
    return ProviderActivity(
        name=provider,
        per_minute=_per_minute(calls, owner, now),
        in_flight=in_flight,
        bottleneck=bottleneck,
        paused_until=paused_until,
        expires_at=expires_at,
    )


def _keeps_pace(calls: Sequence[_RecentCall], limit: RateLimit, now: float) -> bool:
    """Return whether calls are sent as fast as the limit allows: in its window, or since the first of them."""
    sent = [(now - call.sent_at, call.n) for call in calls if call.outcome != "not_sent"]
    sent = [(ago, images) for ago, images in sent if ago < limit.window]
    seconds = max((ago for ago, _ in sent), default=0.0)
    allowed = limit.images * seconds / limit.window
    return len(sent) >= _LEAST_CALLS and sum(images for _, images in sent) >= _AT_THE_LIMIT * allowed


def _per_minute(calls: Sequence[_RecentCall], owner: LockOwner | None, now: float) -> float | None:
    """Return the images per minute; over less than a minute if the run or the calls that were read are younger."""
    if not calls:
        return None
    start = max(now - _SECONDS, calls[-1].sent_at, owner.started_at if owner is not None else 0.0)
    return sum(call.stored for call in calls) / max(1.0, now - start) * 60

"""Outages of providers: what a run at work has met, for those who look at it. None outlives its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True, slots=True)
class Outage:
    """A provider is down since `since`, for this reason, and is tried again until `until` (seconds since 1970)."""

    since: float
    until: float
    reason: str


def record_outage(connection: sqlite3.Connection, provider: str, outage: Outage | None) -> None:
    """Record that a provider is down, or up (None); one that is down already keeps the moment at which that began."""
    if outage is None:
        clear_outages(connection, provider)
        return
    connection.execute(
        "INSERT INTO provider (name, paused_until, down_since, down_until, down_reason) VALUES (?, 0, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET down_since = coalesce(down_since, excluded.down_since),"
        " down_until = excluded.down_until, down_reason = excluded.down_reason",
        (provider, outage.since, outage.until, outage.reason),
    )


def clear_outages(connection: sqlite3.Connection, provider: str | None = None) -> None:
    """Record that a provider is not tried again any more, or is up; with None, all of them."""
    connection.execute(
        "UPDATE provider SET down_since = NULL, down_until = NULL, down_reason = NULL"
        " WHERE down_since IS NOT NULL AND (?1 IS NULL OR name = ?1)",
        (provider,),
    )


def read_outages(connection: sqlite3.Connection) -> dict[str, Outage]:
    """Return the outages by provider; without a run at work they are stale."""
    rows = connection.execute(
        "SELECT name, down_since, down_until, down_reason FROM provider WHERE down_since IS NOT NULL"
    )
    return {name: Outage(*row) for name, *row in rows}

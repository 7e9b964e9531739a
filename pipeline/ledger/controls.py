"""Controls: pauses and lower limits of providers, and priorities of jobs, which a run at work follows.

They hold until they are taken back, over all runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class ProviderControl:
    """What is set for a provider. `throttle` is in images per window of the configured limit."""

    held_since: float | None = None  # seconds since 1970
    throttle: int | None = None


@dataclass(frozen=True, slots=True)
class JobPriority:
    """A job whose priority is not 0. `is_waiting` if it has pending requests."""

    job_pk: int
    job: str
    priority: int
    is_waiting: bool


@dataclass(frozen=True, slots=True)
class ControlFacts:
    """All controls of a ledger. A provider or a job that is not in it has none."""

    providers: Mapping[str, ProviderControl] = field(default_factory=dict)
    priorities: tuple[JobPriority, ...] = ()

    def of(self, provider: str) -> ProviderControl:
        """Return what is set for a provider."""
        return self.providers.get(provider, ProviderControl())


def read_controls(connection: sqlite3.Connection) -> ControlFacts:
    """Return all controls: two short queries, since a run at work repeats them."""
    providers = connection.execute(
        "SELECT name, held_since, throttle FROM provider WHERE held_since IS NOT NULL OR throttle IS NOT NULL"
        " ORDER BY name"
    )
    jobs = connection.execute(
        "SELECT pk, name, priority, EXISTS (SELECT 1 FROM request r WHERE r.job = j.pk AND r.stated = j.revision"
        " AND r.status = 'pending') FROM job j WHERE priority != 0 ORDER BY priority DESC, pk"
    )
    return ControlFacts(
        {name: ProviderControl(*row) for name, *row in providers},
        tuple(JobPriority(pk, job, priority, bool(is_waiting)) for pk, job, priority, is_waiting in jobs),
    )


def hold(connection: sqlite3.Connection, providers: Iterable[str], now: float) -> list[str]:
    """Pause these providers; return those that were not paused already."""
    with transaction(connection):
        before = read_controls(connection)
        changed = [name for name in providers if before.of(name).held_since is None]
        for name in changed:
            _set(connection, name, "held_since", now)
    return changed


def release(connection: sqlite3.Connection, provider: str | None) -> list[str]:
    """End the pause of a provider, or all pauses; return the names of those that were paused."""
    with transaction(connection):
        held = [name for name, control in read_controls(connection).providers.items() if control.held_since is not None]
        released = [name for name in held if provider in {None, name}]
        for name in released:
            _set(connection, name, "held_since", None)
    return released


def throttle(connection: sqlite3.Connection, provider: str, images: int | None) -> None:
    """Lower the limit of a provider to this many images per window; None takes that back."""
    with transaction(connection):
        _set(connection, provider, "throttle", images)


def prioritise(connection: sqlite3.Connection, job: str, priority: int) -> None:
    """Set the priority of a job."""
    with transaction(connection):
        connection.execute("UPDATE job SET priority = ? WHERE name = ?", (priority, job))


def record_calls_in_flight(connection: sqlite3.Connection, provider: str, number: int) -> None:
    """Record how many calls a provider without a stated limit serves at once. Runs inside a transaction."""
    _set(connection, provider, "calls_in_flight", number)


def read_calls_in_flight(connection: sqlite3.Connection, provider: str) -> int | None:
    """Return how many calls a provider without a stated limit served at once; None if nothing was found."""
    row = connection.execute("SELECT calls_in_flight FROM provider WHERE name = ?", (provider,)).fetchone()
    return None if row is None else row[0]


_Column = Literal["held_since", "throttle", "calls_in_flight"]


def _set(connection: sqlite3.Connection, provider: str, column: _Column, value: float | None) -> None:
    connection.execute(
        f"INSERT INTO provider (name, paused_until, {column}) VALUES (?1, 0, ?2)"
        f" ON CONFLICT (name) DO UPDATE SET {column} = excluded.{column}",
        (provider, value),
    )

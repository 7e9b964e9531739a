"""The queue of routes: which pending requests of jobs that name a route one of its members may take.

Functions that take a connection run inside a transaction of the caller, such as `Writer.do`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.queue import (
    IN_SCOPE,
    matches,
    may_be_realtime,
    not_beyond,
    read_queued,
    scope_values,
    text_literal,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pipeline.config.routes import Route
    from pipeline.ledger.queue import Block, QueuedRequest, Scope


@dataclass(frozen=True, slots=True)
class RouteMember:
    """A provider of a route that has not stopped: what it serves (None: all), and what of it is blocked.

    `is_up` if it may be called now. `barred` are the primary keys of requests for which another one is
    to be asked now, `refused` those of them that its content policy refused: it is never asked again for these.
    """

    name: str
    models: frozenset[str] | None = None
    operations: frozenset[str] | None = None
    blocked: frozenset[Block] = frozenset()
    is_up: bool = True
    barred: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()

    def can_serve(self) -> str:
        """Return the condition that this member may serve a request."""
        conditions = [f"NOT {matches(self.blocked, self.name)}"] if self.blocked else []
        if self.models is not None:
            conditions.append(f"json_extract(r.params, '$.model') IN {_values(self.models)}")
        if self.operations is not None:
            conditions.append(f"r.served_by IN {_values(self.operations)}")
        return " AND ".join(conditions) or "1"


@dataclass(frozen=True, slots=True)
class RouteView:
    """A route as one of its members sees it now: the members that have not stopped, in order."""

    route: Route
    member: RouteMember
    living: tuple[RouteMember, ...]

    def may_take(self) -> str | None:
        """Return the condition that the member may take a request now; None if it may take none."""
        own = self.member.can_serve()
        turn = self._in_turn() if self.route.policy == "fallback" else "1"
        if self.route.same:
            home, turn = _home(self.living, self.route.same), turn or "0"
            first = turn if self.route.policy == "fallback" else f"{_rendezvous(self)} = {self._name}"
            if alone := {pk for member in self.living for pk in member.barred}:
                first = f"CASE WHEN r.pk IN {_values(alone)} THEN ({turn}) ELSE ({first}) END"
            return f"({own}) AND CASE WHEN {home} IS NULL THEN {first} ELSE {home} = {self._name} END"
        return None if turn is None else f"({own}) AND ({turn})"

    @property
    def _name(self) -> str:
        return text_literal(self.member.name)

    def _in_turn(self) -> str | None:
        """Return the condition that no member before this one can serve a request; None if one can serve all."""
        conditions = ["1"]
        for other in self.living:
            if other.name == self.member.name:
                break
            if not other.is_up:
                continue
            can = other.can_serve()
            if can == "1" and not other.barred:
                return None
            conditions.append(f"(NOT ({can}) OR r.pk IN {_values(other.barred)})")
        return " AND ".join(conditions)


def next_of_routes(
    connection: sqlite3.Connection,
    views: Sequence[RouteView],
    scope: Scope,
    busy: Collection[int],
    excluded: Collection[int],
    limit: int,
    realtime: Collection[Block] = (),
    priority: int | None = None,
) -> list[QueuedRequest]:
    """Return up to `limit` pending requests that a member may call, jobs by priority and age, each in its file's order:
    only those of one `priority` if it is stated.

    Not those that are `busy` or `excluded` (primary keys), or that the server has asked to wait. Requests with paid
    URLs are left to `paid_of_routes`.
    """
    taken = {*busy, *excluded}
    found: list[int] = []
    waits = f"(coalesce(r.wait_until, 0) > {time.time()!r} AND {_LAST_PROVIDER} IS ?3)"
    for job, view in _jobs(connection, views, scope, realtime, priority):
        condition = view.may_take()
        if condition is None or len(found) >= limit:
            continue
        rows = connection.execute(
            "SELECT r.pk FROM job j JOIN request r ON r.job = j.pk WHERE j.pk = ?1 AND r.stated = j.revision"
            f" AND r.status = 'pending'{not_beyond(scope)}{_only(job, realtime)} AND {condition} AND NOT {waits}"
            f" AND NOT EXISTS ({_PAID}) ORDER BY r.position LIMIT ?2",
            (job["pk"], limit + len(taken), view.member.name),
        )
        found += [row[0] for row in rows if row[0] not in taken]
    return read_queued(connection, found[:limit], views[0].member.name) if views else []


def paid_of_routes(
    connection: sqlite3.Connection, views: Sequence[RouteView], scope: Scope, busy: Collection[int], limit: int
) -> list[QueuedRequest]:
    """Return up to `limit` pending requests with paid URLs, the first to expire before others.

    They are those that were bought from the member, or from a provider that has stopped.
    """
    found: dict[int, None] = {}
    names, since = scope_values(scope)
    for view in views:
        others = _values(member.name for member in view.living if member.name != view.member.name)
        rows = connection.execute(
            "SELECT r.pk FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = r.job"
            " JOIN attempt a ON a.pk = i.attempt WHERE i.state = 'paid' AND r.status = 'pending'"
            f" AND r.stated = j.revision AND j.provider = ?1 AND a.provider NOT IN {others} AND {IN_SCOPE}"
            f"{not_beyond(scope)} GROUP BY r.pk ORDER BY min(i.expires_at) LIMIT ?4",
            (view.route.name, names, since, limit + len(busy)),
        )
        found.update((row[0], None) for row in rows if row[0] not in busy)
    return read_queued(connection, list(found)[:limit], views[0].member.name) if views else []


def has_prospects(
    connection: sqlite3.Connection, views: Sequence[RouteView], scope: Scope, realtime: Collection[Block] = ()
) -> bool:
    """Return whether a member may serve any pending request of its routes, now or later."""
    names, since = scope_values(scope)
    for view in views:
        others = _values(member.name for member in view.living if member.name != view.member.name)
        never = f"r.pk IN {_values(view.member.refused)}"
        paid = f"EXISTS ({_PAID} AND (SELECT provider FROM attempt WHERE pk = i.attempt) NOT IN {others})"
        jobs = connection.execute(
            f"SELECT j.pk, j.mode FROM job j WHERE j.provider = ?1 AND {IN_SCOPE}", (view.route.name, names, since)
        ).fetchall()
        for job in jobs:
            row = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM job j JOIN request r ON r.job = j.pk WHERE j.pk = ? AND"
                f" r.stated = j.revision AND r.status = 'pending'{not_beyond(scope)}"
                f" AND ((({view.member.can_serve()}){_only(job, realtime)} AND NOT {never} AND NOT EXISTS ({_PAID}))"
                f" OR {paid}))",
                (job["pk"],),
            ).fetchone()
            if row[0]:
                return True
    return False


def policy_refusals(connection: sqlite3.Connection, route: str) -> list[tuple[QueuedRequest, set[str]]]:
    """Return the pending requests of a route that content policies refused, or images of them: with who did."""
    rows = connection.execute(
        "SELECT DISTINCT r.pk, a.provider FROM job j JOIN request r ON r.job = j.pk JOIN attempt a ON a.request = r.pk"
        " WHERE j.provider = ? AND r.stated = j.revision AND r.status = 'pending' AND r.attempts > 0"
        " AND (a.withheld > 0 OR error_kind(a.error) = 'Moderated') ORDER BY r.pk",
        (route,),
    )
    found: dict[int, set[str]] = {}
    for request_pk, provider in rows:
        found.setdefault(request_pk, set()).add(provider)
    return [(request, found[request.pk]) for request in read_queued(connection, list(found))]


def record_members(connection: sqlite3.Connection, routes: Mapping[str, Route], providers: Iterable[str]) -> None:
    """Record for the jobs that name a route who its members are now."""
    members = {**dict.fromkeys(providers), **{name: json.dumps(route.members) for name, route in routes.items()}}
    connection.executemany(
        "UPDATE job SET members = ?2 WHERE provider = ?1 AND members IS NOT ?2", list(members.items())
    )


def take_home(
    connection: sqlite3.Connection, request_pk: int, provider: str, same: Sequence[str], living: Collection[str]
) -> bool:
    """Record the home of a request and of those alike at its first call; return whether the provider is its home.

    A home that is not among the living is lost: the provider takes its place.
    """
    job_pk, alike = connection.execute(
        f"SELECT r.job, {_alike(same)} FROM request r WHERE r.pk = ?", (request_pk,)
    ).fetchone()
    home = connection.execute("SELECT provider FROM home WHERE job = ? AND alike = ?", (job_pk, alike)).fetchone()
    if home is not None and home[0] != provider and home[0] in living:
        return False
    if home is None or home[0] != provider:
        connection.execute("INSERT OR REPLACE INTO home VALUES (?, ?, ?)", (job_pk, alike, provider))
    return True


_PAID = "SELECT 1 FROM image i WHERE i.request = r.pk AND i.state = 'paid'"
_LAST_PROVIDER = "(SELECT provider FROM attempt WHERE request = r.pk ORDER BY pk DESC LIMIT 1)"


def _jobs(
    connection: sqlite3.Connection,
    views: Sequence[RouteView],
    scope: Scope,
    realtime: Collection[Block],
    priority: int | None,
) -> list[tuple[sqlite3.Row, RouteView]]:
    """Return the jobs of these routes, by priority and age."""
    by_name = {view.route.name: view for view in views}
    jobs = connection.execute(
        f"SELECT j.pk, j.mode, j.provider FROM job j WHERE j.provider IN {_values(by_name)} AND {IN_SCOPE}"
        f" AND {may_be_realtime(realtime)} AND (?4 IS NULL OR j.priority = ?4)"
        " ORDER BY j.priority DESC, j.submitted_at, j.pk",
        (None, *scope_values(scope), priority),
    )
    return [(job, by_name[job["provider"]]) for job in jobs]


def _only(job: sqlite3.Row, realtime: Collection[Block]) -> str:
    return "" if job["mode"] == "realtime" else f" AND {matches(realtime)}"


def _alike(same: Iterable[str]) -> str:
    """Return the expression of the values of these variables, as JSON."""
    paths = (text_literal(f'$."{name}"') for name in same)
    return f"json_array({', '.join(f'json_extract(r.variables, {path})' for path in paths)})"


def _able(living: Sequence[RouteMember]) -> str:
    """Return the names of the members that can serve a request, as expressions that are else NULL."""
    names = []
    for member in living:
        barred = f" AND r.pk NOT IN {_values(member.barred)}" if member.barred else ""
        names.append(f"CASE WHEN {member.can_serve()}{barred} THEN {text_literal(member.name)} END")
    return ", ".join(names)


def _home(living: Sequence[RouteMember], same: Sequence[str]) -> str:
    """Return the expression of a request's home, NULL if it has none that can serve it."""
    able = f"h.provider IN ({_able(living)})"
    return f"(SELECT h.provider FROM home h WHERE h.job = r.job AND h.alike = {_alike(same)} AND {able})"


def _rendezvous(view: RouteView) -> str:
    return f"rendezvous({_alike(view.route.same)}, {_able(view.living)})"


def _values(values: Iterable[str | int]) -> str:
    """Return values as the right side of IN."""
    return f"(SELECT value FROM json_each({text_literal(json.dumps(sorted(values)))}))"

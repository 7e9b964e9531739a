"""The queue of routes in SQL: who may take what, where what is alike has its home, and what is left to others."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.config.routes import Route
from pipeline.ledger.queue import Block
from pipeline.ledger.rendezvous_hashing import rendezvous
from pipeline.ledger.route_queue import (
    RouteMember,
    RouteView,
    has_prospects,
    next_of_routes,
    paid_of_routes,
    record_members,
    take_home,
)
from tests.support.workbench import ALL, lab, request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

A, B = RouteMember("a"), RouteMember("b")
TWO = (lab("http://127.0.0.1:9/v1", "a"), lab("http://127.0.0.1:9/v1", "b"))
SPREAD = Route("route", ("a", "b"))
FALLBACK = Route("route", ("a", "b"), "fallback")


def queued(bench: Bench, *styles: str) -> None:
    made = [replace(request(n), variables={"style": style}) for n, style in enumerate(styles)]
    bench.submit_routed(*made, providers=TWO)


def taken(bench: Bench, *views: RouteView, excluded: tuple[int, ...] = (), limit: int = 100) -> list[int]:
    return [one.pk for one in next_of_routes(bench.connection, views, ALL, (), excluded, limit)]


def test_rendezvous_moves_only_what_was_at_the_member_that_is_gone() -> None:
    styles = [f'["{number}"]' for number in range(200)]
    before = {style: rendezvous(style, "a", "b", "c") for style in styles}
    after = {style: rendezvous(style, "a", None, "c") for style in styles}
    assert all(after[style] == home for style, home in before.items() if home != "b")
    assert min(sum(home == name for home in before.values()) for name in "abc") > 40
    assert rendezvous("x") is None


def test_requests_are_taken_in_order_for_the_member_that_asks(bench: Bench) -> None:
    queued(bench, "x", "x", "x")
    views = [RouteView(SPREAD, B, (A, B))]
    found = next_of_routes(bench.connection, views, ALL, (), (), 2)
    assert [(one.pk, one.provider, one.route) for one in found] == [(1, "b", "route"), (2, "b", "route")]
    assert taken(bench, *views, excluded=(1,)) == [2, 3]
    assert taken(bench) == []
    assert paid_of_routes(bench.connection, [], ALL, (), 9) == []


def test_what_is_blocked_or_not_served_is_not_taken(bench: Bench) -> None:
    queued(bench, "x")
    for member in (
        replace(A, blocked=frozenset({Block("a", model="dall-e-2")})),
        replace(A, models=frozenset({"gpt-image-2"})),
        replace(A, operations=frozenset({"edit"})),
    ):
        view = RouteView(SPREAD, member, (member, B))
        assert taken(bench, view) == []
        assert not has_prospects(bench.connection, [view], ALL)
        assert taken(bench, RouteView(FALLBACK, B, (member, B))) == [1], "the first one cannot serve it"
    other = replace(A, blocked=frozenset({Block("a", model="it's another")}))
    assert taken(bench, RouteView(SPREAD, other, (other, B))) == [1]


@pytest.mark.parametrize(
    ("first", "expected"),
    [(A, []), (replace(A, is_up=False), [1, 2]), (replace(A, barred=frozenset({2})), [2])],
)
def test_the_next_one_is_asked_if_the_first_is_down_or_has_refused(
    bench: Bench, first: RouteMember, expected: list[int]
) -> None:
    queued(bench, "x", "x")
    view = RouteView(FALLBACK, B, (first, B))
    assert taken(bench, view) == expected
    assert has_prospects(bench.connection, [view], ALL)
    assert taken(bench, RouteView(FALLBACK, B, (B,))) == [1, 2], "it has stopped"


def test_a_request_that_a_server_asked_to_wait_waits_for_that_server_alone(bench: Bench) -> None:
    queued(bench, "x")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'a', 1, 0)")
    bench.set("UPDATE request SET wait_until = ?", time.time() + 60)
    assert taken(bench, RouteView(SPREAD, A, (A, B))) == []
    assert taken(bench, RouteView(SPREAD, B, (A, B))) == [1]


def test_a_home_is_taken_once_and_given_up_with_its_member(bench: Bench) -> None:
    queued(bench, "x", "x", "y")
    assert take_home(bench.connection, 1, "a", ["style"], ["a", "b"])
    assert not take_home(bench.connection, 2, "b", ["style"], ["a", "b"])
    assert take_home(bench.connection, 2, "a", ["style"], ["a", "b"])
    same = replace(SPREAD, same=("style",))
    assert set(taken(bench, RouteView(same, A, (A, B)))) >= {1, 2}
    assert not set(taken(bench, RouteView(same, B, (A, B)))) & {1, 2}
    assert taken(bench, RouteView(same, B, (B,))) == [1, 2, 3]
    assert take_home(bench.connection, 2, "b", ["style"], ["b"]), "the first home has stopped"
    assert bench.ask("SELECT * FROM home") == [(1, '["x"]', "b")]
    assert taken(bench, RouteView(replace(same, policy="fallback"), A, (A, B))) == [3]
    assert taken(bench, RouteView(replace(same, policy="fallback"), B, (A, B))) == [1, 2]


def test_paid_urls_are_for_their_own_member_while_it_lives(bench: Bench) -> None:
    queued(bench, "x", "x")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (2, 'a', 1, 0)")
    bench.set(
        "INSERT INTO image (request, attempt, job, state, number, url, expires_at) VALUES (2, 1, 1, 'paid', 1, 'u', 9)"
    )

    def paid(view: RouteView, busy: tuple[int, ...] = ()) -> list[int]:
        return [one.pk for one in paid_of_routes(bench.connection, [view], ALL, busy, 9)]

    assert paid(RouteView(SPREAD, A, (A, B))) == [2]
    assert paid(RouteView(SPREAD, A, (A, B)), (2,)) == []
    assert paid(RouteView(SPREAD, B, (A, B))) == []
    assert paid(RouteView(SPREAD, B, (B,))) == [2]
    assert taken(bench, RouteView(SPREAD, A, (A, B))) == [1], "it is not called for before its image is here"
    (found,) = paid_of_routes(bench.connection, [RouteView(SPREAD, B, (B,))], ALL, (), 9)
    assert found.urls[0].provider == "a"


def test_the_members_of_a_route_are_written_down(bench: Bench) -> None:
    queued(bench, "x")
    record_members(bench.connection, {"route": Route("route", ("b", "c"))}, ["a"])
    assert bench.one("SELECT members FROM job") == '["b", "c"]'
    record_members(bench.connection, {}, ["route"])
    assert bench.one("SELECT members FROM job") is None

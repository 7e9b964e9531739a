"""What submitting a plan would change: each id in one list, with what it will cost or what was spent."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

from pipeline.ledger.changes import find_changes
from pipeline.reports.estimate import estimate_plan
from pipeline.reports.plan_diff import diff_lines, read_changes
from tests.support.workbench import PRICE, models, plan, request

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.planning.plan import ImageRequest
    from tests.support.workbench import Bench


def diff(bench: Bench, *requests: ImageRequest, **more: Any) -> dict[str, list[str]]:
    """Return the ids in each of the four lists."""
    found = find_changes(bench.connection, plan(*requests, **more))
    coming = {"new": found.new, "changed": found.changed}
    return {
        **{kind: [one.id for one in of_kind] for kind, of_kind in coming.items()},
        "kept": found.kept,
        "superseded": found.superseded,
    }


def test_of_a_job_that_nobody_has_submitted_all_is_new(tmp_path: Path) -> None:
    found = read_changes(tmp_path / "outputs", plan(request(1, id="a"), request(2, id="b")))
    assert ([one.id for one in found.new], found.kept, found.superseded) == (["a", "b"], [], [])
    assert not (tmp_path / "outputs").exists()


def test_each_id_is_in_one_list(bench: Bench) -> None:
    bench.submit(*(request(number, id=name) for number, name in enumerate("abcde")))
    now = [request(0, id="a"), request(10, id="B"), request(2, id="c", n=3), request(11, id="f")]
    assert diff(bench, *now) == {"new": ["f"], "changed": ["B", "c"], "kept": ["a"], "superseded": ["d", "e"]}


def test_another_id_of_the_same_request_keeps_it_and_fewer_images_too(bench: Bench) -> None:
    bench.submit(request(1, id="a", n=3), request(2, id="b"))
    assert diff(bench, request(1, id="x", n=2), request(2, id="b"))["kept"] == ["x", "b"]
    assert diff(bench, request(1, id="b"), request(2, id="a"))["changed"] == ["b", "a"], "each has the other's id"


def test_a_request_that_is_put_back_into_the_file_is_kept(bench: Bench) -> None:
    bench.submit(request(1, id="a"), request(2, id="b"))
    bench.submit(request(2, id="b"))
    assert diff(bench, request(1, id="a"), request(2, id="b"))["kept"] == ["a", "b"]
    bench.submit(request(3, id="a"), request(2, id="b"))
    found = diff(bench, request(1, id="a"), request(2, id="b"))
    assert found == {"new": [], "changed": ["a"], "kept": ["b"], "superseded": []}, "its id belongs to another one now"


def test_a_part_of_a_job_leaves_nothing_out(bench: Bench) -> None:
    bench.submit(request(1, id="a"), request(2, id="b"))
    part = dataclasses.replace(plan(request(3, id="c")), is_part=True)
    assert find_changes(bench.connection, part).superseded == []


def test_what_an_interrupted_submit_left_behind_does_not_count(bench: Bench) -> None:
    bench.submit(request(1, id="a"))
    columns = "operation, served_by, params, variables, inputs, n, created_at"
    bench.set(
        f"INSERT INTO request (job, key, stated, position, id, {columns})"
        f" SELECT job, ?, 2, 1, 'b', {columns} FROM request",
        request(2).key,
    )
    assert diff(bench, request(1, id="a"), request(2, id="b"))["new"] == ["b"]


def test_money_is_what_comes_and_what_was_spent(bench: Bench) -> None:
    bench.submit(*(request(number, id=f"r{number}", n=2) for number in range(6)))
    bench.set("UPDATE request SET received = 2, status = 'succeeded', cost_usd = 0.5 WHERE id IN ('r0', 'r1')")
    bench.set("UPDATE request SET status = 'failed' WHERE id = 'r2'")
    bench.set("UPDATE request SET status = 'cancelled' WHERE id = 'r3'")
    bench.set("UPDATE request SET status = 'partial', received = 1, cost_usd = 0.25 WHERE id = 'r4'")
    now = [request(0, id="r0", n=5), *(request(number, id=f"r{number}", n=2) for number in range(2, 6))]
    made = plan(*now, request(7, id="new", n=3))
    changes = read_changes(bench.folder, made)
    view = estimate_plan(bench.folder, made, models(), changes=changes)["diff"]
    assert view == {
        "new": {"count": 1, "cost_usd": round(3 * PRICE, 6), "ids": ["new"]},
        "changed": {"count": 1, "cost_usd": round(3 * PRICE, 6), "ids": ["r0"]},
        "kept": {"count": 4, "cost_usd": 0.25, "ids": ["r2", "r3", "r4", "r5"]},
        "superseded": {"count": 1, "cost_usd": 0.5, "ids": ["r1"]},
    }
    assert list(diff_lines(view, changes.kept_unmade)) == [
        "+ new: 1 request, $0.048 to come: new",
        "~ changed: 1 request, $0.048 to come: r0",
        "= kept: 4 requests (1 cancelled, 1 failed, 1 partial), $0.25 spent: r2, r3, r4, r5",
        "- superseded: 1 request, $0.50 spent: r1",
    ]


def test_a_cost_that_is_unknown_is_null_and_only_ten_ids_are_shown(bench: Bench) -> None:
    made = plan(*(request(number, id=f"r{number}", model="mine") for number in range(1012)))
    changes = read_changes(bench.folder, made)
    view = estimate_plan(bench.folder, made, models(), changes=changes)["diff"]
    assert (view["new"]["cost_usd"], len(view["new"]["ids"])) == (None, 1012)
    ids = ", ".join(f"r{number}" for number in range(10))
    assert list(diff_lines(view, changes.kept_unmade)) == [
        f"+ new: 1,012 requests, unknown cost to come: {ids} and 1,002 more",
        "~ changed: 0 requests, $0.00 to come",
        "= kept: 0 requests, $0.00 spent",
        "- superseded: 0 requests, $0.00 spent",
    ]


def test_what_images_without_a_price_have_cost_is_unknown(bench: Bench) -> None:
    bench.submit(request(1, id="made"), request(2, id="left"), request(3, id="failed"))
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE id != 'failed'")
    changes = read_changes(bench.folder, plan(request(1, id="made"), request(3, id="failed")))
    view = estimate_plan(bench.folder, plan(request(1, id="made")), models(), changes=changes)["diff"]
    assert (view["kept"]["cost_usd"], view["superseded"]["cost_usd"]) == (None, None)
    assert list(diff_lines(view, {}))[2:] == [
        "= kept: 2 requests, unknown cost: made, failed",
        "- superseded: 1 request, unknown cost: left",
    ]


def test_after_the_submit_all_is_kept_whatever_was_edited(bench: Bench) -> None:
    rng = random.Random(7)
    numbers = iter(range(10_000))
    stated = {f"r{index}": next(numbers) for index in range(60)}
    for _ in range(20):
        bench.submit(*(request(number, id=name) for name, number in stated.items()))
        before = dict(stated)
        edited, left = rng.sample(sorted(stated), 6), rng.sample(sorted(stated), 4)
        stated.update({name: next(numbers) for name in edited})
        stated = {name: number for name, number in stated.items() if name not in left}
        added = {f"n{number}": number for number in (next(numbers) for _ in range(5))}
        stated.update(added)
        found = diff(bench, *(request(number, id=name) for name, number in stated.items()))
        assert set(found["new"]) == set(added)
        assert set(found["changed"]) == set(edited) - set(left)
        assert set(found["superseded"]) == set(left)
        assert sorted(name for names in found.values() for name in names) == sorted({*before, *stated})

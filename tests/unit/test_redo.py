"""Images that are made again: what the ledger records when they are asked for, and when others come."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.ledger import attempts, queue, redo
from pipeline.ledger.attempts import ResponseRecord
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.queries import count_superseded_images, count_unsuccessful, read_images
from pipeline.ledger.queue import Scope
from pipeline.ledger.recovery import requeue_lost_images
from pipeline.ledger.waiting import count_pending, waiting_providers
from pipeline.storage import StoredImage
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

ONLY = Scope(frozenset({"job"}), 0.0, limited_until=1e12, only_redo=True)


def _file(id_: str, number: int) -> StoredImage:
    return StoredImage(number, f"images/{id_}-{number}.png", "0" * 64, 5, 16, 16, "png", None)


def _answer(bench: Bench, images: int) -> None:
    """Answer one call for the next request with so many images."""
    (work, *_) = bench.works()
    begun = attempts.begin(bench.connection, work.pk, "lab", "http://x/v1", images, 0.5, 100)
    assert begun is not None
    reply = ResponseRecord(200, "req_1", None, 0.25, 101, 110)
    numbers = [number for number in range(1, 20) if number not in work.numbers][:images]
    files = [_file(begun[1], number) for number in numbers]
    attempts.record_response(bench.connection, work, begun[0], reply, [], files)


def _made(bench: Bench) -> None:
    bench.submit(replace(request(1, id="four", n=4), estimate_usd=0.4), replace(request(2, id="one"), estimate_usd=0.1))
    _answer(bench, 4)
    _answer(bench, 1)


def _images(bench: Bench, request_pk: int = 1) -> tuple[list[int], list[int]]:
    """Return the numbers of a request's images, and of those that are replaced."""
    numbers: tuple[list[int], list[int]] = ([], [])
    for one in read_images(bench.connection, [request_pk]).get(request_pk, ()):
        numbers[one.is_replaced].append(one.image.number)
    return numbers


def test_an_image_stays_in_its_place_until_another_one_is_here(bench: Bench) -> None:
    _made(bench)
    assert redo.find_redo_cost(bench.connection, "job", [2, 3]) == redo.RedoCost(1, 2, 0, 0.2)
    assert redo.ask_again(bench.connection, [2, 3]) == {1}
    assert redo.ask_again(bench.connection, [2, 3]) == {1}  # once, however often it is asked for
    assert bench.ask("SELECT status, received, finished_at FROM request WHERE pk = 1") == [("pending", 2, None)]
    assert _images(bench) == ([1, 2, 3, 4], [])
    assert redo.find_redo_cost(bench.connection, "job", [2, 3]) == redo.RedoCost(1, 2, 0, 0.2)
    assert [one.images for one in read_job_summaries(bench.connection)] == [5]
    _answer(bench, 1)
    assert _images(bench) == ([1, 3, 4, 5], [2])
    assert bench.one("SELECT status FROM request WHERE pk = 1") == "running"
    bench.set("UPDATE request SET status = 'pending' WHERE pk = 1")
    _answer(bench, 1)
    assert _images(bench) == ([1, 4, 5, 6], [2, 3])
    assert bench.one("SELECT status FROM request WHERE pk = 1") == "succeeded"
    assert [(one.number, one.redo) for one in redo.read_made_images(bench.connection, "job")] == [
        *((1, None), (2, "replaced"), (3, "replaced"), (4, None), (5, None), (6, None)),
        (1, None),
    ]
    assert [one.images for one in read_job_summaries(bench.connection)] == [5]


def test_what_a_request_misses_already_is_in_the_cost(bench: Bench) -> None:
    _made(bench)
    bench.submit(replace(request(1, id="four", n=6), estimate_usd=0.6), replace(request(2, id="one"), estimate_usd=0.1))
    assert redo.find_redo_cost(bench.connection, "job", [1]) == redo.RedoCost(1, 3, 2, 0.3)
    redo.ask_again(bench.connection, [1])
    assert redo.find_redo_cost(bench.connection, "job", [5]) == redo.RedoCost(2, 4, 2, 0.4)
    bench.set("UPDATE request SET estimate_usd = NULL WHERE pk = 2")
    assert redo.find_redo_cost(bench.connection, "job", [5]).cost_usd is None


def test_a_request_that_is_running_goes_on(bench: Bench) -> None:
    _made(bench)
    bench.set("UPDATE request SET status = 'running' WHERE pk = 2")
    redo.ask_again(bench.connection, [5])
    assert bench.ask("SELECT status, received FROM request WHERE pk = 2") == [("running", 0)]
    assert attempts.finish(bench.connection, 2, None, 120)[0] == "pending"


def test_a_run_of_what_is_made_again_leaves_the_other_requests_alone(bench: Bench) -> None:
    _made(bench)
    bench.submit(request(1, id="four", n=4), request(2, id="one"), request(3, id="new"))
    assert count_pending(bench.connection, ONLY) == 0
    assert waiting_providers(bench.connection, ONLY) == []
    redo.ask_again(bench.connection, [5])
    assert [one.id for one in queue.next_requests(bench.connection, "lab", ONLY, (), 9)] == ["one"]
    assert count_pending(bench.connection, ONLY) == 1
    bench.submit(request(9, id="late"), name="other", now=time.time())  # submitted while the run works
    found = queue.next_requests(bench.connection, "lab", replace(ONLY, since=1.0, limited_until=2.0), (), 9)
    assert {one.id for one in found} == {"one", "new", "late"}


def test_beside_a_run_of_another_job_it_counts_as_submitted_now(bench: Bench) -> None:
    _made(bench)
    bench.set("UPDATE job SET submitted_at = 5")
    redo.ask_again(bench.connection, [5])
    assert bench.one("SELECT submitted_at FROM job") == 5
    redo.ask_again(bench.connection, [5], for_run_at_work=True)
    assert bench.one("SELECT submitted_at FROM job") > 5


def test_an_image_that_is_lost_is_missed_only_if_it_counts(bench: Bench) -> None:
    _made(bench)
    redo.ask_again(bench.connection, [1, 2])
    _answer(bench, 1)
    assert _images(bench) == ([2, 3, 4, 5], [1])
    requeue_lost_images(bench.connection, [1, 2])  # one is replaced, one is asked for again
    assert bench.one("SELECT received FROM request WHERE pk = 1") == 3
    requeue_lost_images(bench.connection, [3])
    assert bench.one("SELECT received FROM request WHERE pk = 1") == 2
    assert _images(bench) == ([4, 5], [])


def test_what_is_replaced_is_no_image_of_a_superseded_request(bench: Bench) -> None:
    _made(bench)
    redo.ask_again(bench.connection, [5])
    _answer(bench, 1)
    bench.submit(request(1, id="four", n=4))
    assert count_superseded_images(bench.connection, "job") == 1
    assert [one.superseded for one in redo.read_made_images(bench.connection, "job")] == [0, 0, 0, 0, 1, 1]


def test_the_rest_of_a_budget_and_what_failed_are_counted(bench: Bench) -> None:
    _made(bench)
    assert redo.budget_left(bench.connection, "job") is None
    bench.set("UPDATE job SET budget_usd = 0.75")
    assert redo.budget_left(bench.connection, "job") == 0.25
    bench.set("UPDATE job SET budget_usd = 0.25")
    assert redo.budget_left(bench.connection, "job") == 0.0
    keys = [one.key for one in (request(1), request(7))]
    assert redo.find_requests(bench.connection, "job", keys) == {1}
    assert count_unsuccessful(bench.connection, {1, 2}) == 0
    bench.set("UPDATE request SET status = 'partial' WHERE pk = 2")
    assert count_unsuccessful(bench.connection, {1, 2}) == 1
    assert count_unsuccessful(bench.connection, {1}) == 0
    assert redo.read_wanted_images(bench.connection, "job") == {
        request(1).key: (4, "succeeded"),
        request(2).key: (1, "partial"),
    }

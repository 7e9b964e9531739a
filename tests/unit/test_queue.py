"""What comes next: live URLs before calls, the oldest job first, and nothing that is not to be worked."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import attempts
from pipeline.ledger.database import transaction
from pipeline.ledger.queue import Block, Scope, claim
from pipeline.ledger.waiting import waiting_providers
from tests.support.workbench import ALL, LAB, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.ledger.queue import QueuedRequest
    from tests.support.workbench import Bench

OPENAI = dataclasses.replace(LAB, name="openai")


def _prompts(works: Sequence[QueuedRequest]) -> list[str | None]:
    return [queued.prompt for queued in works]


def _pay(bench: Bench, prompt: str, expires_at: float, number: int = 1) -> None:
    (request, job) = bench.ask("SELECT pk, job FROM request WHERE prompt = ?", prompt)[0]
    bench.set(
        "INSERT INTO attempt (request, provider, n, sent_at, ended_at, outcome) VALUES (?, 'lab', 1, 1, 2, 'answered')",
        request,
    )
    bench.set(
        "INSERT INTO image (request, attempt, job, number, state, url, expires_at)"
        " SELECT ?, max(pk), ?, ?, 'paid', 'http://x/' || ?, ? FROM attempt",
        *(request, job, number, number, expires_at),
    )


def _store(bench: Bench, request: int, file: str) -> None:
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (?, 'lab', 1, 1)", request)
    bench.set(
        "INSERT INTO image (request, attempt, job, number, state, file, sha256, bytes)"
        " SELECT ?, 1, job, 1, 'stored', ?, ?, 5 FROM request WHERE pk = ?",
        *(request, file, "0" * 64, request),
    )


def test_the_oldest_job_comes_first_in_the_order_of_its_file(bench: Bench) -> None:
    bench.submit(request(5), request(3), name="late", now=20)
    bench.submit(request(2), request(1), name="early", now=10)
    bench.submit(request(9), name="elsewhere", provider=OPENAI, now=5)
    assert _prompts(bench.works()) == ["prompt 2", "prompt 1", "prompt 5", "prompt 3"]
    assert _prompts(bench.works(most=3)) == ["prompt 2", "prompt 1", "prompt 5"]
    assert _prompts(bench.works("openai")) == ["prompt 9"]


def test_live_urls_come_first_and_the_nearest_death_before_all(bench: Bench) -> None:
    bench.submit(*(request(number, n=2) for number in range(5)))
    _pay(bench, "prompt 3", 900)
    _pay(bench, "prompt 1", 800)
    _pay(bench, "prompt 4", 950)
    _pay(bench, "prompt 4", 700, number=2)
    works = bench.works()
    assert _prompts(works) == ["prompt 4", "prompt 1", "prompt 3", "prompt 0", "prompt 2"]
    assert [len(queued.urls) for queued in works] == [2, 1, 1, 0, 0]
    assert [queued.missing for queued in works] == [0, 1, 1, 2, 2]


def test_what_is_carried_already_is_left_out_and_does_not_use_up_the_room(bench: Bench) -> None:
    bench.submit(*(request(number) for number in range(6)))
    _pay(bench, "prompt 5", 100)
    taken = {queued.pk for queued in bench.works(most=4)}
    assert _prompts(bench.works(most=2, taken=taken)) == ["prompt 3", "prompt 4"]


@pytest.mark.parametrize("status", ["running", "succeeded", "partial", "failed", "cancelled"])
def test_only_what_is_pending_is_work(bench: Bench, status: str) -> None:
    bench.submit(request(1), request(2))
    bench.set("UPDATE request SET status = ? WHERE prompt = 'prompt 1'", status)
    assert _prompts(bench.works()) == ["prompt 2"]


def test_what_has_left_the_job_file_is_no_work_even_where_it_is_paid(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    _pay(bench, "prompt 1", 100)
    bench.submit(request(2))
    assert _prompts(bench.works()) == ["prompt 2"]
    bench.submit(request(1))
    assert _prompts(bench.works()) == ["prompt 1"]
    with transaction(bench.connection):
        assert waiting_providers(bench.connection, ALL) == ["lab"]


def test_a_run_works_the_jobs_it_was_given_and_those_submitted_since(bench: Bench) -> None:
    bench.submit(request(1), name="before", now=10)
    bench.submit(request(2), name="named", now=20)
    bench.submit(request(3), name="since", now=30)
    bench.submit(request(4), name="elsewhere", provider=OPENAI, now=5)
    scope = Scope(frozenset({"NAMED"}), 25)
    assert _prompts(bench.works(scope=scope)) == ["prompt 2", "prompt 3"]
    assert waiting_providers(bench.connection, scope) == ["lab"]
    assert sorted(waiting_providers(bench.connection, ALL)) == ["lab", "openai"]


@pytest.mark.parametrize(
    ("blocked", "left"),
    [
        ([Block(job_pk=1, model='it\'s "new"')], ["prompt 2", "prompt 3", "prompt 4"]),
        ([Block(job_pk=1)], ["prompt 4"]),
        ([Block(job_pk=2)], ["prompt 1", "prompt 2", "prompt 3"]),
        (
            [
                Block(job_pk=1, model='it\'s "new"'),
                Block(job_pk=1, model="dall-e-2"),
                Block(job_pk=2, model="dall-e-3"),
            ],
            ["prompt 3", "prompt 4"],
        ),
        ([Block(provider="lab", served_by="edit")], ["prompt 1", "prompt 2", "prompt 3", "prompt 4"]),
        ([Block(provider="lab", served_by="generation")], []),
        ([Block(provider="other")], ["prompt 1", "prompt 2", "prompt 3", "prompt 4"]),
    ],
)
def test_what_a_stop_holds_up_is_no_work(bench: Bench, blocked: list[Block], left: list[str]) -> None:
    bench.submit(request(1, model='it\'s "new"'), request(2), request(3, model=None), name="first", now=1)
    bench.submit(request(4), name="second", now=2)
    _pay(bench, "prompt 1", 100)
    every = bench.works()
    assert _prompts(bench.works(blocked=blocked)) == left
    assert _prompts([queued for queued in every if not any(bar.covers(queued) for bar in blocked)]) == left


def test_a_provider_all_of_whose_work_is_held_up_has_none_waiting(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    assert waiting_providers(bench.connection, ALL, [Block(job_pk=1, model="dall-e-2")]) == []


def test_among_100_000_requests_mostly_done_the_next_are_found_without_a_search(bench: Bench) -> None:
    bench.submit(*(request(number) for number in range(3000)))
    for status, part in (("succeeded", "< 2900"), ("failed", "BETWEEN 2900 AND 2950")):
        bench.set(f"UPDATE request SET status = '{status}' WHERE position {part}")
    bench.submit(*(request(number) for number in range(3000, 6000)), name="other", now=1)
    bench.submit(request(6000), name="other", now=1)  # 3000 pending ones are superseded
    bench.works(most=1)  # the schema is read
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    bench.connection.set_progress_handler(count, 10)
    works = bench.works(most=10)
    waiting_providers(bench.connection, ALL)
    bench.connection.set_progress_handler(None, 10)
    assert len(works) == 10
    assert steps < 500, "5000 steps of SQLite's machine; reading all 6000 requests would be many times that"


def test_files_are_named_by_the_id_and_by_the_key_too_where_another_owns_the_name(bench: Bench) -> None:
    for number, (one, file) in enumerate([("pool", "images/POOL-12.png"), ("cat-2", "images/cat-2-1.png")]):
        bench.submit(request(number, id=one), name="job")
        _store(bench, number + 1, file)
    bench.submit(*(request(number, id=one) for number, one in [(7, "Pool"), (8, "cat"), (9, "cat-2"), (10, "pool-12")]))
    keys = dict(bench.ask("SELECT id, key FROM request WHERE status = 'pending'"))
    stems = {one: claim(bench.connection, pk) for pk, one in bench.ask("SELECT pk, id FROM request WHERE pk > 2")}
    assert stems == {
        "Pool": f"Pool-{keys['Pool'][:8]}",
        "cat": "cat",
        "cat-2": f"cat-2-{keys['cat-2'][:8]}",
        "pool-12": "pool-12",
    }


def test_a_name_that_is_being_written_under_is_taken_even_where_its_owner_was_renamed(bench: Bench) -> None:
    bench.submit(request(1, id="pool"))
    assert claim(bench.connection, 1) == "pool"
    bench.submit(request(1, id="cat"), request(2, id="pool"))
    assert claim(bench.connection, 2) == f"pool-{request(2).key[:8]}"
    assert claim(bench.connection, 1) == "cat"


def test_only_what_still_counts_is_claimed(bench: Bench) -> None:
    bench.submit(request(1), request(2))
    bench.set("UPDATE request SET status = 'cancelled' WHERE pk = 1")
    assert claim(bench.connection, 1) is None
    bench.submit(request(3))
    assert claim(bench.connection, 2) is None
    assert bench.ask("SELECT status FROM request WHERE pk < 3") == [("cancelled",), ("pending",)]


@pytest.mark.parametrize("change", ["cancel", "supersede", "lower n", "lower n a little"])
def test_a_call_that_the_job_no_longer_asks_for_is_not_begun(bench: Bench, change: str) -> None:
    bench.submit(request(1, n=5), request(2))
    if change == "cancel":
        bench.set("UPDATE request SET status = 'cancelled'")
    elif change == "supersede":
        bench.submit(request(2))
    else:
        bench.set("UPDATE request SET received = 1 WHERE pk = 1")
        bench.submit(request(1, n=1 if change == "lower n" else 4), request(2))
    assert attempts.begin(bench.connection, 1, "lab", "http://x/v1", 5, 0.1, 100) is None
    assert bench.ask("SELECT count(*), total(attempts) FROM request, attempt") == [(0, 0)]


def test_work_brings_all_that_a_worker_needs(bench: Bench) -> None:
    bench.submit(request(1, n=4, id="pool", quality="hd"), budget_usd=2.5)
    bench.set("UPDATE request SET received = 1, moderated = 1")
    _store(bench, 1, "images/pool-1.png")
    _pay(bench, "prompt 1", 900, number=3)
    (queued,) = bench.works()
    assert (queued.n, queued.received, queued.moderated, queued.missing, queued.numbers) == (
        4,
        1,
        1,
        1,
        frozenset({1, 3}),
    )
    assert (queued.id, queued.budget_usd, queued.rehearsal, queued.model) == ("pool", 2.5, False, "dall-e-2")
    assert queued.params == {"model": "dall-e-2", "size": "256x256", "quality": "hd"}
    assert json.loads(json.dumps(list(queued.inputs))) == []
    assert [(url.number, url.url, url.expires_at) for url in queued.urls] == [(3, "http://x/3", 900)]

"""Submitting plans: whole or not at all, and known requests keep what they have."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import BadInput
from pipeline.ledger import attempts, queue, recovery, submit
from pipeline.ledger.database import open_for_reading
from pipeline.ledger.job_name_claim import Claim, check_claim
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.put_back import Selection, put_back
from tests.support.workbench import LAB, MODEL, plan, request

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from tests.support.workbench import Bench

COUNTED = "SELECT count(*) FROM request r JOIN job j ON j.pk = r.job WHERE r.stated = j.revision"


def test_what_is_stated_is_queued_in_its_order_with_all_it_says(bench: Bench) -> None:
    bench.submit(request(2, id="pool", n=3, user="me"), request(1), budget_usd=1.5, now=77)
    assert bench.ask("SELECT name, provider, rehearsal, budget_usd, revision, submitted_at FROM job") == [
        ("job", "lab", 0, 1.5, 1, 77)
    ]
    assert bench.ask("SELECT id, prompt, n, status, position, created_at, endpoint FROM request")[0] == (
        *("pool", "prompt 2", 3, "pending", 0, 77),
        LAB.base_url,
    )
    params = [json.loads(text) for (text,) in bench.ask("SELECT params FROM request ORDER BY position")]
    assert params == [{**MODEL, "user": "me"}, MODEL]
    assert list(bench.statuses().values()) == ["pending", "pending"]


def test_a_large_submit_counts_at_its_end_and_not_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(request(0, n=1), request(1), request(99))
    bench.set("UPDATE request SET status = 'succeeded', received = 1")
    bench.submit(request(0, n=1), request(1))
    monkeypatch.setattr(submit, "CHUNK", 10)
    monkeypatch.setattr(submit, "HOLD_SECONDS", 0.0)
    seen: list[tuple[int, int, str, object]] = []
    reader = open_for_reading(bench.folder)
    assert reader is not None
    state = submit._state

    def state_and_look(connection: sqlite3.Connection, *rest: object) -> None:
        state(connection, *rest)  # type: ignore[arg-type]
        counted = reader.execute(COUNTED).fetchone()[0]
        images = reader.execute("SELECT sum(n), group_concat(status) FROM request WHERE position < 2").fetchone()
        provider = reader.execute("SELECT provider FROM job").fetchone()[0]
        seen.append((counted, len(bench.ask("SELECT 1 FROM request")), provider, tuple(images)))

    monkeypatch.setattr(submit, "_state", state_and_look)
    other = LAB.__class__("other", "http://127.0.0.1:9/v1")
    requests = [request(0, n=4), request(99), *(request(number) for number in range(200, 248))]
    with contextlib.closing(reader):
        bench.submit(*requests, provider=other)
        assert reader.execute(COUNTED).fetchone()[0] == 50
    assert [counted for counted, *_ in seen] == [2] * 5
    assert [rows for _, rows, *_ in seen] == [11, 21, 31, 41, 51], "each chunk is a transaction of its own"
    assert {provider for *_, provider, _ in seen} == {"lab"}
    assert seen[0][3] == (2, "succeeded,succeeded"), "nor is n raised before the end"
    assert bench.ask("SELECT n, status FROM request WHERE prompt = 'prompt 0'") == [(4, "pending")]
    assert bench.ask("SELECT status FROM request WHERE prompt = 'prompt 99'") == [("succeeded",)]


def test_a_submit_that_dies_leaves_nothing_that_counts_and_the_next_one_cleans_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.submit(request(1), request(2), request(3))
    bench.submit(request(2), request(3))
    before = bench.ask("SELECT * FROM job"), bench.ask("SELECT * FROM request ORDER BY pk")
    monkeypatch.setattr(submit, "CHUNK", 2)
    with monkeypatch.context() as broken:
        broken.setattr(submit, "_make_count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.submit(request(1), request(2, n=5), request(7), request(8), provider=LAB, budget_usd=9)
    assert bench.one("SELECT count(*) FROM request") == 5
    assert bench.ask("SELECT * FROM job") == before[0]
    assert bench.ask("SELECT * FROM request WHERE pk <= 3 ORDER BY pk") == before[1]
    assert list(bench.statuses()) == [request(2).id, request(3).id]
    assert len(bench.works()) == 2
    assert read_job_summaries(bench.connection)[0].counts["superseded"] == 1
    bench.submit(request(3), request(8))
    assert list(bench.statuses()) == [request(3).id, request(8).id]
    assert bench.one("SELECT count(*) FROM request") == 4, "prompt 7 was never stated"


def test_a_first_submit_that_dies_leaves_no_job_to_be_seen_and_no_claim_to_its_name(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(submit, "_make_count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            bench.submit(request(1), file=tmp_path / "one.yaml")
    (tmp_path / "one.yaml").touch()
    assert read_job_summaries(bench.connection) == []
    with pytest.raises(BadInput, match="nothing has been submitted"):
        submit.known_names(bench.connection, ["job"])
    assert check_claim(bench.connection, plan(file=tmp_path / "two.yaml")) == Claim(name="job")


@pytest.mark.parametrize(
    ("status", "n", "received", "moderated", "wanted", "then"),
    [
        ("succeeded", 2, 2, 0, 3, "pending"),
        ("succeeded", 2, 2, 0, 1, "succeeded"),
        ("succeeded", 2, 3, 0, 3, "succeeded"),  # a server that gave more than asked
        ("pending", 2, 1, 0, 3, "pending"),
        ("pending", 3, 2, 0, 2, "succeeded"),
        ("pending", 3, 1, 0, 2, "pending"),
        ("running", 2, 1, 0, 3, "running"),
        ("running", 3, 2, 0, 2, "running"),  # whoever carries it ends it
        ("partial", 3, 2, 1, 4, "pending"),
        ("partial", 3, 2, 1, 2, "succeeded"),
        ("partial", 3, 2, 1, 3, "partial"),
        ("failed", 1, 0, 0, 1, "failed"),
        ("failed", 1, 0, 1, 2, "pending"),
        ("failed", 2, 0, 0, 1, "failed"),
        ("cancelled", 2, 0, 0, 2, "cancelled"),
        ("cancelled", 2, 1, 0, 1, "succeeded"),
    ],
)
def test_raising_and_lowering_n(
    bench: Bench, status: str, n: int, received: int, moderated: int, wanted: int, then: str
) -> None:
    bench.submit(request(1, n=n))
    finished = None if status in {"pending", "running"} else 50
    bench.set(
        "UPDATE request SET status = ?, received = ?, moderated = ?, finished_at = ?",
        *(status, received, moderated, finished),
    )
    bench.submit(request(1, n=wanted), now=99)
    assert bench.ask("SELECT n, status, received FROM request") == [(wanted, then, received)]
    expected = {"pending": None, "running": None}.get(then, finished or 99)
    assert bench.one("SELECT finished_at FROM request") == expected


def test_what_is_put_back_into_the_file_counts_again_with_what_it_has(bench: Bench) -> None:
    bench.submit(request(1, id="one"), request(2, id="two"))
    bench.set("UPDATE request SET status = 'succeeded', received = 1, attempts = 3, cost_usd = 0.5 WHERE id = 'one'")
    bench.submit(request(2, id="two"))
    assert bench.statuses() == {"two": "pending"}
    bench.submit(request(2, id="zwei"), request(1, id="eins"))
    assert bench.statuses() == {"zwei": "pending", "eins": "succeeded"}
    assert bench.ask("SELECT attempts, cost_usd FROM request WHERE id = 'eins'") == [(3, 0.5)]


def test_jobs_with_equal_requests_do_not_share_them(bench: Bench) -> None:
    bench.submit(request(1), name="one")
    bench.submit(request(1), name="two")
    assert bench.one(COUNTED) == 2


def test_cancel_takes_out_what_is_pending_and_counts(bench: Bench) -> None:
    bench.submit(*(request(number, id=str(number)) for number in range(4)))
    bench.submit(*(request(number, id=str(number)) for number in range(3)))
    bench.set("UPDATE request SET status = 'running' WHERE id = '0'")
    bench.submit(request(9), name="other")
    assert submit.cancel(bench.connection, "JOB", 50) == 2
    assert bench.statuses() == {"0": "running", "1": "cancelled", "2": "cancelled"}
    assert bench.statuses("other") == {request(9).id: "pending"}
    bench.submit(*(request(number, id=str(number)) for number in range(4)))
    assert bench.statuses()["3"] == "pending", "it was not in the queue, so it was not taken out"


def test_cancel_takes_out_what_waits_to_be_called_again_and_nothing_in_flight(bench: Bench) -> None:
    bench.submit(*(request(number, id=name) for number, name in enumerate(["waits", "called", "paid", "new"])))
    bench.set("UPDATE request SET status = 'running'")
    insert = "INSERT INTO attempt (request, provider, n, sent_at, outcome, ended_at) VALUES (?, 'lab', 1, 0, ?, ?)"
    for pk, outcome in ((1, "refused"), (2, "unknown"), (2, None), (3, "answered")):
        bench.set(insert, pk, outcome, None if outcome is None else 1)
    bench.set(
        "INSERT INTO image (request, attempt, job, state, number, url, expires_at)"
        " VALUES (3, 4, 1, 'paid', 1, 'http://127.0.0.1/1.png', 9e9)"
    )
    assert submit.cancel(bench.connection, "job", 50) == 1
    assert bench.statuses() == {"waits": "cancelled", "called": "running", "paid": "running", "new": "running"}
    begun = attempts.begin(bench.connection, 1, "lab", "http://127.0.0.1/v1", 1, None, 60.0)
    assert begun is None, "the worker that waits calls no more"
    for pk in (2, 3, 4):
        assert attempts.begin(bench.connection, pk, "lab", "http://127.0.0.1/v1", 1, None, 60.0) is None
    assert queue.claim(bench.connection, 3) == "paid", "it is downloaded"
    recovery.requeue(bench.connection, 4)
    assert recovery.recover(bench.connection, 70.0) == 1
    assert set(bench.statuses().values()) == {"cancelled"}


def test_who_puts_a_cancelled_job_back_means_its_calls_in_flight_too(bench: Bench) -> None:
    bench.submit(request(1, id="called"), request(2, id="new"))
    bench.set("UPDATE request SET status = 'running' WHERE id = 'called'")
    submit.cancel(bench.connection, "job", 50)
    put_back(bench.connection, Selection(("job",)))
    recovery.requeue(bench.connection, 1)
    assert bench.statuses() == {"called": "pending", "new": "pending"}


def test_names_are_given_as_the_ledger_spells_them_and_unknown_ones_are_refused(bench: Bench) -> None:
    bench.submit(request(1), name="Lounge")
    assert submit.known_names(bench.connection, ["lounge"]) == ["Lounge"]
    with pytest.raises(BadInput, match="there is no job `longe`; did you mean `Lounge`"):
        submit.known_names(bench.connection, ["longe"])

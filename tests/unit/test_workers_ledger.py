"""The ledger knows the workers of a run, and until when those of a killed one may send calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ledger.recovery import recover
from pipeline.ledger.workers import WorkerRow, forget_workers, leases_end, read_workers, record_workers
from tests.support.workbench import request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

ROWS = [WorkerRow(1, "here", 17, 3, 2), WorkerRow(2, "there", 18, 0, 0)]


def test_the_last_record_holds(bench: Bench) -> None:
    assert (read_workers(bench.connection), leases_end(bench.connection)) == ([], 0.0)
    record_workers(bench.connection, ROWS, 50.0)
    record_workers(bench.connection, ROWS[:1], 60.0)
    assert (read_workers(bench.connection), leases_end(bench.connection)) == (ROWS[:1], 60.0)
    forget_workers(bench.connection)
    assert (read_workers(bench.connection), leases_end(bench.connection)) == ([], 0.0)


def test_a_call_that_a_worker_had_counts_as_sent_when_its_lease_was_over(bench: Bench) -> None:
    """Else the next run would count it out of the window too early."""
    bench.submit(request(1))
    bench.set("UPDATE request SET status = 'running', stem = 'a'")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 100.0)")
    record_workers(bench.connection, ROWS, 107.0)
    assert recover(bench.connection, 107.5) == 1
    assert bench.ask("SELECT outcome, sent_at FROM attempt") == [("unknown", 107.5)]
    assert leases_end(bench.connection) == 0.0


def test_without_workers_it_counts_as_sent_a_second_after_its_record(bench: Bench) -> None:
    bench.submit(request(1))
    bench.set("UPDATE request SET status = 'running', stem = 'a'")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 100.0)")
    assert recover(bench.connection, 107.5) == 1
    assert bench.ask("SELECT outcome, sent_at FROM attempt") == [("unknown", 101.0)]

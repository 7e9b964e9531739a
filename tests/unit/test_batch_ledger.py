"""What the ledger records of batches, without a service: begin, lines, ends, and what a second process changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.errors import Invalid, OutcomeUnknown, ServerFault
from pipeline.ledger import attempts, batch_lines, batches, uploaded_files
from pipeline.ledger.batch_queue import next_of_group, pending_groups
from pipeline.ledger.queue import Block
from pipeline.ledger.recovery import recover
from tests.support.workbench import ALL, request

if TYPE_CHECKING:
    from tests.support.workbench import Bench

GROUP = Block("lab", 1, "dall-e-2", "generation")


def begun(bench: Bench, *pks: int, images: int = 1) -> tuple[batches.BatchRow, list[int | None]] | None:
    drafts = [batches.Draft(pk, images, 10, 0.5) for pk in pks]
    return batches.begin_batch(bench.connection, GROUP, f"token-{pks}", drafts, "http://x", 1.0)


def queued(bench: Bench, count: int = 3, **more: Any) -> None:
    bench.submit(*(request(number, **more) for number in range(count)))
    bench.set("UPDATE job SET mode = 'batch'")


def test_a_batch_and_its_lines_are_recorded_together(bench: Bench) -> None:
    queued(bench)
    found = begun(bench, 1, 2)
    assert found is not None
    row, keys = found
    assert (row.requests, row.tokens, row.id, row.status, row.looks) == (2, 20, None, None, 0)
    assert (row.group, row.input_name) == (GROUP, "token-(1, 2).jsonl")
    assert keys == batch_lines.open_lines(bench.connection, row.pk)
    assert list(bench.statuses().values()) == ["running", "running", "pending"]
    assert bench.ask("SELECT attempts FROM request") == [(0,)] * 3


@pytest.mark.parametrize("change", ["mode = 'realtime'", "realtime_since = 1.0", "cancel_since = 1.0"])
def test_a_job_that_no_longer_goes_by_batch_begins_none(bench: Bench, change: str) -> None:
    queued(bench)
    bench.set(f"UPDATE job SET {change}")
    assert begun(bench, 1) is None
    assert bench.one("SELECT count(*) FROM batch") == 0


@pytest.mark.parametrize("status", ["cancelled", "succeeded", "running"])
def test_a_request_that_is_not_pending_any_more_is_left_out(bench: Bench, status: str) -> None:
    queued(bench)
    bench.set("UPDATE request SET status = ? WHERE pk = 1", status)
    found = begun(bench, 1, 2)
    assert found is not None
    assert (found[0].requests, found[1][0]) == (1, None)
    assert begun(bench, 1) is None


def test_a_request_that_misses_fewer_images_than_were_drafted_is_left_out(bench: Bench) -> None:
    queued(bench, 1)
    assert begun(bench, 1, images=2) is None


def test_lines_count_as_attempts_once_when_their_batch_is_valid(bench: Bench) -> None:
    queued(bench)
    found = begun(bench, 1, 2)
    assert found is not None
    for is_valid in (False, True, True):
        batches.record_progress(bench.connection, found[0].pk, "in_progress", 1, 0, is_valid=is_valid)
    assert bench.ask("SELECT attempts FROM request") == [(1,), (1,), (0,)]


def test_a_line_that_is_recorded_is_left_alone(bench: Bench) -> None:
    queued(bench)
    found = begun(bench, 1)
    assert found is not None
    row, (key, *_) = found
    assert key is not None
    for outcome in ("unknown", "refused"):
        usd = batch_lines.record_lines(
            bench.connection, [key], outcome, OutcomeUnknown("lost"), 2.0, is_release=True
        )  # fmt: skip
        assert usd == ([0.5] if outcome == "unknown" else [])
    assert batch_lines.read_line(bench.connection, row.pk, key) is None
    assert bench.ask("SELECT status, maybe_paid FROM request LIMIT 1") == [("pending", 1)]


def test_a_request_with_several_lines_is_released_with_the_last_of_them(bench: Bench) -> None:
    queued(bench, 1, n=2)
    found = begun(bench, 1, 1)
    assert found is not None
    first, second = (key for key in found[1] if key is not None)
    batch_lines.record_lines(bench.connection, [first], "refused", ServerFault("no"), 2.0, is_release=True)
    assert bench.statuses() == {request(0).id: "running"}
    assert batch_lines.finish_line(bench.connection, 1, Invalid("no"), 2.0) == ("pending", None)
    batch_lines.record_lines(bench.connection, [second], "refused", ServerFault("no"), 2.0, is_release=True)
    assert bench.statuses() == {request(0).id: "pending"}


def test_what_a_death_left_unsent_is_withdrawn_and_what_may_be_sent_is_not(bench: Bench) -> None:
    queued(bench)
    one, two = begun(bench, 1), begun(bench, 2)
    assert one is not None
    assert two is not None
    batches.record_create(bench.connection, two[0].pk, 1.0)
    assert recover(bench.connection) == 0
    assert list(bench.statuses().values()) == ["pending", "running", "pending"]
    assert [row.pk for row in batches.living_batches(bench.connection, ALL)] == [two[0].pk]
    assert bench.ask("SELECT outcome FROM attempt ORDER BY pk") == [("not_sent",), (None,)]


def test_what_came_back_waits_and_what_was_not_sent_does_not(bench: Bench) -> None:
    queued(bench)
    one, two = begun(bench, 1), begun(bench, 2)
    assert one is not None
    assert two is not None
    batch_lines.withdraw(bench.connection, one[0].pk, 2.0)
    lines = batch_lines.open_lines(bench.connection, two[0].pk)
    batch_lines.record_lines(bench.connection, lines, "refused", ServerFault("no"), 2.0, is_release=True)

    def found(*, is_first: bool) -> list[int]:
        return [one.pk for one in next_of_group(bench.connection, GROUP, ALL, 9, is_first=is_first)]

    assert (found(is_first=True), found(is_first=False)) == ([1, 3], [1, 2, 3])
    assert pending_groups(bench.connection, 1, ALL) == [(GROUP, 3)]


def test_the_unfinished_images_of_a_job_are_those_that_are_pending_or_out(bench: Bench) -> None:
    queued(bench, 3, n=4)
    begun(bench, 1)
    bench.set("UPDATE request SET received = 1 WHERE pk = 1")
    bench.set("UPDATE request SET status = 'failed' WHERE pk = 2")
    bench.submit(request(9), name="other")
    assert batches.unfinished_images(bench.connection, [1, 2, 3]) == {1: 7, 2: 1}


def test_money_that_is_out_is_committed_until_it_is_withdrawn(bench: Bench) -> None:
    queued(bench)
    found = begun(bench, 1, 2)
    assert found is not None
    assert attempts.committed_usd(bench.connection, 1) == 1.0
    assert batch_lines.withdraw(bench.connection, found[0].pk, 2.0) == 1.0
    assert attempts.committed_usd(bench.connection, 1) == 0.0


def test_an_input_is_known_by_provider_and_hash_and_forgotten_when_nothing_needs_it(bench: Bench) -> None:
    queued(bench)
    uploaded_files.begin(bench.connection, "lab", "abc", "name", 1.0)
    found = uploaded_files.find(bench.connection, "lab", "abc")
    assert found is not None
    assert (found.id, found.is_good_until(0.0)) == (None, False)
    uploaded_files.record(bench.connection, "lab", "abc", "file-1", 9.0)
    found = uploaded_files.find(bench.connection, "lab", "abc")
    assert found is not None
    assert (found.is_good_until(8.0), found.is_good_until(9.0)) == (True, False)
    assert uploaded_files.find(bench.connection, "other", "abc") is None
    bench.set('UPDATE request SET inputs = \'[{"sha256": "abc"}]\' WHERE pk = 1')
    assert uploaded_files.forget_unneeded(bench.connection, "lab") == {}
    bench.submit(request(1), request(2), now=2.0)  # the first is superseded
    assert uploaded_files.forget_unneeded(bench.connection, "lab") == {"name": "file-1"}

"""A job's name belongs to its file, and its queue does not go by a list that has shrunk."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import JobError
from pipeline.ledger import submit
from pipeline.ledger.job_name_claim import Claim, check_claim, compare
from pipeline.reports.claim_words import claim_words
from tests.support.workbench import plan, request

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.planning.plan import ImageRequest, Plan
    from tests.support.workbench import Bench


def stating(numbers: Iterable[int], file: Path | None = None) -> Plan:
    """A plan that states the requests of these numbers."""
    return plan(*map(request, numbers), file=file)


def refusal(bench: Bench, claiming: Plan) -> str:
    with pytest.raises(JobError) as caught:
        check_claim(bench.connection, claiming)
    return str(caught.value)


def test_a_name_belongs_to_one_file_while_that_is_there(bench: Bench, tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "lounge.yaml", tmp_path / "b" / "lounge.yaml"
    first.parent.mkdir()
    first.touch()
    bench.submit(request(1), name="Lounge", file=first)
    mine, other = plan(request(1), name="LOUNGE", file=first), plan(request(1), name="lounge", file=second)
    assert check_claim(bench.connection, mine).name == "Lounge", "as the folder is called"
    for allow_shrink in (False, True):
        with pytest.raises(JobError, match=f"belongs to {first}.*`name:`"):
            check_claim(bench.connection, other, allow_shrink=allow_shrink)
    bench.set("UPDATE request SET status = 'succeeded', received = 1")
    with pytest.raises(JobError, match=f"belongs to {first}.*`name:`"):
        check_claim(bench.connection, other)


def test_a_file_may_be_called_by_another_path(bench: Bench, tmp_path: Path) -> None:
    first = tmp_path / "a" / "lounge.yaml"
    first.parent.mkdir()
    first.touch()
    (tmp_path / "link").symlink_to(first.parent)
    bench.submit(request(1), name="lounge", file=first)
    for path in (tmp_path / "link" / "lounge.yaml", tmp_path / "a" / ".." / "a" / "lounge.yaml"):
        check_claim(bench.connection, plan(request(1), name="lounge", file=path))
    first.unlink()
    with pytest.raises(JobError, match="is not there any more"):
        check_claim(bench.connection, plan(request(2), name="lounge", file=tmp_path / "link" / "lounge.yaml"))


def test_what_a_plan_changes_is_counted_in_requests(bench: Bench) -> None:
    assert compare(bench.connection, stating(range(3))) == Claim(name="job", entering=3)
    bench.submit(request(90), request(91))
    bench.submit(*map(request, range(10)))
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE position < 4")
    bench.set("UPDATE request SET status = 'running' WHERE position = 4")
    bench.set("UPDATE request SET status = 'failed' WHERE position = 9")
    changed = compare(bench.connection, stating([0, 2, 4, 6, 8, 90, 100]))
    assert changed == Claim(name="job", stated=10, leaving=5, entering=2, unfinished=5, unfinished_leaving=2)


def words(bench: Bench, *requests: ImageRequest, usd: float | None = 0.005) -> tuple[list[str], list[str]]:
    """What is said of a plan of these requests, each of which costs so much: warnings and notes."""
    claim = compare(bench.connection, plan(*requests))
    warnings, notes = claim_words(claim, {request.key: usd for request in requests})
    return list(warnings), list(notes)


def leaving(number: str) -> str:
    return f"{number} the job: no longer made; images that are here stay"


def test_an_edited_request_is_a_note_with_what_it_costs(bench: Bench) -> None:
    bench.submit(request(0, id="p0"), request(1, id="p1"), request(2, id="p2"))
    kept = request(2, id="p2")
    assert words(bench, request(8, id="p0"), request(9, id="P1"), kept) == (
        [],
        ["2 requests are changed: made again ($0.01), the old images stay"],
    )
    assert words(bench, request(8, id="p0"), request(1, id="p1"), kept, usd=None) == (
        [],
        ["1 request is changed: made again, the old images stay"],
    )
    changed = "1 request is changed: made again ($0.005), the old images stay"
    assert words(bench, request(8, id="p0"), kept) == ([leaving("1 request leaves")], [changed])
    assert words(bench, request(2, id="p0")) == ([leaving("2 requests leave")], []), "p2 is called p0 now"
    bench.set("UPDATE request SET received = n, status = 'succeeded'")
    bench.submit(request(8, id="p0"), request(1, id="p1"), kept)
    assert words(bench, request(0, id="p0"), request(1, id="p1"), kept) == ([], []), "what was made before is back"


def test_only_what_leaves_with_nothing_in_its_place_is_a_warning(bench: Bench) -> None:
    bench.submit(*map(request, range(2000)))
    assert words(bench, *map(request, range(2000))) == ([], [])
    assert words(bench, *map(request, range(1, 2000))) == ([leaving("1 request leaves")], [])
    assert words(bench, *map(request, range(1037, 2000))) == ([leaving("1,037 requests leave")], [])
    assert words(bench, *map(request, range(2, 2001))) == ([leaving("2 requests leave")], []), "one enters for two"
    assert words(bench, *map(request, range(2, 2002))) == ([], [leaving("2 requests leave")])


@pytest.mark.parametrize(
    ("before", "then", "is_refused"),
    [
        (range(40), range(3), True),
        (range(40), range(20), False),  # half
        (range(40), range(19), True),
        (range(10), [], True),
        (range(9), [], False),  # too few for a word
        (range(40), range(100, 140), False),  # all are changed, and none is lost
        (range(40), [*range(3), *range(100, 120)], False),
        (range(40), [*range(3), *range(100, 110)], True),
        (range(40), range(3, 400), False),
    ],
)
def test_a_job_that_would_lose_most_of_its_queue_is_refused(
    bench: Bench, before: Iterable[int], then: Iterable[int], is_refused: bool
) -> None:
    bench.submit(*map(request, before))
    claiming = stating(then)
    assert check_claim(bench.connection, claiming, allow_shrink=True).stated == len(bench.statuses())
    if is_refused:
        leaving = len(set(before) - set(then))
        assert refusal(bench, claiming).startswith(
            f"job `job`: {leaving} of the {len(bench.statuses())} unfinished requests of `job` would leave the queue, "
            f"since only {len(claiming.requests)} are stated now; if that is intended, add --allow-shrink"
        )
    else:
        check_claim(bench.connection, claiming)


def test_what_has_ended_is_no_loss(bench: Bench) -> None:
    bench.submit(*map(request, range(40)))
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE position < 31")
    assert check_claim(bench.connection, stating([])).leaving == 40
    bench.set("UPDATE request SET status = 'running' WHERE position = 30")
    assert "10 of the 10 unfinished requests" in refusal(bench, stating([]))


def test_a_name_whose_file_is_gone_is_not_taken_over_while_its_requests_are_unfinished(
    bench: Bench, tmp_path: Path
) -> None:
    mine, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    bench.submit(*map(request, range(4)), file=mine)
    said = refusal(bench, stating(range(100, 104), other))
    assert said.startswith(f"{other}: the name `job` belongs to {mine}, which is not there any more, and 4 of the 4 ")
    for way in ("with `name:`", "put that file back", "--allow-shrink"):
        assert way in said
    assert "2 of the 4" in refusal(bench, stating([0, 1, 100, 101], other))
    assert check_claim(bench.connection, stating(range(100, 104), other), allow_shrink=True).leaving == 4
    bench.set("UPDATE request SET status = 'succeeded', received = 1")
    assert check_claim(bench.connection, stating(range(100, 104), other)).leaving == 4


def test_a_file_that_was_moved_or_renamed_keeps_its_name(bench: Bench, tmp_path: Path) -> None:
    bench.submit(*map(request, range(4)), file=tmp_path / "a.yaml")
    for then in (range(4), range(3), [0, 1, 2, 99], range(50)):
        assert check_claim(bench.connection, stating(then, tmp_path / "b.yaml")).name == "job"
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE position < 3")
    assert check_claim(bench.connection, stating(range(3), tmp_path / "b.yaml")).name == "job", "most have ended"


def test_a_moved_file_may_not_lose_most_of_the_queue_either(bench: Bench, tmp_path: Path) -> None:
    bench.submit(*map(request, range(100)), file=tmp_path / "a.yaml")
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE position < 60")
    assert "40 of the 40 unfinished requests" in refusal(bench, stating(range(60), tmp_path / "b.yaml"))


def test_a_job_made_in_python_has_no_file(bench: Bench, tmp_path: Path) -> None:
    bench.submit(request(1))
    assert check_claim(bench.connection, stating([2], tmp_path / "b.yaml")).leaving == 1
    assert check_claim(bench.connection, stating([2])).leaving == 1


def test_a_part_of_a_job_takes_nothing_out_of_it(bench: Bench) -> None:
    bench.submit(*map(request, range(40)))
    part = dataclasses.replace(stating([0, 1, 99]), is_part=True)
    claim = check_claim(bench.connection, part)
    assert (claim.leaving, claim.unfinished_leaving, claim.entering, claim.part_of) == (0, 0, 1, 38)
    submit.submit(bench.connection, part)
    assert len(bench.statuses()) == 41
    assert bench.one("SELECT count(*) FROM request r JOIN job j ON j.pk = r.job WHERE stated < revision") == 0


def test_a_part_takes_over_the_name_of_a_lost_file_only_if_it_states_mostly_the_same(
    bench: Bench, tmp_path: Path
) -> None:
    bench.submit(*map(request, range(4)), file=tmp_path / "a.yaml")
    for numbers, is_same in (([0, 1], True), ([0, 1, 99], True), ([0, 98, 99], False)):
        part = dataclasses.replace(stating(numbers, tmp_path / "b.yaml"), is_part=True)
        if is_same:
            check_claim(bench.connection, part)
        else:
            assert "which is not there any more" in refusal(bench, part)


def test_what_is_known_is_counted_as_made_queued_or_ended(bench: Bench) -> None:
    bench.submit(request(8))
    bench.submit(*map(request, range(4)))
    bench.set("UPDATE request SET status = 'succeeded', received = 1 WHERE prompt IN ('prompt 0', 'prompt 8')")
    bench.set("UPDATE request SET status = 'failed' WHERE prompt = 'prompt 1'")
    claim = compare(bench.connection, stating([0, 1, 2, 8, 9]))
    assert (claim.known, claim.made, claim.queued) == (4, 2, 1)

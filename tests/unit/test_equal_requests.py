"""A copied or renamed job file is noticed before it pays for everything again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.ledger import equal_requests
from pipeline.ledger.equal_requests import equal_requests_warning, find_equal_requests
from pipeline.reports.estimate import estimate_plan
from tests.support.workbench import models, plan, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench


@pytest.fixture
def four(bench: Bench, tmp_path: Path) -> Path:
    """The file of job `four`, all of whose requests are made."""
    file = tmp_path / "four.yaml"
    bench.submit(*map(request, range(4)), name="four", file=file)
    bench.set("UPDATE request SET status = 'succeeded', received = 1")
    return file


def test_after_a_copy_the_line_that_keeps_them_is_said(bench: Bench, four: Path) -> None:
    copy = plan(*map(request, range(4)), name="copy", file=four.with_name("copy.yaml"))
    said = "4 of 4 requests are already made in job `four`, and would be paid again; put `name: four` into the file to"
    assert equal_requests_warning(bench.connection, copy) == (f"{said} keep them, or type `pipeline rename four copy`")
    four.touch()
    assert equal_requests_warning(bench.connection, copy) == (
        f"{said} keep them, and remove {four}, to which that name belongs"
    )
    view = estimate_plan(bench.folder, copy, models())
    assert view["warnings"] == [equal_requests_warning(bench.connection, copy)]


def test_a_batch_file_which_has_no_name_of_its_own_is_to_be_renamed(bench: Bench, four: Path) -> None:
    copy = plan(*map(request, range(4)), name="copy", file=four.with_name("copy.jsonl"))
    said = equal_requests_warning(bench.connection, copy)
    assert said is not None
    assert said.endswith("; rename the file to four.jsonl to keep them, or type `pipeline rename four copy`")
    four.touch()
    said = equal_requests_warning(bench.connection, copy)
    assert said is not None
    assert said.endswith(f"; use {four} in its place to keep them")


@pytest.mark.usefixtures("four")
def test_a_rehearsal_under_the_job_s_own_provider_is_told_to_leave_it_out(bench: Bench) -> None:
    said = equal_requests_warning(bench.connection, plan(*map(request, range(4)), name="four.lab"))
    assert said is not None
    assert said.endswith("leave out `--provider lab` to keep them")


@pytest.mark.parametrize(
    ("numbers", "made", "queued"),
    [(range(4), 4, 0), (range(2, 6), 2, 0), (range(3, 9), None, 0), (range(4, 6), 0, 2), (range(7, 9), None, 0)],
)
@pytest.mark.usefixtures("four")
def test_half_of_the_requests_are_enough_made_or_queued(
    bench: Bench, numbers: range, made: int | None, queued: int
) -> None:
    bench.submit(*map(request, [4, 5]), name="five")
    bench.submit(request(7), request(8), name="left")
    bench.submit(request(9), name="left")
    found = find_equal_requests(bench.connection, plan(*map(request, numbers), name="new"))
    assert (found and (found.made, found.queued)) == (None if made is None else (made, queued))


@pytest.mark.usefixtures("four")
def test_a_job_that_has_made_them_itself_is_not_warned(bench: Bench) -> None:
    bench.submit(*map(request, range(4)), name="copy")
    copy = plan(*map(request, range(4)), name="copy")
    assert equal_requests_warning(bench.connection, copy) is not None
    bench.set("UPDATE request SET status = 'succeeded', received = 1")
    assert equal_requests_warning(bench.connection, copy) is None


def test_a_long_plan_looks_up_a_sample_and_counts_what_it_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_requests, "SAMPLE", 3)
    bench.submit(*map(request, range(30)), name="long")
    bench.set("UPDATE request SET received = 1 WHERE position < 29")
    found = find_equal_requests(bench.connection, plan(*map(request, range(30)), name="again"))
    assert found is not None
    assert (found.made, found.queued) == (29, 1)

"""A view on a terminal: what a person reads at 40, 80 and 120 columns."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.text import Text

from pipeline.ledger.batch_queries import RecordedBatch
from pipeline.progress.screen import DONE, FAILED, LEFT, draw
from pipeline.progress.view import View
from tests.unit.test_plain import LAB, LOUNGE, NOW, view


def drawn(seen: View, width: int, height: int = 24) -> list[str]:
    """Return the lines of a drawn view."""
    return draw(seen, width, height).plain.splitlines()


def test_eighty_columns_hold_a_bar_for_each_job_and_all_facts() -> None:
    birds = replace(LOUNGE, name="birds", done=9, failed=0, left=0, missing=0)
    first, second, *rest = drawn(view(LOUNGE, birds), 80)
    assert first.startswith("lounge ━")
    assert first.endswith("  612 done  3 failed  1,017 left")
    assert second.endswith("    9 done                      ")
    assert rest == [
        "lab  48.3 of 50 images a minute · 67 calls in flight · waiting for the limit",
        "all 2 jobs · 621 done · 3 failed · 1,017 left · $19.58 of about $52.12",
        "  done about Mon 06:05",
    ]


def test_a_wide_terminal_says_each_job_s_cost_and_end() -> None:
    lines = drawn(view(), 120)
    assert len(lines) == 2
    assert lines[0].endswith("1,017 left  $9.79 of about $26.06 · done about Mon 06:05")


def test_forty_columns_hold_everything_below_one_another() -> None:
    long = replace(LOUNGE, name="the-birds-of-the-northern-night")
    lines = drawn(view(LOUNGE, long), 40)
    assert max(map(len, lines)) <= 40
    assert lines[:2] == [f"lounge     {'━' * 10}{FAILED}{'─' * 18}", "  612 done · 3 failed · 1,017 left"]
    assert lines[2].startswith("the-birds… ━")
    assert "done about Mon 06:05" in lines[-1]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("name", ["a", "lounge", "the-birds-of-the-northern-night-and-more"])
def test_at_every_width_everything_is_there_and_no_word_is_cut(name: str, jobs: int) -> None:
    one = replace(LOUNGE, name=name)
    seen = view(one, *[LOUNGE] * (jobs - 1))
    for width in range(40, 201):
        lines = drawn(seen, width)
        words = " ".join(line.strip() for line in lines)
        for fact in ("612 done", "3 failed", "left", "of about $", "done about Mon 06:05", "67 calls in flight"):
            assert fact in words, (width, fact, lines)
        assert max(map(len, lines)) <= width, (width, lines)


@pytest.mark.parametrize("width", [1, 5, 20, 40, 79, 80, 100, 300])
@pytest.mark.parametrize("jobs", [0, 1, 3, 300])
def test_any_terminal_and_any_number_of_jobs_can_be_drawn(width: int, jobs: int) -> None:
    seen = view(*(replace(LOUNGE, name=f"a-job-with-a-name-{k}" * (1 + k % 3)) for k in range(jobs)))
    assert len(drawn(replace(seen, jobs=seen.jobs if jobs else ()), width)) >= 1


def test_of_hundreds_of_jobs_those_at_work_are_drawn_and_the_rest_is_counted() -> None:
    ended = [replace(LOUNGE, name=f"old-{k}", left=0, missing=0) for k in range(100)]
    working = [replace(LOUNGE, name=f"new-{k}") for k in range(200)]
    lines = drawn(view(*ended, *working), 80, height=24)
    assert len(lines) <= 20
    assert lines[0].startswith("new-0")
    assert "288 more jobs · 100 ended · 191,196 left" in lines
    assert len(drawn(view(*ended, *working), 80, height=10)) <= 9


def _bar(done: int, failed: int, left: int) -> str:
    line = drawn(view(replace(LOUNGE, done=done, failed=failed, left=left, missing=left)), 80)[0]
    return "".join(mark for mark in line if mark in DONE + FAILED + LEFT)


def test_a_bar_shows_every_part_that_there_is_and_is_full_only_at_the_end() -> None:
    assert FAILED in _bar(100_000, 1, 0)
    assert LEFT in _bar(100_000, 0, 1)
    assert LEFT in _bar(100_000, 50_000, 1)
    assert set(_bar(1, 0, 0)) == {DONE}
    assert set(_bar(0, 0, 10)) == {LEFT}
    assert set(_bar(0, 7, 0)) == {FAILED}
    assert _bar(1, 0, 1).count(DONE) == pytest.approx(len(_bar(1, 0, 1)) / 2, abs=1)


def test_what_binds_stands_out_and_a_stop_is_said() -> None:
    text = draw(view(stopping=True), 80, 24)
    assert "stopping: calls in flight finish" in text.plain
    bold = {text.plain[span.start : span.end] for span in text.spans if span.style == "bold"}
    assert {"lab", "waiting for the limit"} <= bold
    assert isinstance(text, Text)


def test_two_providers_have_a_line_each() -> None:
    seen = View(NOW, (LOUNGE,), (LAB, replace(LAB, name="other", bottleneck="provider")), stopping=False)
    assert [line.split()[0] for line in drawn(seen, 80)[1:3]] == ["lab", "other"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_what_is_in_batches_has_a_column_of_its_own(width: int) -> None:
    batch = RecordedBatch("batch_1", "lab", None, "in_progress", 1200, 840, 0, NOW, NOW + 86_400, None)
    seen = view(replace(LOUNGE, batches=(batch,)), replace(LOUNGE, name="birds"))
    words = " ".join(line.strip() for line in drawn(seen, width))
    assert words.count("in batch 840/1,200") == 2, "of the job, and of all"
    assert max(map(len, drawn(seen, width))) <= width

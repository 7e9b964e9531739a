"""What a job would do: requests, images, minutes and dollars of what is missing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pipeline.config.load import RateLimit
from pipeline.reports.estimate import estimate_lines, estimate_plan
from tests.support.workbench import LAB, models, plan, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

LIMITED = dataclasses.replace(LAB, rate_limit=RateLimit(50, 60))


def test_of_a_job_that_nobody_has_submitted_all_is_missing_and_no_folder_is_made(tmp_path: Path) -> None:
    made = plan(request(1, n=60), request(2, n=40), provider=LIMITED)
    view = estimate_plan(tmp_path / "outputs", made, models())
    assert (view["requests"], view["images"], view["missing"]) == (2, 100, {"requests": 2, "images": 100})
    assert (view["minutes"], view["cost_usd"]) == (2.0, pytest.approx(1.6))
    assert not (tmp_path / "outputs").exists()


def test_what_is_here_or_paid_is_not_missing(bench: Bench) -> None:
    bench.submit(request(1, n=4), request(2))
    bench.set("UPDATE request SET received = 1")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 1)")
    bench.set("INSERT INTO image (request, attempt, job, number, state, url) VALUES (1, 1, 1, 2, 'paid', 'http://x')")
    view = estimate_plan(bench.folder, plan(request(1, n=4), request(2), provider=LIMITED), models())
    assert view["missing"] == {"requests": 1, "images": 2}
    assert (view["minutes"], view["cost_usd"]) == (0.04, pytest.approx(0.032))


def test_without_a_limit_the_minutes_are_unknown_and_without_a_price_the_cost(tmp_path: Path) -> None:
    view = estimate_plan(tmp_path, plan(request(1), request(2, model="new-model")), models())
    assert (view["minutes"], view["cost_usd"]) == (None, None)
    assert "cost: unknown" in "\n".join(estimate_lines(view))


def test_people_read_the_same_and_that_a_rehearsal_bills_nothing(tmp_path: Path) -> None:
    made = dataclasses.replace(
        plan(request(1), provider=dataclasses.replace(LIMITED, sandbox={})), warnings=("mind the gap",)
    )
    lines = list(estimate_lines(estimate_plan(tmp_path, made, models())))
    assert lines[0] == "job at provider `lab`: 1 requests for 1 images"
    assert "a rehearsal: nothing is billed" in "\n".join(lines)
    assert lines[-1] == "  warning: mind the gap"

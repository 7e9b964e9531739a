"""What a job would do: requests, images, minutes and dollars of what is missing."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.load import RateLimit
from pipeline.planning.input_files import InputFile
from pipeline.reports.estimate import estimate_lines, estimate_plan
from pipeline.reports.facts import duration, rate
from tests.support.workbench import LAB, models, plan, request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.workbench import Bench

LIMITED = dataclasses.replace(LAB, rate_limit=RateLimit(50, 60))


def test_of_a_job_that_nobody_has_submitted_all_is_missing_and_no_folder_is_made(tmp_path: Path) -> None:
    made = plan(request(1, n=60), request(2, n=40), provider=LIMITED)
    view: Any = estimate_plan(tmp_path / "outputs", made, models())
    assert (view["requests"], view["images"], view["missing"]) == (2, 100, {"requests": 2, "images": 100})
    assert (view["minutes"], view["cost_usd"]) == (2.0, pytest.approx(1.6))
    assert not (tmp_path / "outputs").exists()


def test_what_is_here_or_paid_is_not_missing(bench: Bench) -> None:
    bench.submit(request(1, n=4), request(2))
    bench.set("UPDATE request SET received = 1")
    bench.set("INSERT INTO attempt (request, provider, n, sent_at) VALUES (1, 'lab', 1, 1)")
    bench.set("INSERT INTO image (request, attempt, job, number, state, url) VALUES (1, 1, 1, 2, 'paid', 'http://x')")
    view: Any = estimate_plan(bench.folder, plan(request(1, n=4), request(2), provider=LIMITED), models())
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
    assert lines[0] == "job at provider `lab`: 1 request for 1 image"
    assert "a rehearsal: nothing is billed" in "\n".join(lines)
    assert lines[-1] == "  warning: mind the gap"


def test_the_first_requests_are_shown_as_they_will_be_asked_and_the_last_one_s_id(tmp_path: Path) -> None:
    long = "a lighthouse " * 20
    made = plan(request(1, n=2), dataclasses.replace(request(2), prompt=long), request(3), request(4), provider=LIMITED)
    view = estimate_plan(tmp_path, made, models())
    assert [one["id"] for one in view["first"]] == [one.id for one in made.requests[:3]]
    assert (view["first"][1]["prompt"], view["last_id"]) == (long, made.requests[3].id)
    lines = list(estimate_lines(view))
    assert lines[1] == f"  1. {made.requests[0].id}: generation, dall-e-2, 256x256, 2 images"
    assert lines[2] == "     prompt 1"
    assert re.fullmatch(r" {5}(a lighthouse )+a …", lines[4]), "cut at a word"
    assert max(map(len, lines)) <= 106
    assert lines[7] == f"  … 4. {made.requests[3].id}"


def test_a_size_that_is_no_text_is_shown_too(tmp_path: Path) -> None:
    asked = request(1, model="mine")
    made = plan(dataclasses.replace(asked, params={**asked.params, "size": 512}))
    assert ": generation, mine, 512, 1 image" in list(estimate_lines(estimate_plan(tmp_path, made, models())))[1]


def test_a_prompt_without_spaces_is_shown_too_and_an_edit_with_its_image(tmp_path: Path) -> None:
    source = InputFile("image", "lounge.png", "inputs/a.png", "a" * 64, "image/png", 8, 8)
    made = plan(dataclasses.replace(request(1), prompt="x" * 500, operation="edit", inputs=(source,)))
    lines = list(estimate_lines(estimate_plan(tmp_path, made, models())))
    assert lines[1].endswith(": edit, dall-e-2, 256x256, 1 image of lounge.png")
    assert lines[2] == f"     {'x' * 99}…"


def test_requests_that_share_parameters_cost_together_what_each_costs_alone(tmp_path: Path) -> None:
    first = request(1, model="gpt-image-2", size="1024x1024", quality="low")
    image = InputFile("image", "a.png", "inputs/a.png", "a" * 64, "image/png", 8, 8)
    others: tuple[dict[str, Any], ...] = (
        {"n": 3},
        {"prompt": "word " * 50},
        {"served_by": "edit", "inputs": (image,)},
        {"served_by": "edit", "inputs": (image, image)},
    )
    alike = [dataclasses.replace(first, key=str(number), **one) for number, one in enumerate(({}, *others))]
    alone = [estimate_plan(tmp_path, plan(one), models()) for one in alike]
    together = estimate_plan(tmp_path, plan(*alike), models())
    assert len({one["cost_usd"] for one in alone}) == len(alone)
    assert together["cost_usd"] == pytest.approx(sum(one["cost_usd"] or 0.0 for one in alone))
    assert together["assumed"] == list(dict.fromkeys(line for one in alone for line in one["assumed"]))


def test_numbers_are_written_as_people_write_them(tmp_path: Path) -> None:
    made = plan(*(request(number, n=10) for number in range(10_000)), provider=LIMITED)
    said = "\n".join(estimate_lines(estimate_plan(tmp_path, made, models())))
    assert "10,000 requests for 100,000 images" in said
    assert "  time: 33 h 20 min at the limit" in said
    assert "  cost: $1,600.00" in said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "2 min"),
        (3600, "1 h"),
        (120_000, "33 h 20 min"),
        (172_800, "2 days"),
        (180_000, "2 days 2 h"),
    ],
)
def test_a_duration_is_in_the_units_of_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_rate_has_a_decimal_only_if_that_helps() -> None:
    assert [rate(48.26), rate(50.0), rate(1328.6), rate(1_000_000.0)] == ["48.3", "50", "1,329", "1,000,000"]

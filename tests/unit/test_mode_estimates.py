"""What the missing requests cost and how long they take: in realtime, by batch, and as the plan has chosen."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.batch_rules import BatchRules
from pipeline.config.load import RateLimit
from pipeline.config.opening_hours import DailySpan, OpeningHours
from pipeline.models.batch_deadline import is_late, realtime_seconds
from pipeline.planning.input_files import InputFile
from pipeline.reports.estimate import estimate_lines, estimate_plan
from pipeline.reports.status import mode_line
from tests.support.workbench import LAB, models, plan, request

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.provider import Provider
    from pipeline.planning.plan import ImageRequest, Plan
    from tests.support.workbench import Bench

LIMITED = dataclasses.replace(LAB, rate_limit=RateLimit(50, 60), batch=BatchRules())
GPT: dict[str, Any] = {"model": "gpt-image-2", "size": "1024x1024", "quality": "low"}


def cats(count: int, **params: Any) -> list[ImageRequest]:
    return [request(number, **{**GPT, **params}) for number in range(count)]


def made(requests: list[ImageRequest], mode: Any = "realtime", deadline: float | None = None, **rules: Any) -> Plan:
    provider = dataclasses.replace(LIMITED, batch=BatchRules(**rules))
    return dataclasses.replace(plan(*requests, provider=provider), mode=mode, deadline=deadline)


def viewed(folder: Path, made: Plan, budget: float | None = None) -> Any:
    view = estimate_plan(folder, made, models(), budget)
    assert json.loads(json.dumps(view)) == view
    return view


def text(view: Any) -> str:
    return "\n".join(estimate_lines(view))


def test_both_modes_are_shown_and_the_chosen_one_is_on_top(tmp_path: Path) -> None:
    views = {mode: viewed(tmp_path, made(cats(250), mode)) for mode in ("realtime", "batch", "auto")}
    modes = views["realtime"]["modes"]
    assert modes["realtime"]["minutes"] == 5.0
    assert modes["batch"] == {
        "cost_usd": pytest.approx(modes["realtime"]["cost_usd"] / 2),
        "minutes": 1440.0,
        "batches": 3,
        "ineligible": 0,
    }
    assert all(view["modes"] == modes for view in views.values())
    for mode, shown in (("realtime", "realtime"), ("batch", "batch"), ("auto", "batch")):
        top = {key: views[mode][key] for key in ("cost_usd", "minutes")}
        assert top == {key: modes[shown][key] for key in ("cost_usd", "minutes")}
        assert (views[mode]["mode"], views[mode]["in_force"]) == (mode, shown)


def test_people_read_both_prices_and_both_durations(tmp_path: Path) -> None:
    lines = text(viewed(tmp_path, made(cats(250), "batch"))).splitlines()
    assert "  time: within 24 h" in lines
    assert "  cost: $0.7369" in lines
    assert "  realtime: $1.47, about 5 min; by batch: $0.7369, within 24 h, in 3 batches" in lines
    assert "  time: 5 min at the limit" in text(viewed(tmp_path, made(cats(250))))


def test_the_discount_is_the_provider_s_and_the_budget_is_compared_with_the_chosen_price(tmp_path: Path) -> None:
    full = viewed(tmp_path, made(cats(10)))["cost_usd"]
    third = viewed(tmp_path, made(cats(10), "batch", discount=0.3))
    assert third["cost_usd"] == pytest.approx(full * 0.7)
    budget = full / 2 + 1e-6
    assert viewed(tmp_path, made(cats(10)), budget)["budget_requests"] == 5
    assert viewed(tmp_path, made(cats(10), "batch"), budget)["budget_requests"] == 10


@pytest.mark.parametrize(
    ("rules", "batches"),
    [
        ({"most_images": 7}, 3),
        ({"most_requests": 4}, 5),
        ({"most_output_bytes": 6_000_000}, 10),
        ({"most_bytes": 2_400}, 4),
        ({"enqueued_tokens": 25}, 4),
    ],
)
def test_the_bounds_of_the_provider_decide_the_number_of_batches(
    tmp_path: Path, rules: dict[str, int], batches: int
) -> None:
    assert viewed(tmp_path, made(cats(20), "batch", **rules))["modes"]["batch"]["batches"] == batches


def test_each_request_weighs_what_its_own_parameters_make(tmp_path: Path) -> None:
    requests = [*cats(10), *(request(number, **GPT, output_format="jpeg") for number in range(10, 20))]
    assert viewed(tmp_path, made(requests, "batch", most_output_bytes=6_000_000))["modes"]["batch"]["batches"] == 7


def test_a_full_queue_makes_waves_and_each_may_take_a_day(tmp_path: Path) -> None:
    view = viewed(tmp_path, made(cats(20), "batch", most_requests=5, enqueued_tokens=40))
    assert (view["modes"]["batch"]["batches"], view["minutes"]) == (4, 2 * 1440.0)
    other = [*cats(10), *cats(10, model="gpt-image-2.5-flare")]
    distinct = [dataclasses.replace(one, key=str(number)) for number, one in enumerate(other)]
    view = viewed(tmp_path, made(distinct, "batch", most_requests=5, enqueued_tokens=40))
    assert (view["modes"]["batch"]["batches"], view["minutes"]) == (4, 1440.0), "each model has a queue of its own"


def test_endpoints_have_batches_of_their_own_and_edits_weigh_their_images(tmp_path: Path) -> None:
    one = InputFile("image", "a.png", "inputs/a.png", "a" * 64, "image/png", 1024, 1024)
    mask = dataclasses.replace(one, role="mask")
    edits = [dataclasses.replace(cat, served_by="edit", inputs=(one, mask)) for cat in cats(10)]
    assert viewed(tmp_path, made([*edits[:5], *cats(10)[5:]], "batch"))["modes"]["batch"]["batches"] == 2
    assert viewed(tmp_path, made(edits, "batch", enqueued_tokens=8000))["modes"]["batch"]["batches"] == 4


def test_what_is_here_takes_no_batch(bench: Bench) -> None:
    requests = [request(1, n=4, **GPT), request(2, **GPT)]
    bench.submit(*requests)
    bench.set("UPDATE request SET received = n WHERE n = 1")
    bench.set("UPDATE request SET received = 1 WHERE n = 4")
    view = viewed(bench.folder, made(requests, "batch", most_images=3))
    assert (view["missing"]["images"], view["modes"]["batch"]["batches"]) == (3, 1)
    bench.set("UPDATE request SET received = n")
    view = viewed(bench.folder, made(requests, "batch"))
    assert view["modes"]["batch"] == {"cost_usd": 0.0, "minutes": 0.0, "batches": 0, "ineligible": 0}


def test_what_is_made_in_realtime_counts_at_its_full_price(tmp_path: Path) -> None:
    old = request(99)  # DALL-E 2
    view = viewed(tmp_path, made([*cats(10), old], "auto"))
    whole, batch = view["modes"]["realtime"]["cost_usd"], view["modes"]["batch"]
    assert (batch["ineligible"], batch["cost_usd"]) == (1, pytest.approx((whole - 0.016) / 2 + 0.016))
    assert "in 1 batch; 1 request cannot go by batch" in text(view)


def test_what_takes_longer_in_realtime_than_a_batch_may_decides_the_time(tmp_path: Path) -> None:
    old = dataclasses.replace(request(99), n=50 * 60 * 30)
    assert viewed(tmp_path, made([*cats(1), old], "auto"))["minutes"] == 1800.0


@pytest.mark.parametrize("provider", [LAB, LIMITED], ids=["without a Batch API", "with"])
def test_a_job_that_cannot_go_by_batch_shows_one_price(tmp_path: Path, provider: Provider) -> None:
    view = viewed(tmp_path, dataclasses.replace(plan(request(1), provider=provider), mode="auto"))
    assert view["modes"]["batch"] == {"cost_usd": None, "minutes": None, "batches": 0, "ineligible": 1}
    assert (view["in_force"], view["cost_usd"]) == ("realtime", 0.016)
    assert "by batch" not in text(view)


def test_an_unknown_price_is_unknown_in_both_modes(tmp_path: Path) -> None:
    view = viewed(tmp_path, made([request(1, model="flux")], "batch"))
    assert (view["cost_usd"], view["modes"]["batch"]["cost_usd"]) == (None, None)
    assert "realtime: cost unknown, about 1 s; by batch: cost unknown, within 24 h, in 1 batch" in text(view)


# --- Deadlines


def auto(count: int, hours: float) -> Plan:
    return made(cats(count), "auto", time.time() + hours * 3600)


def test_a_deadline_far_away_leaves_time_for_batches(tmp_path: Path) -> None:
    view = viewed(tmp_path, auto(3000, 9))  # an hour in realtime, and ten minutes to cancel
    assert (view["in_force"], view["warnings"]) == ("batch", [])
    assert view["deadline"].endswith("+00:00")


def test_a_deadline_that_is_too_near_for_batches_is_said(tmp_path: Path) -> None:
    view = viewed(tmp_path, auto(3000, 1.2))
    assert (view["in_force"], view["cost_usd"]) == ("realtime", view["modes"]["realtime"]["cost_usd"])
    (warning,) = view["warnings"]
    assert warning.endswith(", is too near for batches: all is made in realtime")


def test_a_deadline_that_cannot_be_met_at_all_is_said_with_how_long_it_takes(tmp_path: Path) -> None:
    view = viewed(tmp_path, auto(3000, 0.9))
    (warning,) = view["warnings"]
    assert warning.startswith("the deadline, ")
    assert warning.endswith(", cannot be met: 3,000 images take 1 h in realtime")


def test_a_deadline_that_has_passed_means_realtime(tmp_path: Path) -> None:
    view = viewed(tmp_path, auto(10, -1))
    assert (view["in_force"], view["warnings"]) == ("realtime", [])  # the plan itself has the warning


def test_nothing_that_is_missing_misses_no_deadline(bench: Bench) -> None:
    bench.submit(*cats(1))
    bench.set("UPDATE request SET received = n")
    assert viewed(bench.folder, auto(1, 0.0001))["warnings"] == []


def test_batches_are_given_up_so_early_that_the_rest_can_be_made() -> None:
    assert realtime_seconds(3000, LIMITED) == 3600
    switch = 100_000 - 1.1 * 3600 - 600
    assert not is_late(switch - 1, 100_000, 3000, LIMITED, BatchRules())
    assert is_late(switch + 1, 100_000, 3000, LIMITED, BatchRules())
    unlimited = dataclasses.replace(LIMITED, rate_limit=None, concurrency=32)
    assert [realtime_seconds(count, unlimited) for count in (0, 1, 32, 33)] == [0, 60, 60, 120]
    assert realtime_seconds(33, unlimited, call_seconds=5) == 10


@pytest.mark.parametrize(
    ("hour", "deadline", "late"),
    [
        (1.0, 7.0, False),  # the window is still to come
        (3.0, 7.0, False),  # two open hours are left, and an hour and 16 minutes are needed
        (3.7, 7.0, False),
        (3.8, 7.0, True),  # the hours after the window do not count
        (6.0, 7.0, False),  # nothing can be made in realtime any more: batches are the only hope
        (7.0, 7.0, True),
        (6.0, 28.0, False),  # of the next window there is only an hour before the deadline, and no call until it opens
        (26.8, 28.0, False),
        (26.9, 28.0, True),  # ten minutes are for the cancelling
        (27.1, 28.0, True),
    ],
)
def test_the_hours_outside_the_window_do_not_count_for_a_deadline(hour: float, deadline: float, late: bool) -> None:
    provider = dataclasses.replace(LIMITED, window=OpeningHours((DailySpan(180, 300, "UTC"),)))
    assert is_late(hour * 3600, deadline * 3600, 3000, provider, BatchRules()) == late


# --- The line of `run` and `submit`


def test_that_a_job_goes_by_batch_is_said_in_one_line() -> None:
    now = time.time()
    assert mode_line(made(cats(1)), now) is None
    said = "job: goes by batch, at 50 % of the price; a batch ends within 24 h"
    assert mode_line(made(cats(1), "batch"), now) == mode_line(made(cats(1), "auto"), now) == said
    until = mode_line(made(cats(1), "auto", now + 3600), now) or ""
    assert until.startswith("job: goes by batch, at 50 % of the price; what is late for the deadline, ")
    assert mode_line(made(cats(1), "auto", now - 1), now) is None
    assert mode_line(dataclasses.replace(plan(*cats(1), provider=LAB), mode="auto"), now) is None

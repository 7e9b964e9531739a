"""How a job is served: its file's mode and deadline, the options over them, and what cannot go by batch."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.batch_rules import BatchRules
from pipeline.config.load import Config, Provider
from pipeline.errors import BadInput, ConfigError
from pipeline.planning.build import JobOptions, make_plans
from pipeline.planning.python_job import make_job

if TYPE_CHECKING:
    from pipeline.planning.plan import Plan

ROOT = Path(__file__).parents[2]
OPENAI = Provider("openai", "https://api.openai.com/v1", batch=BatchRules())
LAB = Provider("lab", "http://127.0.0.1:9/v1")
SANDBOX = Provider("sandbox", None, sandbox={}, batch=BatchRules())
CONFIG = Config(None, Path("outputs"), "openai", {one.name: one for one in (OPENAI, LAB, SANDBOX)})
CAT = "requests:\n  - {prompt: a cat, model: gpt-image-2}\n"
OLD = "requests:\n  - {prompt: a cat, model: dall-e-2}\n"
CORGI = ROOT / "jobs" / "images" / "corgi_and_cat_paw.png"
VARIATION = f"requests:\n  - {{id: v, operation: variation, image: {CORGI}, model: MODEL}}\n"


def planned(folder: Path, text: str, /, **options: Any) -> Plan:
    path = folder / "night.yaml"
    path.write_text(text)
    (plan,) = make_plans(CONFIG, [path], JobOptions(**options))
    return plan


def refusal(folder: Path, text: str, /, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        planned(folder, text, **options)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def moment(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")


def test_a_job_is_made_in_realtime_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert (planned(tmp_path, CAT).mode, planned(tmp_path, CAT).deadline) == ("realtime", None)
    assert planned(tmp_path, f"mode: batch\n{CAT}").mode == "batch"


def test_a_deadline_is_fixed_as_a_moment(tmp_path: Path) -> None:
    plan = planned(tmp_path, f'mode: auto\ndeadline: "07:00"\n{CAT}')
    assert plan.deadline is not None
    assert time.localtime(plan.deadline)[3:5] == (7, 0)
    assert time.time() < plan.deadline <= time.time() + 25 * 3600


@pytest.mark.parametrize(
    ("head", "options", "expected"),
    [
        ("", {"mode": "batch"}, ("batch", False)),
        ("mode: batch\n", {"mode": "realtime"}, ("realtime", False)),
        ("mode: auto\ndeadline: '07:00'\n", {"mode": "batch"}, ("batch", False)),
        ("mode: auto\ndeadline: '07:00'\n", {"mode": "auto"}, ("auto", True)),
        ("mode: auto\n", {"deadline": "07:00"}, ("auto", True)),
        ("mode: batch\n", {"mode": "auto", "deadline": "07:00"}, ("auto", True)),
    ],
)
def test_an_option_replaces_what_the_file_says(
    tmp_path: Path, head: str, options: dict[str, str], expected: tuple[str, bool]
) -> None:
    plan = planned(tmp_path, f"{head}{CAT}", **options)
    assert (plan.mode, plan.deadline is not None) == expected


def test_a_deadline_that_is_an_option_replaces_that_of_the_file(tmp_path: Path) -> None:
    asked = moment(3)
    plan = planned(tmp_path, f"mode: auto\ndeadline: '07:00'\n{CAT}", deadline=asked)
    assert plan.deadline == datetime.fromisoformat(asked).timestamp()


@pytest.mark.parametrize(("head", "mode"), [("", "realtime"), ("mode: batch\n", "batch")])
def test_a_deadline_as_an_option_is_for_auto_only(tmp_path: Path, head: str, mode: str) -> None:
    said = f"night.yaml, line 1, mode: the mode is {mode}, and a deadline is for mode auto only; add --mode auto"
    assert refusal(tmp_path, f"{head}{CAT}", deadline="07:00") == [said]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode: must be one of realtime, batch, auto, not `fast`"),
        ({"deadline": "soon"}, "deadline: `soon` is no deadline"),
        ({"mode": "batch", "deadline": "07:00"}, "deadline: is for mode auto only, not for mode batch"),
        ({"mode": "auto", "deadline": 7}, "deadline: `7` is no deadline"),
    ],
)
def test_options_are_checked_when_they_are_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JobOptions(**options)


def test_the_mode_is_not_in_the_key(tmp_path: Path) -> None:
    keys = [planned(tmp_path, CAT, mode=mode).requests[0].key for mode in ("realtime", "batch", "auto")]
    assert len(set(keys)) == 1


def test_a_job_made_in_python_has_a_mode_too() -> None:
    cat = [{"prompt": "a cat", "model": "gpt-image-2"}]
    (plan,) = make_plans(CONFIG, [make_job("night", cat, mode="auto", deadline="07:00")], JobOptions())
    assert (plan.mode, plan.deadline is not None) == ("auto", True)
    with pytest.raises(BadInput, match=r"^job `night`, deadline: is for mode auto only"):
        make_plans(CONFIG, [make_job("night", cat, mode="batch", deadline="07:00")], JobOptions())


# --- What cannot go by batch


def test_with_batch_a_model_that_cannot_is_an_error_at_its_line(tmp_path: Path) -> None:
    said = "`dall-e-2` cannot go by batch; use gpt-image-2.6-flare, or write `mode: auto`, which makes it in realtime"
    assert refusal(tmp_path, f"mode: batch\n{OLD}") == [f"night.yaml, line 3, requests[0].model: {said}"]
    assert refusal(
        tmp_path, f"defaults: {{model: dall-e-2}}\n{CAT.replace(', model: gpt-image-2', '')}", mode="batch"
    ) == [f"night.yaml, line 1, defaults.model: {said}"]


def test_all_requests_that_cannot_are_named_beside_other_mistakes(tmp_path: Path) -> None:
    text = f"mode: batch\n{OLD}  - {{prompt: b, model: gpt-image-2, size: 17x17}}\n  - {{prompt: c, model: dall-e-3}}\n"
    assert [one.split(": ")[0] for one in refusal(tmp_path, text)] == [
        "night.yaml, line 3, requests[0].model",
        "night.yaml, line 4, requests[1].size",
        "night.yaml, line 5, requests[2].model",
    ]


def test_with_batch_a_variation_is_an_error_unless_it_is_served_as_an_edit(tmp_path: Path) -> None:
    (said,) = refusal(tmp_path, f"mode: batch\n{VARIATION.replace('MODEL', 'some-model')}")
    assert said.startswith("night.yaml, line 3, requests[0].operation: a variation cannot go by batch; write `mode")
    assert (
        planned(tmp_path, f"mode: batch\n{VARIATION.replace('MODEL', 'gpt-image-2')}").requests[0].served_by == "edit"
    )


def test_with_auto_they_are_named_and_made_in_realtime(tmp_path: Path) -> None:
    lines = "".join(f"  - {{id: r{number}, prompt: a, model: dall-e-3}}\n" for number in range(5))
    plan = planned(tmp_path, f"mode: auto\n{CAT}{lines}{VARIATION.partition(chr(10))[2].replace('MODEL', 'other')}")
    made = [one for one in plan.warnings if "realtime" in one]
    assert made == [
        "5 requests, such as `r0`, `r1`, `r2`, are made in realtime: `dall-e-3` cannot go by batch",
        "`v` is made in realtime: a variation cannot go by batch",
    ]


@pytest.mark.parametrize("mode", ["batch", "auto"])
def test_a_model_that_the_table_does_not_know_is_tried_with_a_warning(tmp_path: Path, mode: str) -> None:
    text = "requests:\n  - {prompt: a, model: flux}\n  - {prompt: b}\n"
    tried = "whether the Batch API takes it is not known, and it is tried"
    warnings = [one for one in planned(tmp_path, text, mode=mode).warnings if "tried" in one]
    assert warnings == [f"model `flux` is not in the table: {tried}", f"no model is named: {tried}"]


def test_a_provider_without_a_batch_api_is_an_error_with_batch_and_a_warning_with_auto(tmp_path: Path) -> None:
    said = (
        "night.yaml, line 2, mode: provider `lab` has no Batch API; write `mode: auto` or `mode: realtime`, or"
        " `batch: {}` in its entry in the config if it has one"
    )
    assert refusal(tmp_path, f"provider: lab\nmode: batch\n{OLD}") == [said]
    plan = planned(tmp_path, f"provider: lab\nmode: auto\n{OLD}")
    assert plan.mode == "auto"
    assert "provider `lab` has no Batch API: everything is made in realtime" in plan.warnings


def test_a_deadline_that_has_passed_is_a_warning(tmp_path: Path) -> None:
    plan = planned(tmp_path, f"mode: auto\ndeadline: '{moment(-1)}'\n{OLD}")
    (warning,) = [one for one in plan.warnings if "realtime" in one]
    assert warning.startswith("the deadline, ")
    assert warning.endswith(", has passed: everything is made in realtime")


def ending(hours: float) -> Config:
    """The config, with a model whose last day is so near."""
    day = (datetime.now(UTC) + timedelta(hours=hours)).date().isoformat()
    return dataclasses.replace(CONFIG, models={"gpt-image-2": {"shutdown": day}})


@pytest.mark.parametrize("provider", ["openai", "sandbox"])
def test_a_model_that_ends_before_a_batch_could_expire(tmp_path: Path, provider: str) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(CAT)

    def warnings(mode: Any, hours: float) -> list[str]:
        (plan,) = make_plans(ending(hours), [path], JobOptions(mode=mode, provider=provider))
        return [one for one in plan.warnings if "could expire" in one]

    if provider == "sandbox":
        assert [warnings(mode, 24) for mode in ("batch", "auto")] == [[], []], "its models do not end"
        return
    assert warnings("batch", 24)[0].startswith("gpt-image-2 is shut down on ")
    assert " is made in realtime: gpt-image-2 is shut down on " in warnings("auto", 24)[0]
    assert warnings("batch", 72) == warnings("auto", 72) == warnings("realtime", 24) == []

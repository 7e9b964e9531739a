"""Pure parts of the sandbox's batches: ranges, prices, faults, validation, lines, records."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.sandbox.batch.faults import hidden_creates, pick_line_fault, plan_batch, plan_content
from pipeline.sandbox.batch.outputs import answered_line, damaged, read_line, unanswered_line
from pipeline.sandbox.batch.ranges import UnsatisfiableRangeError, byte_range
from pipeline.sandbox.batch.records import Batch, BatchStore
from pipeline.sandbox.batch.routes import route_of
from pipeline.sandbox.batch.validation import line_starts, validate_file
from pipeline.sandbox.batch_settings import LINE_FAULTS
from pipeline.sandbox.request_body import RequestBody
from pipeline.sandbox.rules.prices import cost_usd
from pipeline.sandbox.rules.usage import usage
from pipeline.sandbox.rules.validate import validate_call
from pipeline.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from pathlib import Path

GENERATIONS = "/v1/images/generations"


def settings(**faults: float) -> SandboxSettings:
    return SandboxSettings.from_mapping({"batch": {"faults": faults}})


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 10)),
        ("bytes=5-99", (5, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=-", None),
        ("bytes=5-4", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
    ],
)
def test_a_range_of_ten_bytes(header: str | None, found: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == found


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_behind_the_end_is_unsatisfiable(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        byte_range(header, 10)


@pytest.mark.parametrize(
    ("fields", "cost"),
    [
        ({"model": "gpt-image-2", "quality": "high"}, (100 * 5 + 7024 * 30 + 1024 * 8) / 1e6),
        ({"model": "gpt-image-1.5", "quality": "low"}, (100 * 5 + 7024 * 32 + 1024 * 8) / 1e6),
        ({"model": "gpt-image-1-mini"}, (100 * 2 + 7024 * 8 + 1024 * 2.5) / 1e6),
        ({"model": "gpt-image-1"}, (100 * 5 + 7024 * 40 + 1024 * 10) / 1e6),
        ({"model": "dall-e-2", "size": "256x256", "n": 3}, 3 * 0.016),
        ({"model": "dall-e-3", "size": "1792x1024", "quality": "hd"}, 0.12),
    ],
)
def test_a_call_costs_what_the_price_tables_say(fields: dict[str, Any], cost: float) -> None:
    call = validate_call("generation", RequestBody("json", {"prompt": "x", **fields}))
    used = usage("x" * 400, [(1024, 1024)], 7024)
    assert cost_usd(call, used) == pytest.approx(cost)


def test_faults_are_repeatable_and_as_frequent_as_they_say() -> None:
    chosen = settings(failed=0.2, expired=0.2, spend_cap=0.2, create_lost=0.3, not_yet_visible=0.3)
    plans = [plan_batch(chosen, number) for number in range(2000)]
    assert plans == [plan_batch(chosen, number) for number in range(2000)]
    fates = Counter(plan.fate for plan in plans)
    assert all(320 < fates[fate] < 480 for fate in ("failed", "expired", "spend_cap"))
    assert 520 < sum(plan.loses_answer for plan in plans) < 680
    assert {plan.empty_ids for plan in plans} == {False}
    assert all(0.2 <= plan.validating_seconds <= 1 and 0.2 <= plan.working_seconds <= 1 for plan in plans)
    hidden = Counter(hidden_creates(chosen, number) for number in range(2000))
    assert hidden.keys() == {0, 1, 2, 3}
    assert 1320 < hidden[0] < 1480


def test_faults_of_lines_and_contents_are_as_frequent_as_they_say() -> None:
    chosen = settings(lines_missing=0.1, duplicate_line=0.1, malformed_line=0.1, cut_content=0.2)
    faults = Counter(pick_line_fault(chosen, 1, line) for line in range(2000))
    assert all(150 < faults[name] < 250 for name in LINE_FAULTS)
    contents = [plan_content(chosen, 1, answer) for answer in range(2000)]
    assert 330 < sum(plan.ends_after is not None for plan in contents) < 470
    assert 900 < sum(plan.has_length for plan in contents) < 1100
    healthy = [plan_content(settings(), 1, answer) for answer in range(100)]
    assert {plan.ends_after for plan in healthy} == {None}


def test_an_input_counts_the_tokens_of_prompts_and_pictures(tmp_path: Path) -> None:
    body = {"model": "gpt-image-2", "prompt": "x" * 40, "images": [{"file_id": "a"}, {"file_id": "b"}]}
    one = {"custom_id": "1", "method": "POST", "url": "/v1/images/edits", "body": body}
    (tmp_path / "in").write_text(f"{json.dumps(one)}\n\n{json.dumps({**one, 'custom_id': '2'})}")
    found = validate_file(tmp_path / "in", "/v1/images/edits", None)
    assert (found.errors, found.model, found.tokens) == ([], "gpt-image-2", 2 * (10 + 2048))
    first, second = line_starts(tmp_path / "in")
    assert [read_line(tmp_path / "in", start)["custom_id"] for start in (first, second)] == ["1", "2"]


def test_no_image_model_serves_another_endpoint(tmp_path: Path) -> None:
    one = {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-image-2"}}
    (tmp_path / "in").write_text(json.dumps(one))
    (error,) = validate_file(tmp_path / "in", "/v1/responses", None).errors
    assert (error["code"], error["line"]) == ("model_not_found", 1)


def test_at_most_a_hundred_errors_are_listed(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("{\n" * 500)
    assert len(validate_file(tmp_path / "in", GENERATIONS, None).errors) == 100


def test_lines_have_the_form_of_the_service() -> None:
    answered = json.loads(answered_line(random.Random(1), "a", 400, b'{"error": {"code": "x"}}'))
    request_id = answered["response"].pop("request_id")
    assert len(request_id) == 32
    assert answered == {
        "id": answered["id"],
        "custom_id": "a",
        "response": {"status_code": 400, "body": {"error": {"code": "x"}}},
        "error": None,
    }
    never = json.loads(unanswered_line(random.Random(1), "a", "batch_expired", "Too late."))
    assert never == {
        "id": never["id"],
        "custom_id": "a",
        "response": None,
        "error": {"code": "batch_expired", "message": "Too late."},
    }


def test_damage_of_a_line() -> None:
    assert damaged(b"12345678", None) == b"12345678\n"
    assert damaged(b"12345678", "lines_missing") == b""
    assert damaged(b"12345678", "duplicate_line") == b"12345678\n12345678\n"
    assert damaged(b"12345678", "malformed_line") == b"1234\n"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/files", (("files",), "")),
        ("/v1/files?limit=1", (("files",), "")),
        ("/v1/files/file%2D1", (("files", "*"), "file-1")),
        ("/v1/files/a/content", (("files", "*", "content"), "a")),
        ("/v1/batches/b/cancel", (("batches", "*", "cancel"), "b")),
        ("/v1/batches/b/content", None),
        ("/v1/filesystem", None),
        ("/v1/models", None),
        ("/files", None),
    ],
)
def test_a_path_has_a_route_and_an_id(path: str, found: object) -> None:
    assert route_of(path) == found


def test_a_batch_is_kept_as_it_is_and_leftovers_of_a_create_are_removed(tmp_path: Path) -> None:
    store = BatchStore(tmp_path / "batches")
    (tmp_path / "in").write_text("{}")
    batch = Batch(store.next_number(), 7, plan_batch(settings(), 1), GENERATIONS, "file-1", 1.5, 2.5, {"a": "b"}, 3600)
    store.add(batch, tmp_path / "in")
    (tmp_path / "batches" / "batch_of_no_record.input").write_text("{}")
    batch.enter("in_progress", 2.0)
    store.save(batch)
    again = BatchStore(tmp_path / "batches")
    assert again.all() == [batch]
    assert again.next_number() == 2
    assert sorted(path.suffix for path in (tmp_path / "batches").iterdir()) == [".input", ".json"]

"""Rows, zipped lists and the matrix make the variables of requests; `exclude` and `sample` leave some of them out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pipeline.config.provider import Provider
from pipeline.config.yaml_document import parse
from pipeline.errors import JobError
from pipeline.models.table import Models
from pipeline.planning.combinations import list_combinations, matrix_combinations
from pipeline.planning.job import parse_job
from pipeline.planning.planner import make_plan
from pipeline.planning.python_job import make_job

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.planning.job import Job
    from pipeline.planning.plan import Plan

MODELS = Models.load()
SANDBOX = Provider("sandbox", None, sandbox={})


def job(entry: str, folder: Path | None = None) -> Job:
    """A job of one entry, whose lines are the fifth and those after it."""
    lines = "".join(f"    {line}\n" for line in entry.splitlines())
    text = f"name: night\ndefaults: {{model: dall-e-2}}\nrequests:\n  - prompt: a\n{lines}"
    return parse_job(parse(text, "a.yaml", JobError), folder=folder)


def planned(entry: str, folder: Path | None = None, **options: Any) -> Plan:
    return make_plan(job(entry, folder), SANDBOX, MODELS, **options)


def made(entry: str, folder: Path | None = None, **options: Any) -> list[str]:
    """The variables of all requests, each as one word."""
    return ["".join(map(str, one.variables.values())) for one in planned(entry, folder, **options).requests]


def refusal(entry: str, folder: Path | None = None) -> list[str]:
    with pytest.raises(JobError) as caught:
        planned(entry, folder)
    return str(caught.value).splitlines()


def test_a_matrix_is_every_combination_with_the_last_axis_fastest() -> None:
    found = list(matrix_combinations({"a": [1, 2], "b": ["x", "y"]}))
    assert found == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    assert list(matrix_combinations({})) == [{}]


def test_a_matrix_of_billions_begins_at_once() -> None:
    axes = {name: range(1000) for name in "abcdefgh"}
    assert next(matrix_combinations(axes)) == dict.fromkeys("abcdefgh", 0)
    assert next(list_combinations({"z": range(10**9)}, axes)) == dict.fromkeys("zabcdefgh", 0)


def test_rows_come_first_then_zipped_lists_then_the_matrix_the_last_fastest(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("r\n1\n2\n")
    entry = "matrix: {m: [x, y]}\nzip: {p: [a, b], q: [A, B]}\nrows: r.csv"
    assert made(entry, tmp_path) == ["1aAx", "1aAy", "1bBx", "1bBy", "2aAx", "2aAy", "2bBx", "2bBy"]
    assert made("zip: {p: [a, b], q: [A, B]}") == ["aA", "bB"]


def test_zipped_lists_of_different_lengths_are_refused() -> None:
    (message,) = refusal("zip: {a: [1, 2], b: [1], c: [3, 4]}")
    assert message == (
        "a.yaml, line 5, requests[0].zip: has lists of different lengths: `a` has 2, `b` has 1, `c` has 2; "
        "their values go together"
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("zip: {a: [1]}\nmatrix: {a: [1]}", "line 5, requests[0].zip: `a` is also in `matrix`; rename one of them"),
        ("zip: {r: [1]}\nrows: r.csv", "line 5, requests[0].zip: `r` is also a column of r.csv; rename one"),
        ("rows: r.csv\nmatrix: {r: [1]}", "line 6, requests[0].matrix: `r` is also a column of r.csv; rename one"),
        ("zip: {}", "requests[0].zip: must not be empty"),
        ("zip: {a: []}", "requests[0].zip.a: must not be empty"),
        ("zip: {a: 1}", "requests[0].zip.a: must be a list, not 1"),
        ("exclude: []", "requests[0].exclude: must not be empty"),
        ("exclude: [{}]", "requests[0].exclude[0]: must not be empty"),
        ("exclude: {a: 1}", "requests[0].exclude: must be a list, not {'a': 1}"),
        ("exclude: [{a: [1, 2]}]", "exclude[0].a: must be one value, not a list or a mapping; write one rule for each"),
        ("sample: 12", "requests[0].sample: must be a mapping, not 12"),
        ("sample: {seed: 1}", "requests[0].sample: needs `n`, how many are made: write `sample: {n: 12}`"),
        ("sample: {n: 0}", "requests[0].sample.n: must be at least 1, not 0"),
        ("sample: {n: 1, sed: 1}", "requests[0].sample.sed: unknown key `sed`; did you mean `seed`?"),
        ("sample: {n: 1, seed: x}", "requests[0].sample.seed: must be a whole number, not 'x'"),
        ("exlude: [{a: 1}]", "unknown key `exlude`; did you mean `exclude`?"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_field(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "r.csv").write_text("r\n1\n")
    (message,) = refusal(entry, tmp_path)
    assert words in message


@pytest.mark.parametrize("key", ["zip: {a: [1]}", "exclude: [{a: 1}]", "sample: {n: 1}"])
def test_these_are_keys_of_one_request_and_not_of_the_defaults(key: str) -> None:
    text = f"name: a\ndefaults:\n  {key}\nrequests: [{{prompt: a, model: dall-e-2}}]\n"
    with pytest.raises(JobError, match="is a key of a single request, not of `defaults`"):
        make_plan(parse_job(parse(text, "a.yaml", JobError)), SANDBOX, MODELS)


def test_a_sampler_of_another_server_is_no_misspelt_sample() -> None:
    plan = make_plan(make_job("a", [{"prompt": "a", "model": "own", "sampler": "ddim", "samples": 2}]), SANDBOX, MODELS)
    assert plan.requests[0].params == {"model": "own", "sampler": "ddim", "samples": 2}


ANIMALS = "matrix: {animal: [cat, dog], style: [ukiyo-e, bauhaus]}\n"


def test_what_a_rule_names_is_not_made() -> None:
    assert made(f"{ANIMALS}exclude: [{{animal: cat, style: bauhaus}}]") == ["catukiyo-e", "dogukiyo-e", "dogbauhaus"]
    assert made(f"{ANIMALS}exclude: [{{animal: cat}}, {{style: bauhaus}}]") == ["dogukiyo-e"]


def test_rules_name_columns_of_rows_and_zipped_lists_too(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("r\n1\n2\n")
    entry = "rows: r.csv\nzip: {z: [a, b]}\nmatrix: {m: [x, y]}\nexclude: [{r: 1, z: a}, {r: 2, m: y}]"
    assert made(entry, tmp_path) == ["1bx", "1by", "2ax", "2bx"]


@pytest.mark.parametrize(
    ("values", "rule", "left"),
    [
        ("[1, 2]", "'1'", ["2"]),
        ("['1', '2']", "1", ["2"]),
        ("['1.50', 2]", "1.50", ["2"]),
        ("[1.50, 2]", "1.50", ["2"]),
        ("[1e3, 2]", "1e3", ["2"]),
        ("[true, x]", "'true'", ["x"]),
        ("[null, x]", "''", ["x"]),
        ("['', x]", "null", ["x"]),
        ("[[1, 2], x]", "'[1,2]'", ["x"]),
    ],
)
def test_values_are_compared_as_text(values: str, rule: str, left: list[str]) -> None:
    assert made(f"matrix: {{a: {values}}}\nexclude: [{{a: {rule}}}]") == left


@pytest.mark.parametrize("limit", [None, 1])
def test_a_rule_with_an_unknown_name_is_refused(limit: int | None) -> None:
    with pytest.raises(JobError) as caught:
        planned(f"{ANIMALS}exclude: [{{animal: cat, style: bauhaus}}, {{animl: cat}}]", limit=limit)
    (message,) = str(caught.value).splitlines()
    assert message == (
        "a.yaml, line 6, requests[0].exclude[1]: variable `animl` is not defined; known here: animal, style"
    )


def test_a_name_that_only_some_rows_have_is_known(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n{"b": 1}\n')
    assert made("rows: r.jsonl\nexclude: [{b: 1}]", tmp_path) == ["1"]


def test_rules_that_leave_nothing_are_refused() -> None:
    (message,) = refusal(f"{ANIMALS}exclude: [{{animal: cat}}, {{animal: dog}}]")
    assert message == "a.yaml, line 6, requests[0].exclude: excludes all 4 combinations: nothing is left to make"


def test_a_rule_that_matches_nothing_is_a_warning() -> None:
    plan = planned(f"{ANIMALS}exclude: [{{animal: cow}}, {{animal: cat}}]")
    assert len(plan.requests) == 2
    assert [one for one in plan.warnings if "no field uses" not in one] == [
        "a.yaml, line 6, requests[0].exclude[0]: no combination matches this rule: it excludes nothing",
    ]


NUMBERS = f"matrix: {{i: [{', '.join(map(str, range(200)))}]}}\n"


def test_a_sample_keeps_the_order_and_a_larger_one_contains_it() -> None:
    taken: set[str] = set()
    for n in (1, 12, 120, 199, 200, 5000):
        found = made(f"{NUMBERS}sample: {{n: {n}}}")
        assert len(found) == min(n, 200)
        assert found == sorted(found, key=int)
        assert taken < set(found) or n == 5000
        taken = set(found)


def test_another_seed_takes_others_and_0_is_the_default() -> None:
    default, other = made(f"{NUMBERS}sample: {{n: 12}}"), made(f"{NUMBERS}sample: {{n: 12, seed: 1}}")
    assert default == made(f"{NUMBERS}sample: {{n: 12, seed: 0}}") != other
    assert len(other) == 12


def test_new_rows_only_displace_and_the_place_of_a_row_does_not_matter(tmp_path: Path) -> None:
    rows = [f"{i}\n" for i in range(200)]
    (tmp_path / "r.csv").write_text("i\n" + "".join(rows))
    before = made("rows: r.csv\nsample: {n: 12}", tmp_path)
    (tmp_path / "r.csv").write_text("i\n" + "".join(["900\n", *reversed(rows), *(f"{i}\n" for i in range(300, 400))]))
    after = made("rows: r.csv\nsample: {n: 12}", tmp_path)
    assert [one for one in after if int(one) < 200] == [one for one in reversed(before) if one in after]
    assert len(after) == 12
    assert set(after) & set(before)


def test_equal_rows_are_taken_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("i\na\na\nb\n")
    assert [len(made(f"rows: r.csv\nsample: {{n: {n}}}", tmp_path)) for n in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_the_sample_is_taken_of_what_is_not_excluded() -> None:
    every = made(f"{NUMBERS}exclude: [{{i: 3}}]\nsample: {{n: 199}}")
    assert every == [str(i) for i in range(200) if i != 3]


@pytest.mark.parametrize("value", [float("nan"), b"bytes", Image.new("L", (1, 1))])
@pytest.mark.parametrize("more", [{}, {"sample": {"n": 1}}])
@pytest.mark.parametrize("key", ["matrix", "zip"])
def test_a_variable_that_json_lacks_is_a_mistake_of_its_list(key: str, more: dict[str, Any], value: object) -> None:
    job = make_job("a", [{"prompt": "a {{ x }}", "model": "m", key: {"x": [value]}, **more}])
    with pytest.raises(JobError, match=rf"requests\[0\].{key}: cannot be written as JSON"):
        make_plan(job, SANDBOX, MODELS)


def test_half_a_character_is_ranked_and_refused_where_it_stands() -> None:
    job = make_job("a", [{"prompt": "{{ x }}", "model": "m", "matrix": {"x": ["\ud800"]}, "sample": {"n": 1}}])
    with pytest.raises(JobError, match="lone surrogate"):
        make_plan(job, SANDBOX, MODELS)


SCRIPT = """
import json, sys
from pipeline.config.provider import Provider
from pipeline.models.table import Models
from pipeline.planning.planner import make_plan
from pipeline.planning.python_job import make_job
entry = {"prompt": "a {{ x }} {{ y }}", "model": "m", "matrix": {"x": list("abcdefgh"), "y": [1, 2.5, True, None]}}
job = make_job("a", [{**entry, "sample": {"n": 9, "seed": 7}}])
print(json.dumps([one.id for one in make_plan(job, Provider("sandbox", None, sandbox={}), Models.load()).requests]))
"""


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_sample_is_the_same_whatever_the_hash_seed_of_python_is(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == [
        *("a-a-77c30e96", "a-b-2-5-c343b50e", "a-c-8bc6af1a", "a-d-1-52db484d", "a-f-1-3c4dd189"),
        *("a-f-true-9aa67a66", "a-g-true-1b1724cc", "a-h-1-5c0fa50b", "a-h-true-7792dd96"),
    ]


def test_a_slip_that_makes_billions_is_refused_at_once_with_zipped_lists_and_a_sample_too() -> None:
    axes = ", ".join(f"{name}: [{', '.join(map(str, range(100)))}]" for name in "abc")
    (message,) = refusal(f"matrix: {{{axes}}}\nzip: {{z: [1, 2], y: [1, 2]}}")
    assert "requests[0].matrix: makes 2,000,000 requests, more than 1,000,000; if that is intended" in message
    (message,) = refusal(f"matrix: {{{axes}, d: [1, 2]}}\nsample: {{n: 1}}")
    assert "requests[0].matrix: has 2,000,000 combinations to choose from, more than 1,000,000" in message
    assert len(planned(f"matrix: {{{axes}, d: [1, 2]}}\nexclude: [{{d: 1}}]", limit=3).requests) == 3

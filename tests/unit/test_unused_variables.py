"""Variables that no field uses: each of their values buys the same image again, which a warning says before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.provider import Provider
from pipeline.errors import JobError
from pipeline.models.table import Models
from pipeline.planning.planner import make_plan
from pipeline.planning.python_job import make_job

if TYPE_CHECKING:
    from pathlib import Path

MODELS = Models.load()
SANDBOX = Provider("sandbox", None, sandbox={})
ANIMALS = {"animal": ["cat", "dog"]}


def warnings(folder: Path, **entry: Any) -> tuple[str, ...]:
    job = make_job("night", [entry], defaults={"model": "gpt-image-2"}, folder=folder)
    return make_plan(job, SANDBOX, MODELS).warnings


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text("animal,place\ncat,Rome\ndog,Oslo\n")
    return tmp_path


@pytest.mark.parametrize("prompt", ["a {animal}", "a ${animal}", "a { animal }", "a {animal} in {{ place }}"])
def test_a_variable_in_one_brace_is_named_with_the_two_that_it_needs(table: Path, prompt: str) -> None:
    said = "`{animal}` is sent as it stands: a variable has two braces, `{{ animal }}`"
    assert warnings(table, prompt=prompt, rows="rows.csv") == (f"job `night`, requests[0].prompt: {said}",)


def test_a_list_that_no_field_uses_is_named_with_what_it_repeats(table: Path) -> None:
    said = "no field uses `{{ animal }}`: each %s makes the same request again (several images of one prompt are `n:`)"
    same: dict[str, Any] = {"prompt": "a horse in {{ place }}"}
    found = warnings(table, **same, matrix={**ANIMALS, "place": ["Rome", "Oslo"]})
    assert found == (f"job `night`, requests[0].matrix: {said % 'value'}",)
    assert warnings(table, prompt="a horse", zip=ANIMALS) == (f"job `night`, requests[0].zip: {said % 'place'}",)
    assert warnings(table, prompt="a horse", rows="rows.csv") == (f"job `night`, requests[0].rows: {said % 'row'}",)
    found = warnings(table, prompt="a {{ what }}", matrix={"what": ["fox", "bee"]}, rows="rows.csv")
    assert found == (f"job `night`, requests[0].rows: {said % 'row'}",)


PROMPT = "{{ prompt }}"


@pytest.mark.parametrize(
    ("header", "entry", "said"),
    [
        (
            "prompt,n,size,quality",
            {"prompt": PROMPT},
            'columns n, size, quality are not used; to use one, write `quality: "{{ quality }}"`',
        ),
        ("prompt,n,note", {"prompt": PROMPT}, 'column n is not used; to use it, write `n: "{{ n }}"`'),
        ("prompt,model", {"prompt": PROMPT}, 'column model is not used; to use it, write `model: "{{ model }}"`'),
        ("prompt,size", {"prompt": PROMPT, "prompts": "dynamic"}, "column size is not used; to use it, write `size: "),
        ("prompt,size", {"prompt": PROMPT, "size": "{{ size }}"}, None),
        ("prompt,size", {"prompt": PROMPT, "size": "1024x1024"}, None),  # the entry states it itself
        ("prompt,style,note", {"prompt": PROMPT}, None),  # this model has no style
    ],
)
def test_a_column_called_like_a_parameter_is_not_ignored_in_silence(
    tmp_path: Path, header: str, entry: dict[str, Any], said: str | None
) -> None:
    (tmp_path / "u.csv").write_text(f"{header}\na cat{',1024x1024' * header.count(',')}\n")
    found = warnings(tmp_path, **entry, rows="u.csv")
    assert len(found) == int(said is not None)
    if said is not None:
        assert found[0].startswith(f"job `night`, requests[0].rows: u.csv: {said}")


@pytest.mark.parametrize("model", ["gpt-image-2", "something-else"])
def test_a_column_of_prompts_that_no_field_names_is_in_the_mistake(tmp_path: Path, model: str) -> None:
    (tmp_path / "u.csv").write_text("prompt\na cat\n")
    with pytest.raises(JobError, match=r'requests\[0\].prompt .*: is missing.*: write `prompt: "{{ prompt }}"`'):
        warnings(tmp_path, rows="u.csv", model=model)


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": "a {{ animal }}", "rows": "rows.csv"},  # not every column is used
        {"prompt": "a {{ style|default('red') }} fox", "rows": "rows.csv"},
        {"id": "fox-{{ animal }}", "prompt": "a fox", "matrix": ANIMALS},  # meant, as it has names of its own
        {"prompt": "a {{ animal }}", "zip": {**ANIMALS, "note": ["x", "y"]}},
        {"prompt": "a fox", "extra": {"tags": ["{{ animal }}"]}, "matrix": ANIMALS},
        {"prompt": "{'a': {animals}, {{ animal }}: {animal}}", "matrix": ANIMALS},
        {"prompt": "a fox", "matrix": {"animal": ["cat"]}},
        {"prompt": "a {red} fox"},
    ],
)
def test_what_is_used_or_repeats_nothing_has_no_warning(table: Path, entry: dict[str, Any]) -> None:
    assert warnings(table, **entry) == ()

"""`pipeline plan --diff`: the changes of an edited job by the command, and what they cost beside the plan."""

from __future__ import annotations

import json
import random
import re
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.stage import Stage


def write(stage: Stage, prompts: dict[str, str]) -> None:
    rows = "".join(f'{{"id": "{name}", "prompt": "{prompt}"}}\n' for name, prompt in prompts.items())
    (stage.folder / "many.jsonl").write_text(rows)
    stage.job("many", [{"prompt": "{{ prompt }}", "id": "{{ id }}", "rows": "many.jsonl"}])


@pytest.mark.parametrize("size", [2_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_a_thousand_edits_of_a_large_job_are_found_exactly(stage: Stage, size: int) -> None:
    rng, edits = random.Random(11), size // 100
    stage.provider("lab", "http://127.0.0.1:9/v1")
    prompts = {f"r{number}": f"prompt number {number}" for number in range(size)}
    write(stage, prompts)
    stage.run("submit", "many.yaml")
    names = rng.sample(sorted(prompts), edits)
    edited, left = names[: edits // 2], names[edits // 2 :]
    now = {name: f"{prompt}, at dusk" if name in set(edited) else prompt for name, prompt in prompts.items()}
    now = {name: prompt for name, prompt in now.items() if name not in set(left)}
    now |= {f"n{number}": f"another prompt {number}" for number in range(edits // 4)}
    write(stage, now)
    seconds: dict[int, float] = {}
    for words in (["plan", "many.yaml", "--json"], ["plan", "many.yaml", "--diff", "--json"]) * 3:
        began = time.process_time()
        said = stage.run(*words).stdout
        seconds[len(words)] = min(time.process_time() - began, seconds.get(len(words), 1e9))
    diff = json.loads(said)["diff"]
    assert list(diff) == ["new", "changed", "kept", "superseded"]
    assert all(set(found) == {"count", "cost_usd", "ids"} for found in diff.values())
    assert set(diff["new"]["ids"]) == now.keys() - prompts.keys()
    assert set(diff["changed"]["ids"]) == set(edited)
    assert set(diff["superseded"]["ids"]) == set(left)
    assert diff["kept"]["ids"] == [name for name in now if name in prompts and name not in set(edited)]
    assert all(found["count"] == len(found["ids"]) for found in diff.values())
    assert size < 100_000 or seconds[4] <= 1.25 * seconds[3]


def test_several_files_have_a_diff_each_and_people_read_four_lines(stage: Stage) -> None:
    stage.provider("lab", "http://127.0.0.1:9/v1")
    first = stage.job("first", [{"prompt": "a", "id": "a"}, {"prompt": "b", "id": "b"}])
    stage.run("submit", first)
    stage.job("first", [{"prompt": "a", "id": "a", "n": 2}, {"prompt": "c", "id": "c"}])
    second = stage.job("second", [{"prompt": "d", "id": "d"}])
    found = json.loads(stage.run("plan", first, second, "--diff", "--json").stdout)
    assert [one["diff"]["new"]["ids"] for one in found] == [["c"], ["d"]]
    said = stage.run("plan", first, "--diff").stdout
    assert re.findall(
        r"^([+~=-] \w+): (\d+) requests?, \$[\d.]+ (?:spent|to come)(?:: (.*))?$", said, re.MULTILINE
    ) == [
        ("+ new", "1", "c"),
        ("~ changed", "1", "a"),
        ("= kept", "0", ""),
        ("- superseded", "1", "b"),
    ]
    assert "diff" not in json.loads(stage.run("plan", first, "--json").stdout)

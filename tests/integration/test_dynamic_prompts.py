"""Dynamic prompts: each request gets one expansion, which depends on its content alone, and which the ledger keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.config.provider import Provider
from pipeline.errors import JobError
from pipeline.models.table import Models
from pipeline.planning.dynamic_prompts import DynamicPrompts
from pipeline.planning.planner import make_plan
from pipeline.planning.python_job import make_job
from tests.support.stage import staged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.planning.plan import ImageRequest
    from tests.support.stage import Stage

HOME = Path(__file__).parents[2]
MODELS = Models.load()
SANDBOX = Provider("sandbox", None, sandbox={})
COLOURS = "a {red|green|blue|white|black|golden|grey} {kite|bird|boat|tree|house}"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path, within=True) as stage:
        yield stage


def planned(*entries: dict[str, Any], folder: Path | None = None, **options: Any) -> list[ImageRequest]:
    filled = [{"model": "dall-e-2", "prompts": "dynamic", **entry} for entry in entries]
    return list(make_plan(make_job("a", filled, folder=folder), SANDBOX, MODELS, **options).requests)


def prompts(*entries: dict[str, Any], folder: Path | None = None, **options: Any) -> list[str]:
    return [str(one.prompt) for one in planned(*entries, folder=folder, **options)]


def refusal(entry: dict[str, Any], folder: Path | None = None, **options: Any) -> str:
    with pytest.raises(JobError) as caught:
        planned(entry, folder=folder, **options)
    return str(caught.value)


def test_variants_and_weights_are_chosen_and_only_in_the_entry_that_asks_for_it() -> None:
    found = prompts({"prompt": "a {1::red|0::blue} {cat|dog}", "matrix": {"i": list(range(30))}})
    assert set(found) == {"a red cat", "a red dog"}
    assert prompts({"prompt": "a {red|blue} cat", "prompts": None}) == ["a {red|blue} cat"]


def test_a_prompt_without_the_signs_stays_as_it_is() -> None:
    text = "50% off, #5 // é 雨 _x_ (red:1.2) $5"
    assert prompts({"prompt": text}) == [text]


def test_cells_are_expanded_with_the_prompt_that_holds_them(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('text\n"{one|one}, {two|two}"\n')
    assert prompts({"prompt": "{{ text }}!", "rows": "r.csv"}, folder=tmp_path) == ["one, two!"]
    plain = {"prompt": "{{ text }}!", "rows": "r.csv", "prompts": None}
    assert prompts(plain, folder=tmp_path) == ["{one|one}, {two|two}!"]


def test_the_choice_follows_the_content_and_never_the_position() -> None:
    entry = {"prompt": f"{{{{ x }}}}: {COLOURS}"}
    forward = prompts({**entry, "matrix": {"x": list(range(20))}})
    backward = prompts({"prompt": COLOURS}, {**entry, "matrix": {"x": list(reversed(range(20)))}})
    assert backward[1:] == forward[::-1]
    assert len({text.partition(": ")[2] for text in forward}) > 5
    unused = [planned({"prompt": COLOURS, "matrix": {"x": order}}) for order in ([*range(20)], [*range(19, -1, -1)])]
    one, other = ({each.key: (each.prompt, each.variables["x"]) for each in requests} for requests in unused)
    assert one == other, "the variables count, whether the prompt has them or not"
    assert len({prompt for prompt, _ in one.values()}) > 5


def test_equal_requests_have_expansions_of_their_own_and_the_same_keys_in_any_order() -> None:
    one, two = {"prompt": COLOURS, "size": "256x256"}, {"prompt": COLOURS, "size": "512x512"}
    forward, backward = planned(*[one] * 12, two), planned(two, *[one] * 12)
    assert {each.key: each.prompt for each in forward} == {each.key: each.prompt for each in backward}
    assert len({each.prompt for each in forward[:12]}) > 4
    assert forward[12].prompt == forward[0].prompt, "the first of its kind, of another size"


def test_the_images_of_one_request_share_one_expansion_in_all_its_parts() -> None:
    requests = planned({"prompt": COLOURS, "n": 25})
    assert [one.n for one in requests] == [10, 10, 5]
    assert len({one.prompt for one in requests}) == 1
    assert len({one.key for one in requests}) == 3


def test_wildcard_files_are_beside_the_job_or_else_beside_the_config(tmp_path: Path) -> None:
    job, config = tmp_path / "jobs", tmp_path / "config"
    for folder, animal in ((job, "cat"), (config, "dog")):
        (folder / "wildcards").mkdir(parents=True)
        (folder / "wildcards" / "animal.txt").write_text(f"{animal}\n# no animal\n")
    entry = {"prompt": "a __animal__"}
    assert prompts(entry, folder=job, config_folder=config) == ["a cat"]
    assert prompts(entry, folder=tmp_path, config_folder=config) == ["a dog"]


@pytest.mark.parametrize(
    ("files", "prompt", "words"),
    [
        ({}, "a __animal__", "wildcard `__animal__`: there is no "),
        ({"b.txt": "x"}, "a __animal__", "wildcard `__animal__` has no values in "),
        ({"b.txt": "__animal__\n"}, "a __b__", "wildcard `__animal__` has no values in "),
        ({"animal.txt": "# none\n"}, "a __animal__", "write them into animal.txt there, one a line"),
        ({"b.txt": "__c__\n", "c.txt": "__b__\n"}, "a __b__", "its wildcards name each other"),
        ({}, "a {red|blue", "is no dynamic prompt: Expected end of text, found '{'"),
        ({}, "a {red|blue} ${nothing}", "cannot be expanded: 'Variable nothing is not defined in this context'"),
        ({}, "${c=__*__//\n}", "cannot be expanded: VariableAssignmentCommand should never be sampled"),
    ],
)
def test_a_prompt_that_cannot_be_expanded_is_an_error_at_its_field(
    tmp_path: Path, files: dict[str, str], prompt: str, words: str
) -> None:
    for name, content in files.items():
        (tmp_path / "wildcards").mkdir(exist_ok=True)
        (tmp_path / "wildcards" / name).write_text(content)
    message = refusal({"prompt": prompt}, folder=tmp_path)
    assert message.startswith("job `a`, requests[0].prompt: ")
    assert words in message


def test_files_that_double_each_other_and_a_text_without_end_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wildcards").mkdir()
    for number in range(30):
        (tmp_path / "wildcards" / f"w{number}.txt").write_text(f"__w{number + 1}__ __w{number + 1}__\n")
    (tmp_path / "wildcards" / "w30.txt").write_text("x\n")
    monkeypatch.setattr("pipeline.planning.dynamic_prompts._MAX_LOOKUPS", 100)
    assert "uses more than 100 wildcards; do their files name each other?" in refusal(
        {"prompt": "__w0__"}, folder=tmp_path
    )
    monkeypatch.setattr("pipeline.planning.dynamic_prompts.MAX_CHARACTERS", 3)
    assert "expands to more than 3 characters" in refusal({"prompt": "{aaaa|bbbb}"})


def test_what_is_left_out_as_a_comment_is_a_warning() -> None:
    entry = {"model": "dall-e-2", "prompts": "dynamic", "prompt": "{a|a} cat #5"}
    plan = make_plan(make_job("a", [entry]), SANDBOX, MODELS)
    assert plan.requests[0].prompt == "a cat "
    (warning,) = plan.warnings
    assert warning.startswith(
        "job `a`, requests[0].prompt: in a dynamic prompt `#` begins a comment, which is left out"
    )


def test_the_expansion_is_what_the_model_gets_and_is_checked() -> None:
    assert "requests[0].prompt" in refusal({"prompt": "{" + "x" * 1001 + "|" + "y" * 1001 + "}"})
    assert prompts({"prompt": f"{{{'x' * 600}|{'y' * 600}}}"})[0] in {"x" * 600, "y" * 600}


def test_the_key_is_dynamic_or_not() -> None:
    with pytest.raises(JobError, match="must be `dynamic`, or left out; the text of a request is its `prompt`"):
        planned({"prompt": "a", "prompts": "static"})
    with pytest.raises(JobError, match="is a key of a single request, not of `defaults`"):
        make_plan(make_job("a", [{"prompt": "a"}], defaults={"prompts": "dynamic", "model": "m"}), SANDBOX, MODELS)


def test_without_the_library_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamicprompts.enums", None)
    assert refusal({"prompt": "{a|b}", "matrix": {"x": [1, 2]}}) == (
        "job `a`, requests[0].prompt: `prompts: dynamic` needs a library that is not installed: "
        'pip install "image-batch-pipeline[dynamic]"'
    )


SCRIPT = f"""
import json, sys
from pathlib import Path
from pipeline.planning.dynamic_prompts import DynamicPrompts
dynamic = DynamicPrompts([Path(sys.argv[1])])
print(json.dumps([dynamic.expand("__w__: {COLOURS} {{2$$, $$a|b|c|d}}", {{"x": x}}, 1) for x in range(20)]))
"""


def test_the_expansion_is_the_same_whatever_the_hash_seed_of_python_is(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text(json.dumps([f"value {number}" for number in range(40)]))
    found = []
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(HOME)}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append(json.loads(ended.stdout))
    assert found[0] == found[1]
    assert len(set(found[0])) > 15


def test_the_ledger_keeps_the_expansion_so_that_another_library_or_file_buys_nothing_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stage.serve()
    stage.provider("lab", server)
    (stage.folder / "wildcards").mkdir()
    animals = stage.folder / "wildcards" / "animal.txt"
    animals.write_text("cat\ndog\ncow\n")
    entry = {"prompt": "a {red|blue} __animal__", "matrix": {"i": [1, 2, 3]}, "prompts": "dynamic"}
    job = stage.job("zoo", [entry])
    stage.run("run", job)
    before = stage.manifest("zoo")
    assert server.charged() == 3
    assert all(one["prompt"].startswith(("a red ", "a blue ")) for one in before)

    animals.write_text("ant\nbee\n")
    monkeypatch.setattr(DynamicPrompts, "expand", lambda *_: "of another version")
    shown = json.loads(stage.run("plan", job, "--json").stdout)
    assert (shown["missing"]["requests"], shown["superseded"]) == (0, 0)
    assert [one["prompt"] for one in shown["first"]] == [one["prompt"] for one in before]
    stage.run("run", job)
    assert server.charged() == 3
    kept = [{key: one[key] for key in ("id", "prompt", "key", "images")} for one in before]
    assert [{key: one[key] for key in ("id", "prompt", "key", "images")} for one in stage.manifest("zoo")] == kept

    stage.job("zoo", [{**entry, "n": 12}])
    stage.run("submit", job)
    parts = stage.ask("SELECT prompt FROM request ORDER BY position")
    assert [prompt for (prompt,) in parts] == [one["prompt"] for one in before for _ in range(2)], "its new parts too"

    stage.job("zoo", [{**entry, "matrix": {"i": [1, 2, 3, 4]}}])
    stage.run("run", job)
    assert server.charged() == 4
    after = [one["prompt"] for one in stage.manifest("zoo") if one["status"] != "superseded"]
    assert after == [*(one["prompt"] for one in before), "of another version"]

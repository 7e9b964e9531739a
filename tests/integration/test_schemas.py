"""The JSON Schemas: current, and of one mind with what checks and writes the files."""

from __future__ import annotations

import functools
import json
import re
import shutil
import textwrap
import typing
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from pipeline import errors
from pipeline.cli.init_command import starter_text
from pipeline.cli.schema_command import SCHEMAS, schema_path
from pipeline.config.load import load
from pipeline.config.yaml_document import Document, parse, read
from pipeline.engine import events
from pipeline.errors import BadInput
from pipeline.planning.build import JobOptions, load_models, make_plans, staging_folder
from pipeline.progress.event_text import event_json
from pipeline.sandbox_process import check_settings
from tests.support.broken_jobs import BROKEN_JOBS
from tests.support.readme import HOME
from tests.support.schemas import written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage


@functools.cache
def validator(name: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator(json.loads(schema_path(name).read_text()))


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_schema_is_what_the_code_has_now(name: str) -> None:
    assert schema_path(name).read_text() == written(name), "run python -m tests.support.schemas"
    jsonschema_rs.meta.validate(json.loads(written(name)))


# --- Jobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder beside which the images of the examples are."""
    made = tmp_path_factory.mktemp("jobs")
    shutil.copytree(HOME / "jobs" / "images", made / "images")
    return made


def _lines_of_schema(document: Document) -> set[int]:
    """Return the lines of the keys that the schema refuses."""
    return {document.lines[tuple(error.instance_path)] for error in validator("job").iter_errors(document.value)}


def _lines_of_plan(path: Path) -> tuple[set[int], str]:
    with staging_folder() as staging, pytest.raises(BadInput) as refused:
        make_plans(load(), [path], JobOptions(provider="sandbox"), staging)
    return {int(line) for line in re.findall(r", line (\d+)", str(refused.value))}, str(refused.value)


def test_schema_and_plan_agree_on_the_line_of_a_mistake(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)
    different = {}
    for index, (what, text) in enumerate(BROKEN_JOBS.items()):
        path = folder / f"job-{index}.yaml"
        path.write_text(text)
        found, (planned, said) = _lines_of_schema(read(path, BadInput)), _lines_of_plan(path)
        if found != planned:
            different[what] = (found, planned, said)
    assert len(BROKEN_JOBS) >= 50
    assert len(different) <= 2, different


def _blocks(pattern: str) -> list[str]:
    readmes = [HOME / "README.md", *HOME.glob("*/README.md"), *HOME.glob("*/*/README.md")]
    texts = [path.read_text() for path in readmes]
    return [
        block
        for text in texts
        for block in re.findall(rf"^```yaml {pattern}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def test_every_example_of_a_job_is_valid() -> None:
    requests = [f"requests:\n{block}" for block in _blocks("requests")]
    files = [path.read_text() for path in (HOME / "jobs").glob("*.yaml")]
    jobs = [*files, *_blocks("job"), *requests, starter_text("first.yaml")]
    assert len(jobs) > 12
    for job in jobs:
        validator("job").validate(parse(job, "job", BadInput).value)


def test_every_example_of_a_config_is_valid() -> None:
    providers = [f"providers:\n{textwrap.indent(block, '  ')}" for block in _blocks("providers")]
    full = (HOME / "config.yaml").read_text()
    configs = [
        full,
        re.sub(r"^(  )?# (?= {0,6}[\w-]+:)", r"\1", full, flags=re.MULTILINE),
        *_blocks("config"),
        *providers,
    ]
    assert len(configs) >= 6
    for config in [*configs, starter_text("config.yaml")]:
        validator("config").validate(parse(config, "config", BadInput).value)


def read_all(path: Path) -> None:
    config = load(path)
    load_models(config)
    for provider in config.providers.values():
        check_settings(config, provider)


@pytest.mark.parametrize(
    "config",
    [
        "outputs: x",
        "budget_usd: -1",
        "retry: {attempt: 1}",
        "providers: {x: {}}",
        "providers: {x: {base_url: 'https://a/v1', api_key_env: sk-1}}",
        "providers: {x: {sandbox: {faults: {http_429: 2}}}}",
        "routes: {x: {providers: [a], policy: best}}",
        "models: {x: {inherits: dall-e-2, prize: 1}}",
        "notify: {webhook: x}",
    ],
)
def test_a_wrong_config_is_refused(config: str, folder: Path) -> None:
    assert not validator("config").is_valid(parse(config, "config", BadInput).value)
    (folder / "wrong.yaml").write_text(config)
    with pytest.raises(BadInput):
        read_all(folder / "wrong.yaml")


def test_the_table_of_models_is_in_the_form_of_the_schema() -> None:
    table = read(HOME / "pipeline" / "models" / "models.yaml", BadInput).value
    validator("config").validate({"models": table})


# --- What scripts read


def test_what_the_commands_print_fits_the_schemas(stage: Stage) -> None:
    stage.provider("sandy", stage.serve(rate_limit=None))
    requests: list[dict[str, Any]] = [
        {"prompt": "a cat"},
        {"prompt": "moderation: forbidden"},
        {"prompt": "a dog", "n": 2},
    ]
    job = stage.job("night", requests)
    validator("plan").validate(json.loads(stage.run("plan", job, "--json", "--diff").stdout))
    lines = stage.run("run", job, "--json", exit_code=None).stdout.splitlines()
    for line in lines:
        validator("event").validate(json.loads(line))
    assert json.loads(lines[-1])["event"] == "summary"
    validator("status").validate(json.loads(stage.run("status", "--json").stdout))
    stage.run("manifest", "night")
    manifest = stage.manifest("night")
    for entry in manifest:
        validator("manifest").validate(entry)
        for field in entry:
            assert not validator("manifest").is_valid({key: value for key, value in entry.items() if key != field})
    assert len(manifest) == 3


def test_the_example_of_a_manifest_fits_its_schema() -> None:
    text = (HOME / "jobs" / "README.md").read_text().partition("```json manifest\n")[2].partition("```")[0]
    validator("manifest").validate(json.loads(text))


def test_every_event_fits_its_schema_and_unknown_ones_do_too() -> None:
    error = errors.ServerFault("overloaded", http_status=503)
    for kind in typing.get_args(events.Event):
        hints = typing.get_type_hints(kind, {**vars(events), "RequestError": errors.RequestError})
        values = {name: _example(hint, error) for name, hint in hints.items()}
        line = json.loads(json.dumps(event_json(kind(**values))))
        validator("event").validate(line)
        for name in hints:
            assert not validator("event").is_valid({key: one for key, one in line.items() if key != name}), name
    validator("event").validate({"event": "moon_rose", "at": "2026-11-28T06:30:00.125Z", "phase": 0.5})
    assert not validator("event").is_valid({"event": "moon_rose"})


def _example(hint: Any, error: errors.RequestError) -> Any:
    """Return a value of the first type that a hint names."""
    first = typing.get_args(hint)[0] if typing.get_args(hint) and typing.get_origin(hint) is not tuple else hint
    examples = {str: "a", int: 1, float: 0.5, bool: True, errors.RequestError: error, tuple[str, ...]: ("a",)}
    return first if isinstance(first, str) else examples[first]

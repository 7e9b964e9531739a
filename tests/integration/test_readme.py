"""Every README tells the truth: its blocks run, its files exist, and its references name every key that there is.

A block ```sh runs in a copy of the repository where `.venv` is there already (see readme_commands.py) and the provider
`openai` is a sandbox. A word after the language says what a block of YAML is: a `job`, a `config`, some of a config's
`providers`, or some of a job's `requests`.
"""

from __future__ import annotations

import configparser
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import textwrap
import typing
from typing import TYPE_CHECKING, Any

import pytest

import pipeline
from pipeline.cli.error_output import EXIT_BUG
from pipeline.cli.main import cli
from pipeline.cli.options import Options
from pipeline.config.load import load
from pipeline.engine import events
from pipeline.errors import BadInput, Stop
from pipeline.models.table import Models
from pipeline.planning.build import JobOptions, make_plans
from pipeline.planning.job import read_job
from pipeline.sandbox.batch_settings import BatchFaults, BatchSettings
from pipeline.sandbox.dialect import Dialect
from pipeline.sandbox.settings import Faults, SandboxSettings
from pipeline.sandbox_process import check_settings
from pipeline.signals import SIGNALS
from tests.support import readme_commands
from tests.support.readme import COMMAND_LINE, HOME, README
from tests.support.stage import KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.stage import Stage

PLACES = [
    README,
    *(path for room in ("jobs", "pipeline", "tests") for path in sorted((HOME / room).rglob("README.md"))),
]
READMES = [path for path in PLACES if path.parent.name != "photoswipe"] + [HOME / "jobs" / "TROUBLESHOOTING.md"]
OF_CONFIG = HOME / "pipeline" / "config" / "README.md"
OF_JOBS = HOME / "jobs" / "README.md"
OF_SANDBOX = HOME / "pipeline" / "sandbox" / "README.md"
HEADINGS = [
    *("What it does", "Features", "Quick start", "Usage", "Job files", "Configuration", "Command line"),
    *("Notifications", "Output", "Reports and web UI", "Python API", "Guarantees", "Performance", "Development"),
    "Changelog",
]
KEYS_OF_A_REQUEST = [
    "operation",
    "prompt",
    "n",
    "id",
    "image",
    "mask",
    "fit",
    "resize",
    "model",
    "matrix",
    "rows",
    "extra",
]
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "outputs", "data", "dist", "build")

each_readme = pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(HOME)))


def _blocks(readme: Path, language: str) -> list[tuple[str, str]]:
    """Return the blocks of a language: the word after it, and the text."""
    found = _BLOCK.findall(readme.read_text())
    return [(word.strip(), text) for spoken, word, text in found if spoken == language]


@pytest.fixture
def clone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository with `.venv`, without limits, where `openai` is a sandbox."""
    folder = stage.folder / "clone"
    shutil.copytree(HOME, folder, ignore=_NOT_COPIED)
    programs = readme_commands.install(folder)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    text = (folder / "config.yaml").read_text()
    for old, new in (
        ("sandbox: true ", "rate_limit: null\n    sandbox: {rate_limit: null} "),
        ("base_url: https://api.openai.com/v1", f"base_url: {stage.serve(rate_limit=None).base_url}"),
        ("rate_limit: {images: 50, per_seconds: 60}", "rate_limit: null"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "config.yaml").write_text(text)
    monkeypatch.chdir(folder)
    return folder


def _run(block: str, folder: Path) -> None:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],  # noqa: S607 - as a person's shell finds it
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{block}\nends with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"


@each_readme
def test_every_block_is_of_a_language_that_is_tested(readme: Path) -> None:
    text = readme.read_text()
    spoken = {language for language, _, _ in _BLOCK.findall(text)}
    assert spoken <= {"sh", "yaml", "python", "json", "ini", "crontab", "text"}
    assert text.count("```") == 2 * len(_BLOCK.findall(text))


@pytest.mark.parametrize(
    "readme", [path for path in READMES if _blocks(path, "sh")], ids=lambda path: str(path.relative_to(HOME))
)
def test_the_commands_run_one_after_another(clone: Path, readme: Path) -> None:
    for word, block in _blocks(readme, "sh"):
        _run(block, clone)
        if word == "quickstart":
            manifest = (clone / "outputs" / "quickstart" / "manifest.jsonl").read_text().splitlines()
            assert {json.loads(line)["status"] for line in manifest} == {"succeeded"}
            assert sum(len(json.loads(line)["images"]) for line in manifest) == 12


@each_readme
def test_commands_within_sentences_are_understood(readme: Path) -> None:
    for line in re.findall(r"`pipeline ([^`]+)`", readme.read_text()):
        first = re.sub(r"(\\\|\w+)+", "", line)  # of several words
        name, *arguments = shlex.split(first.replace("[", "").replace("]", "").replace(" ...", ""))
        assert name in {*cli.commands, "--help"}
        if arguments:  # else the command is only named
            cli.commands[name].make_context(name, arguments, obj=Options())


def test_the_python_examples_run(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = [text for readme in READMES for _, text in _blocks(readme, "python")]
    for example in examples:
        exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own READMEs
    said = capsys.readouterr().out
    assert "succeeded" in said
    assert "400" in said
    assert (clone / "outputs" / "ledger.sqlite3").exists()


def test_the_yaml_blocks_are_read(clone: Path) -> None:
    read: dict[str, Callable[[str, Path], None]] = {
        "job": _read_job,
        "requests": lambda text, folder: _read_job(f"defaults: {{model: gpt-image-2}}\nrequests:\n{text}", folder),
        "config": _read_config,
        "providers": lambda text, folder: _read_config(f"providers:\n{textwrap.indent(text, '  ')}", folder),
    }
    count = 0
    for readme in READMES:
        for word, text in _blocks(readme, "yaml"):
            read[word](text, clone)
            count += 1
    assert count > 10


def _read_job(text: str, clone: Path) -> None:
    path = clone / "jobs" / "example.yaml"
    path.write_text(text)
    (plan,) = make_plans(load(clone / "config.yaml"), [path], JobOptions())
    assert plan.requests


def _read_config(text: str, clone: Path) -> None:
    path = clone / "example.yaml"
    path.write_text(text)
    config = load(path)
    for provider in config.providers.values():
        if provider.sandbox is not None:
            check_settings(config, provider)


def test_the_cron_line_runs(clone: Path) -> None:
    (clone / "keys.env").write_text(f"export OPENAI_API_KEY={KEY}\n")
    lines = [line for _, text in _blocks(OF_JOBS, "crontab") for line in text.splitlines()]
    assert lines
    for line in lines:
        moment = re.match(r"(?:\S+ +){5}", line)
        assert moment is not None
        _run(line[moment.end() :].replace("/srv/pictures", str(clone)), clone)
    assert (clone / "cron.log").read_text() == ""  # the queue is empty, and --quiet says nothing


def test_the_units_of_systemd_are_well_formed() -> None:
    service, timer = (_unit(text) for _, text in _blocks(OF_JOBS, "ini"))
    assert service["Service"]["ExecStart"].endswith("/.venv/bin/pipeline run")
    assert service["Service"]["SuccessExitStatus"].split() == ["1", str(128 + 15)]
    assert service["Service"]["RestartPreventExitStatus"].split() == [str(BadInput.exit_code), str(Stop.exit_code)]
    assert set(timer["Timer"]) == {"OnCalendar", "Persistent"}


def _unit(text: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign, assignment]  # configparser's own way to keep capitals
    unit.read_string(text)
    return unit


def test_the_example_of_the_manifest_has_its_fields(stage: Stage) -> None:
    shutil.copytree(HOME / "tests" / "data" / "ledger-v2", stage.folder, dirs_exist_ok=True)
    stage.run("manifest", "lounge")
    edit = next(entry for entry in stage.manifest("lounge") if entry["id"] == "sun")
    examples = [json.loads(text) for readme in READMES for word, text in _blocks(readme, "json") if word == "manifest"]
    assert examples
    for example in examples:
        assert _keys(example) == _keys(edit)


def _keys(entry: dict[str, Any]) -> list[set[str]]:
    return [set(entry), set(entry["images"][0]), set(entry["inputs"][0])]


def test_the_readme_has_the_usual_headings_and_is_short() -> None:
    text = README.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert text.count("\n") <= 285


@each_readme
def test_files_and_headings_that_are_linked_exist(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", readme.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = readme.parent / name if name else readme
        assert path.exists(), target
        if anchor:
            assert anchor in {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@each_readme
def test_files_of_the_repository_that_are_named_exist(readme: Path) -> None:
    named = re.findall(r"`((?:\.ci|jobs|pipeline|tests)/[\w./-]*)`", readme.read_text())
    assert [name for name in named if not (HOME / name).exists()] == []


def test_every_exit_code_and_every_event_is_named() -> None:
    table = re.findall(r"^\| ([\d, ]+) \|", README.read_text(), re.MULTILINE)
    codes = {int(code) for cell in table for code in cell.split(",")}
    assert codes == {0, 1, BadInput.exit_code, Stop.exit_code, EXIT_BUG, *(128 + number for number in SIGNALS)}
    named = COMMAND_LINE.read_text().partition("With `--json`")[2].partition("\n\n")[0]
    kinds = {kind.__name__ for kind in typing.get_args(events.Event)}
    assert {re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower() for kind in kinds} <= set(re.findall(r"`(\w+)`", named))


def test_everything_that_the_package_hands_out_is_named() -> None:
    text = README.read_text().partition("## Python API")[2].partition("\n## ")[0]
    assert [name for name in pipeline.__all__ if not re.search(rf"\b{name}\b", text)] == []


def _rows(readme: Path) -> set[str]:
    """Return the keys that have a row in a table; `retry` has one if `retry.attempts` has."""
    rows = re.findall(r"^\| (`[^|]+) \|", readme.read_text(), re.MULTILINE)
    keys = {key for row in rows for key in re.findall(r"`([\w.]+)", row)}
    return keys | {key.partition(".")[0] for key in keys}


def _lines(readme: Path) -> set[str]:
    """Return the keys that have a row, or a line in a block of YAML."""
    blocks = "".join(block for _, block in _blocks(readme, "yaml"))
    return _rows(readme) | set(re.findall(r"^ +(\w+):", blocks, re.MULTILINE))


def _mentions(readme: Path) -> set[str]:
    """Return the keys that are written as code, also within the value of another key."""
    return {key for pair in re.findall(r"`(\w+)\b|[{ ](\w+):", readme.read_text()) for key in pair}


@pytest.mark.parametrize(
    ("find", "prefix", "text"),
    [
        (_rows, "", "nonsense: 1"),
        (_rows, "retry.", "retry: {nonsense: 1}"),
        (_rows, "download.", "download: {nonsense: 1}"),
        (_rows, "", "providers: {x: {base_url: 'http://x/v1', nonsense: 1}}"),
        (_lines, "", "notify: {command: [x], nonsense: 1}"),
        (_rows, "workers.", "workers: {nonsense: 1}"),
        (_mentions, "", "providers: {x: {base_url: 'http://x/v1', rate_limit: {nonsense: 1}}}"),
        (_rows, "", "providers: {x: {base_url: 'http://x/v1', batch: {nonsense: 1}}}"),
        (_rows, "", "routes: {x: {providers: [openai], nonsense: 1}}"),
        (_mentions, "", "providers: {x: {base_url: 'http://x/v1', auth: {nonsense: 1}}}"),
        (_mentions, "", "providers: {x: {base_url: 'http://x/v1', paths: {nonsense: 1}}}"),
        (_mentions, "", "providers: {x: {base_url: 'http://x/v1', uploads: {nonsense: 1}}}"),
    ],
)
def test_every_key_of_the_config_is_described(
    tmp_path: Path, find: Callable[[Path], set[str]], prefix: str, text: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(BadInput) as refused:
        load(tmp_path / "config.yaml")
    assert {f"{prefix}{key}" for key in _known(str(refused.value))} - find(OF_CONFIG) == set()


def test_every_key_of_a_job_is_described(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("nonsense: 1\nrequests: [{prompt: x}]")
    (problem,) = read_job(tmp_path / "job.yaml").problems
    assert {*_known(str(problem)), *KEYS_OF_A_REQUEST} - _rows(OF_JOBS) == set()


def _known(refusal: str) -> list[str]:
    """Return the keys that the refusal of an unknown one lists."""
    assert "known are " in refusal
    return refusal.partition("known are ")[2].split(", ")


def test_every_setting_of_the_sandbox_is_described() -> None:
    kinds = (SandboxSettings, Faults, Dialect, BatchSettings, BatchFaults)
    names = {re.sub("^auth_.*", "auth", one.name) for kind in kinds for one in dataclasses.fields(kind)}
    assert names - _lines(OF_SANDBOX) == set()


def test_the_example_for_openai_is_for_models_that_are_alive() -> None:
    (plan,) = make_plans(load(HOME / "config.yaml"), [HOME / "jobs" / "openai.yaml"], JobOptions())
    assert plan.warnings == ()
    assert plan.unpriced == ()
    models = Models.load()
    names = {request.params["model"] for request in plan.requests}
    assert all((model := models.find(name)) is not None and model.shutdown is None for name in names)

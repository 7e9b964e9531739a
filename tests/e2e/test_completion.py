"""Completion in shells: a real Bash types, and the protocols of the others are asked as their scripts do."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from pipeline.cli.completion import complete_jobs, complete_providers, complete_settings
from pipeline.cli.main import cli
from pipeline.cli.options import Options
from tests.support import readme_commands
from tests.support.stage import GENERATION

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.stage import Stage

pytestmark = pytest.mark.processes


@pytest.fixture
def night(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A folder with two jobs in its ledger, two providers and a route; `pipeline` is on the path."""
    programs = readme_commands.install(stage.folder / "installed")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    stage.provider("sandy", stage.serve())
    stage.provider("other", "http://127.0.0.1:9/v1")
    stage.settings["routes"] = {"safe": ["sandy", "other"]}
    stage.write_config()
    for name in ("night-1", "night-2"):
        stage.run("submit", stage.job(name, [{"prompt": "a cat", **GENERATION}]))
    return stage


def asked(folder: Path, shell: str, words: str, place: int | str) -> list[str]:
    """Ask as the script of a shell does; whatever stands on stderr fails."""
    ended = subprocess.run(
        ["pipeline"],  # noqa: S607
        cwd=folder,
        env={**os.environ, "_PIPELINE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def typed(folder: Path, line: str) -> list[str]:
    """Return what Bash offers after a line, by the script that the program prints."""
    script = f"""
        eval "$(pipeline completion bash)"
        compopt() {{ :; }}
        COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}
        _pipeline_completion pipeline
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    ended = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True)  # noqa: S607
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_offers_commands_options_jobs_and_providers(night: Stage) -> None:
    assert typed(night.folder, "pipeline re") == ["resume", "redo", "report", "reconcile", "rename"]
    assert typed(night.folder, "pipeline plan --allow-") == ["--allow-large", "--allow-shrink", "--allow-unpriced"]
    assert typed(night.folder, "pipeline report ni") == ["night-1", "night-2"]
    assert typed(night.folder, "pipeline resume night-1 ") == ["night-1", "night-2"]
    assert typed(night.folder, "pipeline rename 'night-1") == ["night-1"]
    assert typed(night.folder, "pipeline plan x.yaml --provider ") == ["other", "sandy", "safe"]
    assert typed(night.folder, "pipeline plan x.yaml --provider=sa") == ["sandy", "safe"]
    assert typed(night.folder, "pipeline schema c") == ["config"]
    assert typed(night.folder, "pipeline run --mode b") == ["batch"]


def test_zsh_and_fish_offer_the_same(night: Stage) -> None:
    assert asked(night.folder, "zsh", "pipeline report ni", 2) == ["plain", "night-1", "_", "plain", "night-2", "_"]
    assert asked(night.folder, "fish", "pipeline report ni", "ni") == ["plain,night-1", "plain,night-2"]
    assert asked(night.folder, "fish", "pipeline plan --provider o", "o") == ["plain,other"]


def test_zsh_and_fish_replace_the_whole_word_so_an_option_stays_before_its_value(night: Stage) -> None:
    line, option = "pipeline plan --provider=o", "--provider=o"
    assert asked(night.folder, "zsh", line, 2) == ["plain", "--provider=other", "_"]
    assert asked(night.folder, "fish", line, option) == ["plain,--provider=other"]
    assert asked(night.folder, "zsh", "pipeline redo night-1 --set=mod", 3)[1::3] == [
        "--set=model=",
        "--set=moderation=",
    ]
    assert asked(night.folder, "zsh", "pipeline redo night-1 --set mod", 4)[1::3] == ["model=", "moderation="]


@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
def test_fish_completes_by_its_script(night: Stage) -> None:
    lines = ["plan --provider=s", "redo night-1 --set=mod", "report ni", "plan --allow-la"]
    script = "pipeline completion fish | source\n" + "".join(f"complete -C 'pipeline {line}'\n" for line in lines)
    ended = subprocess.run(["fish", "-c", script], cwd=night.folder, capture_output=True, text=True, check=True)  # noqa: S607
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        *("--provider=safe", "--provider=sandy", "--set=model=", "--set=moderation=", "night-1", "night-2"),
        "--allow-large\tAllow a job of more than 1,000,000 requests.",
    ]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_are_read_by_them(shell: str) -> None:
    script = subprocess.run(
        [sys.executable, "-m", "pipeline", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_PIPELINE_COMPLETE" in script.stdout
    assert script.stderr == ""
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n", "-c", script.stdout], check=True)


@pytest.mark.parametrize("line", ["pipeline report n", "pipeline plan --provider s", "pipeline resume "])
@pytest.mark.parametrize("state", ["nothing is there", "the config is broken", "the ledger is broken", "unreadable"])
def test_completion_creates_no_folder_and_is_silent(
    line: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, programs = tmp_path / "work", readme_commands.install(tmp_path)
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    if state == "the config is broken":
        (folder / "config.yaml").write_text("providers: [")
    elif state == "unreadable":
        (folder / "config.yaml").mkdir()
    elif state == "the ledger is broken":
        (folder / "outputs").mkdir()
        (folder / "outputs" / "ledger.sqlite3").write_bytes(b"no ledger" * 1000)
    before = sorted(folder.rglob("*"))
    asked(folder, "bash", line, 2)
    assert sorted(folder.rglob("*")) == before


def test_settings_offer_parameters_then_models_and_values() -> None:
    context = click.Context(cli, obj=Options())
    option = click.Option(["--set"])
    assert complete_settings(context, option, "mod") == ["model=", "moderation="]
    assert complete_settings(context, option, "model=gpt-image-2.6") == [
        "model=gpt-image-2.6-sunburst",
        "model=gpt-image-2.6-flare",
    ]
    assert complete_settings(context, option, "quality=h") == ["quality=high", "quality=hd"]
    assert complete_settings(context, option, "user=") == []


def test_every_job_provider_and_setting_on_the_command_line_is_completed() -> None:
    known = {"job": complete_jobs, "jobs": complete_jobs, "old": complete_jobs}
    known |= {"provider": complete_providers, "--provider": complete_providers, "--set": complete_settings}
    for command in cli.commands.values():
        for parameter in command.params:
            completes = next((known[name] for name in parameter.opts if name in known), None)
            if completes is not None and not isinstance(parameter.type, click.Path):
                assert parameter._custom_shell_complete is completes, (command.name, parameter.name)

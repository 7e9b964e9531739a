"""What to type next is one line everywhere: the words first, then the options, quoted for a shell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.load import load
from pipeline.reports.next_command import NextCommand

if TYPE_CHECKING:
    import pytest


def test_a_command_names_the_config_and_the_output_folder_only_if_it_has_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("output: outputs\n")
    (tmp_path / "my config.yaml").write_text("output: elsewhere\n")
    monkeypatch.chdir(tmp_path)
    plain, other = load(), load(Path("my config.yaml"))
    assert NextCommand.here(plain).line("resume", "night") == "pipeline resume night"
    assert NextCommand.here(other).line("resume", "night") == "pipeline resume night --config 'my config.yaml'"
    moved = load(output=tmp_path / "there")
    assert NextCommand.here(moved).line("run") == "pipeline run --output there"
    (tmp_path / "config.yaml").unlink()
    assert NextCommand.here(load()).options == ()
    assert NextCommand.here(load(output=tmp_path / "there")).options == ("--output", "there")


def test_a_folder_above_the_current_one_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("output: outputs\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "other.yaml").write_text("output: outputs\n")
    command = NextCommand.here(load(tmp_path / "other.yaml"))
    assert command.folder == tmp_path / "here"
    assert command.line("run") == f"pipeline run --config {tmp_path}/other.yaml"
    assert NextCommand.here(load(tmp_path / "config.yaml")).line("run") == "pipeline run", "it is found from here, too"
    assert NextCommand.here(load()).line("run") == "pipeline run"


def test_a_command_that_holds_anywhere_names_both_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("output: outputs\n")
    monkeypatch.chdir(tmp_path)
    command = NextCommand.anywhere(load())
    assert command.line("run") == f"pipeline run --config {tmp_path}/config.yaml --output {tmp_path}/outputs"


def test_a_config_that_is_broken_by_now_does_not_keep_the_command_from_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text("output: outputs\n")
    monkeypatch.chdir(tmp_path)
    config = load()
    (tmp_path / "config.yaml").write_text("nonsense: true\n")
    assert NextCommand.here(config).line("run") == "pipeline run --output outputs"

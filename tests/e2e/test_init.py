"""`pipeline init`: what it writes, what it leaves alone, and that its own words lead to a picture."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.cli.init_command import starter_text
from pipeline.cli.main import main
from tests.support import readme_commands

FILES = ("config.yaml", "first.yaml")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def names() -> set[str]:
    return {path.name for path in Path().iterdir()}


@pytest.mark.processes
@pytest.mark.parametrize("words", [[], ["my pictures/new"]], ids=["here", "in a folder that is made"])
def test_the_words_that_it_prints_lead_to_a_picture(words: list[str], tmp_path: Path) -> None:
    programs = readme_commands.install(tmp_path)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    began = time.monotonic()
    init = subprocess.run([programs / "pipeline", "init", *words], capture_output=True, text=True, check=True)
    (line,) = re.findall(r"^    (.*)$", init.stdout, re.MULTILINE)
    subprocess.run(["bash", "-c", line], env=environment, capture_output=True, check=True)  # noqa: S607
    pictures = list(Path(*words).glob("outputs/first/images/*.png"))
    assert len(pictures) == 6
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["file", "folder", "dead link"])
def test_a_file_that_is_there_is_refused_and_nothing_is_written(
    name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("other.txt").touch()
    if kind == "dead link":
        Path(name).symlink_to("nowhere")
    elif kind == "folder":
        Path(name).mkdir()
    else:
        Path(name).write_text("mine")
    assert code_of("init") == 2
    assert f"{name}: is there already; nothing was written" in capsys.readouterr().err
    assert names() == {name, "other.txt"}
    assert kind != "file" or Path(name).read_text() == "mine"


def test_a_second_init_names_both_files_and_no_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("init") == 0
    assert code_of("init") == 2
    assert capsys.readouterr().err == "error: config.yaml and first.yaml: are there already; nothing was written\n"


def test_other_files_do_not_matter(capsys: pytest.CaptureFixture[str]) -> None:
    Path("outputs").mkdir()
    Path("second.yaml").touch()
    assert code_of("init") == 0
    assert capsys.readouterr().out.splitlines()[:2] == [*FILES]
    assert code_of("plan", "first.yaml") == 0
    assert "6 images" in capsys.readouterr().out


def test_the_folder_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").touch()
    assert code_of("init", "taken") == 2
    assert capsys.readouterr().err == "error: taken: cannot be written to: File exists\n"


def test_the_first_file_is_taken_away_if_the_second_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_is_full(path: str, content: bytes) -> None:
        if path.endswith("first.yaml"):
            raise OSError(28, "No space left on device")
        Path(path).write_bytes(content)

    monkeypatch.setattr("pipeline.files.write_new", disk_is_full)
    assert code_of("init") == 2
    assert names() == set()


def test_another_config_in_force_does_not_take_the_place_of_the_new_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_CONFIG", "/elsewhere/config.yaml")
    assert code_of("--output", "results", "init", "new") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"    cd new && pipeline run first.yaml --config config.yaml --output {Path('results').absolute()}"


@pytest.mark.parametrize("name", FILES)
def test_the_first_line_names_a_schema_that_is_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_line() -> str:
        return starter_text(name).partition("\n")[0]

    path = first_line().partition("$schema=")[2]
    assert Path(path).is_file()
    monkeypatch.setattr("pipeline.cli.schema_command._FOLDER", Path("/opt/my programs/#1"))
    assert re.search(r"\$schema=file:///opt/my%20programs/%231/\w+\.schema\.json$", first_line())

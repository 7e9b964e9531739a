"""A file that a person names is opened if it is an ordinary one; anything else is a sentence, at once."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.main import main
from pipeline.config.yaml_document import read
from pipeline.errors import JobError
from pipeline.images.source import ImageSource
from pipeline.ordinary_file import open_ordinary, read_up_to
from pipeline.planning import rows, table_format

if TYPE_CHECKING:
    from collections.abc import Callable

ORDINARY = "provider: sandbox\ndefaults: {model: dall-e-2}\nrequests: [{prompt: '{{ prompt }}', rows: rows.txt}]\n"


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is no ordinary file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is no ordinary file"),
    "folder": (lambda path: path.mkdir(), "Is a directory"),
    "loop": (make_loop, "Too many levels of symbolic links"),
    "secrets": (lambda path: path.symlink_to("/proc/self/environ"), "it is no ordinary file"),
    "link to a view": (lambda path: path.symlink_to("proc/self/status"), "it is no ordinary file"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_CONFIG", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-secret")
    Path("proc").symlink_to("/proc")
    Path("j.yaml").write_text(ORDINARY)
    Path("rows.txt").write_text("a cat\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["j.yaml", "rows.txt", "other.yaml", "config.yaml"])
def test_what_is_no_ordinary_file_is_refused_at_once(kind: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, sentence = ODD[kind]
    Path(name).unlink(missing_ok=True)
    make(Path(name))
    with pytest.raises(SystemExit) as caught:
        main(["--config", name, "plan", "j.yaml"] if name == "other.yaml" else ["plan", "j.yaml"])
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert f"{name}" in said.err
    assert f"cannot be read: {sentence}" in said.err
    assert "sk-a-secret" not in said.err + said.out


def test_a_link_to_an_ordinary_file_is_read(tmp_path: Path) -> None:
    Path("link.txt").symlink_to(tmp_path / "rows.txt")
    with open_ordinary(Path("link.txt")) as file:
        assert file.read() == b"a cat\n"


@pytest.mark.parametrize("size", [0, 1, 150_000, 200_000, 200_001, 300_000])
def test_a_file_is_read_whole_unless_it_is_larger_than_the_most(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(content := os.urandom(size))
    with open_ordinary(tmp_path / "a") as file:
        found = read_up_to(file, 200_000)
    assert content.startswith(found)
    assert found == content if size <= 200_000 else 200_000 < len(found) < 300_000


def test_a_small_file_needs_little_memory(tmp_path: Path) -> None:
    read(Path("j.yaml"), JobError)
    tracemalloc.start()
    try:
        read(Path("j.yaml"), JobError)
        ImageSource.of(tmp_path / "rows.txt").read()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_rows_file_of_terabytes_or_of_one_endless_line_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE", 50)
    for content, sentence in (("x" * 51, "line 1: is longer than 50 characters"), ("a\n" + "x" * 48 + "\n", "")):
        Path("rows.txt").write_text(content)
        with pytest.raises(SystemExit) as caught:
            main(["plan", "j.yaml"])
        assert (caught.value.code, sentence in capsys.readouterr().err) == (2 if sentence else 0, True)
    with Path("rows.txt").open("wb") as file:
        file.truncate(2**40)  # a file with a hole takes no room
    with pytest.raises(SystemExit) as caught:
        main(["plan", "j.yaml"])
    assert caught.value.code == 2
    assert "rows.txt has 1,024.0 GB, more than 4; split it" in capsys.readouterr().err


def test_a_quote_that_never_ends_is_not_gathered_beyond_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_format, "_MAX_RECORD", 1000)
    gathered = [len(text) for _, text in table_format._records(['"x\n', *["y" * 99 + "\n"] * 100])]
    assert max(gathered) < 1200
    assert not table_format.find_tab_quotes(["a\tb\n", '"x\n', *["y" * 99 + "\n"] * 100]).is_excel

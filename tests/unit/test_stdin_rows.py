"""`rows: -` reads JSON lines from standard input, anew for each command."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = "providers: {lab: {base_url: 'http://127.0.0.1:9/v1'}}\nprovider: lab\n"
ENTRY = '  - {prompt: "{{ prompt }}", model: dall-e-2, rows: "-"}\n'
CATS = b'{"prompt": "a cat"}\n\n{"prompt": "a dog"}\n'


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command with these bytes in a pipe at its standard input: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    Path("j.yaml").write_text(f"requests:\n{ENTRY}")

    def run(given: bytes, *words: str) -> tuple[int, str, str]:
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(given)
        with os.fdopen(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as caught:
                main(words)
        said = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, said.out, said.err

    return run


def queued(command: Callable[..., tuple[int, str, str]]) -> dict[str, int]:
    counts = json.loads(command(b"", "status", "--json")[1])["jobs"][0]["counts"]
    return {status: count for status, count in counts.items() if count}


def test_each_command_reads_its_lines_anew(command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = command(CATS, "plan", "j.yaml", "--json")
    assert (code, json.loads(out)["requests"]) == (0, 2)
    assert command(CATS, "submit", "j.yaml")[0] == 0
    assert queued(command) == {"pending": 2}
    assert command(CATS + b'{"prompt": "a cow"}', "submit", "j.yaml")[0] == 0
    assert queued(command) == {"pending": 3}


@pytest.mark.parametrize("nothing", [b"", b"\n \n"])
def test_nothing_there_is_bad_input_and_supersedes_nothing(
    command: Callable[..., tuple[int, str, str]], nothing: bytes
) -> None:
    assert command(CATS, "submit", "j.yaml")[0] == 0
    code, _, err = command(nothing, "submit", "j.yaml")
    assert code == 2
    assert "j.yaml, line 2, requests[0].rows: standard input has no rows; pipe JSON lines into the command" in err
    assert queued(command) == {"pending": 2}


def test_a_terminal_and_a_closed_input_are_refused_at_once(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(CATS, "submit", "j.yaml")[0] == 0
    ours, theirs = os.openpty()
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    with os.fdopen(theirs) as terminal, os.fdopen(ours, "wb"):
        for stdin, what in ((terminal, "is a terminal"), (closed, "is closed"), (None, "is closed")):
            monkeypatch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as caught:
                main(["submit", "j.yaml"])
            assert caught.value.code == 2
            assert f"requests[0].rows: standard input {what}; pipe JSON lines" in capsys.readouterr().err
    assert queued(command) == {"pending": 2}


def test_only_one_entry_of_a_command_reads_standard_input(command: Callable[..., tuple[int, str, str]]) -> None:
    assert command(CATS, "submit", "j.yaml")[0] == 0
    Path("two.yaml").write_text(f"requests:\n{ENTRY}{ENTRY}")
    code, _, err = command(CATS, "submit", "two.yaml")
    assert code == 2
    assert "two.yaml, line 3, requests[1].rows: reads standard input, as another entry does, and only one can" in err
    Path("k.yaml").write_text(f"requests:\n{ENTRY}")
    code, _, err = command(CATS, "submit", "j.yaml", "k.yaml", "--limit", "1")
    assert code == 2
    assert "k.yaml, line 2, requests[0].rows: reads standard input, as another entry does" in err
    assert queued(command) == {"pending": 2}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (b'{"prompt": "a"}\n{"prompt": "b"', "standard input, line 2: is not JSON"),
        (b'{"prompt": "a"}\n["b"]\n', "standard input, line 2: must be one object"),
        (b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n', "standard input, line 2: is not UTF-8 (invalid continuation"),
        (b'{"prompt": "a"}\n{"prompt": ""}\n', "requests[0].prompt (standard input, line 2): is missing"),
    ],
)
def test_a_mistake_is_named_with_its_line(
    command: Callable[..., tuple[int, str, str]], lines: bytes, words: str
) -> None:
    code, _, err = command(lines, "plan", "j.yaml")
    assert (code, words in err) == (2, True), err


def test_a_bom_is_dropped_and_a_line_has_a_bound(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(b"\xef\xbb\xbf" + CATS, "plan", "j.yaml")[0] == 0
    monkeypatch.setattr("pipeline.planning.json_rows.MAX_LINE", 20)
    code, _, err = command(CATS, "plan", "j.yaml")
    assert (code, "standard input, line 1: is longer than 20 characters" in err) == (2, True)


def test_a_run_that_stopped_is_continued_without_reading_standard_input_again(
    command: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, err = command(CATS, "run", "j.yaml", "--limit", "2", "--budget", "0.001")
    assert code == 3
    assert err.endswith("still queued: 2 requests for 2 images; to continue, run:\n    pipeline run --budget 0.04\n")

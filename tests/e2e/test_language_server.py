"""The schemas in an editor: the YAML language server reads the line for it that `pipeline init` writes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.init_command import starter_text
from tests.support.language_server import LanguageServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVER = shutil.which("yaml-language-server")
CURSOR = "|"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(SERVER is None, reason="there is no yaml-language-server; npm installs it"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    with LanguageServer([str(SERVER), "--stdio"]) as started:
        yield started


def opened(server: LanguageServer, folder: Path, text: str, file: str = "first.yaml") -> tuple[int, int, list[str]]:
    """Open a file of this text, below its line for editors; return where the cursor is, and what is said against it."""
    whole = f"{starter_text(file).partition(chr(10))[0]}\n{text}"
    before = whole.partition(CURSOR)[0]
    found = server.open(folder / file, whole.replace(CURSOR, ""))
    said = [f"{one['range']['start']['line']}: {one['message']}" for one in found]
    return before.count("\n"), len(before) - before.rfind("\n") - 1, said


@pytest.mark.parametrize("file", ["config.yaml", "first.yaml"])
def test_it_has_nothing_against_what_init_writes(server: LanguageServer, tmp_path: Path, file: str) -> None:
    assert server.open(tmp_path / file, starter_text(file)) == []


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("requests:\n  - prompt: x\n    model: |\n", {"gpt-image-2", "dall-e-2", "gpt-image-2.6-flare"}, {"low"}),
        ("requests:\n  - prompt: x\n    model: dall-e-3\n    quality: |\n", {"standard", "hd"}, {"low", "max"}),
        ("defaults:\n  model: gpt-image-2\nrequests:\n  - {prompt: x, quality: |}\n", {"low", "auto"}, {"hd", "max"}),
        (
            "requests:\n  - prompt: x\n    model: dall-e-3\n    s|\n",
            {"size", "style", "matrix"},
            {"background"},
        ),
        ("requests:\n  - prompt: x\n    operation: |\n", {"generation", "edit", "variation"}, {"crop"}),
        ("m|\nrequests:\n  - prompt: x\n", {"mode", "deadline", "budget_usd"}, {"model", "size"}),
    ],
)
def test_it_completes_a_job(server: LanguageServer, tmp_path: Path, text: str, some: set[str], none: set[str]) -> None:
    line, column, _ = opened(server, tmp_path, text)
    found = set(server.complete(line, column))
    assert some <= found
    assert not none & found


def test_it_completes_a_config(server: LanguageServer, tmp_path: Path) -> None:
    text = "providers:\n  lab:\n    base_url: https://x/v1\n    c|\n"
    assert {"concurrency", "rate_limit"} <= set(server.complete(*opened(server, tmp_path, text, "config.yaml")[:2]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("requests:\n  - pro|mpt: x\n", "Required for a generation and an edit"),
        ("requests:\n  - prompt: x\n    model: gpt-image-2\n    qual|ity: low\n", "Low, medium, high or auto"),
        ("requests:\n  - {prompt: x}\nbudg|et_usd: 5\n", "US dollars, at least 0"),
    ],
)
def test_it_explains_a_key(server: LanguageServer, tmp_path: Path, text: str, words: str) -> None:
    assert words in server.explain(*opened(server, tmp_path, text)[:2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("requests:\n  - promt: x\n", ["2: unknown key, close to a known one"]),
        (
            "requests:\n  - prompt: x\n    model: gpt-image-2\n    style: vivid\n",
            ["4: Not taken: leave it out and describe the style in the prompt: only dall-e-3 takes it."],
        ),
    ],
)
def test_it_says_what_is_wrong(server: LanguageServer, tmp_path: Path, text: str, said: list[str]) -> None:
    assert opened(server, tmp_path, text)[2] == said

"""The house is as its lists say: every module in its room's list, and the README's list the same."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.readme import HOME, PACKAGE, README, listed, written

if TYPE_CHECKING:
    from pathlib import Path

ROOMS = [PACKAGE, *(path for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").exists())]


def _modules(room: Path) -> set[str]:
    files = {path.stem for path in room.glob("*.py") if not path.stem.startswith("__")}
    return files | {path.name for path in room.iterdir() if (path / "__init__.py").exists()}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_rooms_docstring_lists_its_modules(room: Path) -> None:
    _, modules = listed(room)
    assert set(modules) == _modules(room)


def test_what_the_code_tells_in_the_readme_is_what_the_code_says_now() -> None:
    text = README.read_text()
    assert text == written(text), "run `python -m tests.readme`"


def test_every_module_says_in_its_first_line_what_it_does() -> None:
    for path in PACKAGE.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        assert len(docstring.splitlines()[0]) > 20, path


def test_ci_and_the_readme_use_one_test_command() -> None:
    command = re.search(r"```sh tests\n(.+)\n```", README.read_text())
    assert command is not None
    assert command[1] in (HOME / ".ci" / "run").read_text()

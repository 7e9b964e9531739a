"""The house is as its lists say: every module in its room's list, and the README's list the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
PACKAGE = HOME / "pipeline"
ROOMS = [PACKAGE, *(path for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").exists())]


def _listed(text: str) -> dict[str, str]:
    """Read `name   what it does` lines."""
    return dict(re.findall(r"^(\w+) {2,}(\S.*)$", text, re.MULTILINE))


def _modules(room: Path) -> set[str]:
    files = {path.stem for path in room.glob("*.py") if not path.stem.startswith("__")}
    return files | {path.name for path in room.iterdir() if (path / "__init__.py").exists()}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_rooms_docstring_lists_its_modules(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert docstring is not None
    assert set(_listed(docstring)) == _modules(room)


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_the_readme_shows_the_same_list(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    readme = (HOME / "README.md").read_text()
    missing = [f"{name}: {what}" for name, what in _listed(docstring).items() if what not in readme]
    assert not missing


def test_every_module_says_in_its_first_line_what_it_does() -> None:
    for path in PACKAGE.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        assert docstring, path
        assert len(docstring.splitlines()[0]) > 20, path


def test_ci_and_the_readme_use_one_test_command() -> None:
    command = re.search(r"```sh tests\n(.+)\n```", (HOME / "README.md").read_text())
    assert command is not None
    assert command[1] in (HOME / ".ci" / "run").read_text()

"""The package is as its lists say: every room is listed, and the READMEs' generated parts are current."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.readme import HOME, PACKAGE, PARTS, README, ROOMS, WAY, syntax_tree, written

if TYPE_CHECKING:
    from pathlib import Path


def test_the_readmes_list_every_room() -> None:
    assert {PACKAGE / name for name in ROOMS} == {path.parent for path in PACKAGE.rglob("__init__.py")}


def test_a_request_meets_at_most_21_modules() -> None:
    assert len(set(WAY)) == len(WAY) <= 21


@pytest.mark.parametrize("path", PARTS, ids=lambda path: str(path.relative_to(HOME)))
def test_generated_parts_of_the_readmes_are_current(path: Path) -> None:
    assert path.read_text() == written(path), "run `python -m tests.support.readme`"


def test_every_module_says_in_its_first_line_what_it_does() -> None:
    for path in PACKAGE.rglob("*.py"):
        docstring = ast.get_docstring(syntax_tree(path))
        assert docstring, path
        assert len(docstring.splitlines()[0]) > 20, path


def test_ci_and_the_readme_use_one_test_command() -> None:
    command = re.search(r"```sh tests\n(.+)\n```", README.read_text())
    assert command is not None
    assert command[1] in (HOME / ".ci" / "run").read_text()


def test_sql_is_in_the_ledger_only() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "ledger")]
    calls = [
        f"{path.relative_to(HOME)}:{node.lineno}"
        for path in modules
        for node in ast.walk(syntax_tree(path))
        if isinstance(node, ast.Call) and _executes_text(node)
    ]
    assert calls == []


def _executes_text(call: ast.Call) -> bool:
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in {"execute", "executemany", "executescript"}
        and any(isinstance(argument, ast.Constant | ast.JoinedStr) for argument in call.args[:1])
    )

"""What the package imports is declared, and no declared release has a published advisory that matters here."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.readme import HOME, PACKAGE, syntax_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_EXTRAS = {"dynamicprompts", "fsspec", "mlcroissant", "pyarrow", "pyparsing", "ray"}
"""Every library of an object store brings fsspec, and dynamicprompts brings pyparsing."""

SAFE = {
    "aiohttp": "3.14.4",
    "filelock": "3.20.3",
    "jinja2": "3.1.6",
    "multidict": "6.9.1",
    "pillow": "13.0.0",
    "pydantic": "2.4.0",
    "pyyaml": "5.4",
}


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    return {_plain(one.name): one for one in map(Requirement, project["dependencies"])}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _imported() -> Iterator[str]:
    """Yield the top-level names of other packages that are imported, also within functions."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(syntax_tree(path)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            yield from (name.partition(".")[0] for name in names)


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    found = packages_distributions()
    others = set(_imported()) - set(sys.stdlib_module_names) - {"pipeline"}
    assert {_plain(found[name][0]) for name in others - OF_EXTRAS} == set(declared())


def test_the_lower_bounds_admit_no_release_with_an_advisory() -> None:
    bounds = declared()
    for name, safe in SAFE.items():
        (bound,) = bounds[name].specifier
        assert bound.operator == ">="
        assert Version(bound.version) >= Version(safe), name

"""The code → the parts of README that are told by it; `python -m tests.readme` writes them anew.

A part stands between `<!-- NAME -->` and `<!-- end -->`. test_layout.py holds the README to what this would write.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

HOME = Path(__file__).parents[1]
README = HOME / "README.md"
PACKAGE = HOME / "pipeline"
ROOMS = ["", "spec", "engine", "results", "live", "sandbox"]  # in the order of the data


def listed(room: Path) -> tuple[str, dict[str, str]]:
    """Read a room's docstring: its first line, and what each of its modules does."""
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
    return docstring.splitlines()[0], dict(re.findall(r"^(\w+) {2,}(\S.*)$", docstring, re.MULTILINE))


def modules() -> str:
    """Write a table for each room."""
    tables = []
    for name in ROOMS:
        first, lines = listed(PACKAGE / name)
        title = f"pipeline/{name}/" if name else "pipeline/"
        rows = "".join(f"| `{module}` | {what} |\n" for module, what in lines.items())
        tables.append(f"| `{title}` | {first} |\n|---|---|\n{rows}")
    return "\n".join(tables)


PARTS = {"modules": modules}


def written(text: str) -> str:
    """Give the README's text with each generated part as the code tells it now."""
    for name, write in PARTS.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        assert end, name
        text = before + begin + write() + end + after
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text()))

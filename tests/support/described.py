"""What the tables of READMEs say of each key, for the descriptions in schemas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def descriptions(readme: Path, heading: str) -> dict[str, str]:
    """Return the last cell of each row below a heading of a README, by the keys that its first cell names as code."""
    _, _, section = readme.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    section = re.split(r"^#{1,3} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    found: dict[str, str] = {}
    for row in re.findall(r"^\| (`.*) \|$", section, re.MULTILINE):
        cells = [cell.replace(r"\|", "|") for cell in re.split(r" (?<!\\)\| ", row)]
        default = f" Default: {_plain(cells[1])}." if len(cells) == 3 and cells[1] not in {"none", "required"} else ""
        for key in re.findall(r"`([\w.\[\]]+)[^`]*`", cells[0]):
            found[key] = f"{_plain(cells[-1]).removesuffix('.')}.{default}"
    return found


def _plain(text: str) -> str:
    """Return a text without links and emphasis."""
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text).replace("**", "").replace("`", "'")

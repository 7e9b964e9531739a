"""Read picks.jsonl, as the report saves it: one marked image a line, for `redo` and `export`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BadInput, Problem
from pipeline.ordinary_file import open_ordinary

if TYPE_CHECKING:
    from pathlib import Path

_MARKS = ("accept", "reject")

_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Pick:
    """A marked image; `file` is relative to the job's folder, `location` names the line that marks it."""

    file: str
    sha256: str
    mark: str
    location: str


def read_picks(path: Path) -> list[Pick]:
    """Return the marked images, each with its last mark. Raises BadInput with every line that is not one."""
    try:
        with open_ordinary(path) as file:
            text = file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise BadInput([Problem(str(path), "does not exist; save it in the report with `Save picks.jsonl`")]) from None
    except (OSError, ValueError) as reason:
        message = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise BadInput([Problem(str(path), f"cannot be read: {message}")]) from None
    lines = enumerate(text.split("\n"), start=1)
    found = [_read_line(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    if problems := [problem for problem in found if isinstance(problem, Problem)]:
        raise BadInput(problems[:_MOST_PROBLEMS])
    return list({(pick.file, pick.sha256): pick for pick in found if isinstance(pick, Pick)}.values())


def _read_line(line: str, location: str) -> Pick | Problem:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return Problem(location, "is not JSON; the report writes one object a line")
    if not isinstance(value, dict):
        return Problem(location, "is not a JSON object; the report writes one a line")
    for field in ("file", "sha256", "mark"):
        if not isinstance(value.get(field), str):
            return Problem(
                f"{location}: {field}", "is missing or not text; the report writes id, file, sha256 and mark"
            )
    if value["mark"] not in _MARKS:
        return Problem(f"{location}: mark", f"is `{value['mark']:.60}`; it must be one of {', '.join(_MARKS)}")
    return Pick(value["file"], value["sha256"], value["mark"], location)

"""Reads `picks.jsonl`, which the report saves: the images that a person has accepted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.errors import BadInput, Problem
from pipeline.ordinary_file import open_ordinary

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.storage import StoredImage

_MARKS = ("accept", "reject")


class Picks:
    """The accepted images of a file of picks, by file and hash; `take` notes which are found."""

    def __init__(self, path: Path, accepted: dict[tuple[str, str], int]) -> None:
        self._path = path
        self._lines = accepted  # of the file, by image
        self._missing = set(accepted)

    def take(self, image: StoredImage) -> bool:
        """Return whether an image is accepted."""
        self._missing.discard((image.file, image.sha256))
        return (image.file, image.sha256) in self._lines

    def check_all_found(self, job: str) -> None:
        """Check that every accepted image was found. Raises BadInput that names those that were not."""
        if self._missing:
            raise BadInput(
                Problem(
                    f"{self._path}, line {self._lines[pick]}",
                    f"job `{job}` states no image {pick[0]} with this hash: mark it again in the job's report",
                )
                for pick in sorted(self._missing, key=self._lines.__getitem__)
            )


def read_picks(path: Path) -> Picks:
    """Read a file of picks; the last mark of an image counts. Raises BadInput."""
    try:
        with open_ordinary(path) as file:
            lines = file.read().decode().split("\n")
    except (OSError, ValueError) as reason:
        said = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        raise BadInput(f"the picks {path} cannot be read: {said}") from None
    marks: dict[tuple[str, str], tuple[str, int]] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            image, mark = _read_line(line)
        except ValueError as reason:
            problems.append(Problem(f"{path}, line {number}", str(reason)))
        else:
            marks[image] = mark, number
    if problems:
        raise BadInput(problems)
    accepted = {image: number for image, (mark, number) in marks.items() if mark == "accept"}
    if not accepted:
        raise BadInput(f"the picks {path} accept no image: press `a` on some in the job's report, and save them again")
    return Picks(path, accepted)


def _read_line(line: str) -> tuple[tuple[str, str], str]:
    """Return the image of a line, by file and hash, and its mark. Raises ValueError."""
    try:
        pick = json.loads(line)
    except ValueError as reason:
        what = f"is no JSON: {reason}"
        raise ValueError(what) from None
    found = [pick.get(name) for name in ("file", "sha256", "mark")] if isinstance(pick, dict) else []
    fields = [field for field in found if isinstance(field, str)]
    if len(fields) != 3:
        what = "is no object with the texts `file`, `sha256` and `mark`, as the job's report saves them"
        raise ValueError(what)
    file, sha256, mark = fields
    if mark not in _MARKS:
        what = f"`mark` is `{mark}`; write `accept` or `reject`"
        raise ValueError(what)
    return (file, sha256), mark

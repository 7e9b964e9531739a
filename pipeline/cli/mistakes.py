"""Print the mistakes in the input: those of a kind at many places are bounded, and the count stands last."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pipeline.planning.diagnostics import without_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.errors import Problem

MAX_OF_A_KIND = 20
"""Mistakes that differ in places and values only and are printed in full; for the rest their lines are named."""

_MAX_FILES = 3
_MAX_LINES = 10
_LINE = re.compile(r", lines? (\d[\d, -]*)")


def mistake_lines(problems: Sequence[Problem]) -> Iterator[str]:
    """Yield a line for each mistake, and their number if there are several."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kind = kinds.setdefault((without_values(problem.location), without_values(problem.message)), [])
        kind.append(problem)
        if len(kind) <= MAX_OF_A_KIND:
            yield str(problem)
    for kind in kinds.values():
        if len(kind) > MAX_OF_A_KIND:
            yield _rest(kind[MAX_OF_A_KIND:])
    count = sum(problem.count for problem in problems)
    if count > 1:
        yield f"{count:,} mistakes{_files(problems)}"


def _rest(hidden: Sequence[Problem]) -> str:
    """Return what is printed for the mistakes of a kind beyond the bound."""
    lines = [match[1].strip(" ,") for problem in hidden if (match := _LINE.search(problem.location))]
    shown = list(dict.fromkeys(lines))
    named = f", in lines {', '.join(shown[:_MAX_LINES])}" if shown else ""
    more = f" and {len(shown) - _MAX_LINES:,} more" if len(shown) > _MAX_LINES else ""
    number = sum(problem.count for problem in hidden)
    file = _file(hidden[0])
    return f"{file}{': ' if file else ''}{number:,} more like this{named}{more}: {hidden[0].message}"


def _files(problems: Sequence[Problem]) -> str:
    files = [file for file in dict.fromkeys(map(_file, problems)) if file]
    if len(files) > _MAX_FILES:
        return f" in {len(files):,} files"
    return f" in {' and '.join(files)}" if files else ""


def _file(problem: Problem) -> str:
    return problem.location.partition(", line")[0]

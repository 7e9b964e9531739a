"""Collect the problems and warnings of one job while it is planned."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config.yaml_document import MAX_PROBLEMS
from pipeline.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.models.model import Model
    from pipeline.planning.job import Entry, Job
    from pipeline.planning.rows import Variables

MAX_LINES = 10
"""Lines of a rows file that one warning names."""


@dataclass(frozen=True, slots=True)
class ExpandedRequest:
    """One request of an entry with its variables filled in; fields that are null or an empty cell are left out.

    `line` is the line of its row, None if the entry has no `rows`.
    """

    entry: Entry
    line: int | None
    variables: Variables
    fields: Mapping[str, Any]
    model: Model | None


@dataclass(slots=True)
class Diagnostics:
    """Problems and warnings of a job in the order in which they were found, each once."""

    job: Job
    problems: dict[Problem, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)
    _row_warnings: dict[tuple[str, str], dict[int, None]] = field(default_factory=dict)  # file, message → lines

    @property
    def is_full(self) -> bool:
        """Whether there are as many problems as are reported at once."""
        return len(self.problems) >= MAX_PROBLEMS

    def add_problem(self, location: str, message: str) -> None:
        """Record a problem."""
        if self.is_full:
            return
        self.problems[Problem(location, message)] = None
        if len(self.problems) == MAX_PROBLEMS - 1:
            self.problems[Problem("", "there may be more problems; these come first")] = None

    def add_row_warning(self, file: str, line: int, message: str) -> None:
        """Record a warning of a line of a rows file; equal messages are reported once, with all their lines."""
        self._row_warnings.setdefault((file, message), {})[line] = None

    def all_warnings(self) -> tuple[str, ...]:
        """Return the warnings of the job, then those of its rows files; as many as there may be problems."""
        rows = (_row_warning(*key, list(lines)) for key, lines in self._row_warnings.items())
        found = tuple(itertools.islice(itertools.chain(self.warnings, rows), MAX_PROBLEMS))
        left = len(self.warnings) + len(self._row_warnings) - len(found)
        return (*found, f"and {left:,} more warnings") if left else found

    def add_field_problem(self, expanded: ExpandedRequest, key: str, message: str) -> None:
        """Record a problem of a field, unless a problem of its form has been recorded already."""
        if key.split(".", maxsplit=1)[0] not in expanded.entry.invalid:
            self.add_problem(self.location(expanded, key), message)

    def location(self, expanded: ExpandedRequest, key: str) -> str:
        """Return the location of a field in the job file, with the row that filled it in."""
        location = self.job.location(expanded.entry, key)
        return location if expanded.line is None else f"{location} ({expanded.entry.rows}, line {expanded.line})"


def _row_warning(file: str, message: str, lines: list[int]) -> str:
    more = f" and {len(lines) - MAX_LINES:,} more" if len(lines) > MAX_LINES else ""
    numbers = ", ".join(map(str, lines[:MAX_LINES]))
    return f"{file}, line{'s' if len(lines) > 1 else ''} {numbers}{more}: {message}"

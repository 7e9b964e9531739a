"""Collect the problems and warnings of one job while it is planned."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.models.model import Model
    from pipeline.planning.job import Entry, Job
    from pipeline.planning.rows import Variables

MAX_LINES = 10
"""Lines of a rows file, or ranges of lines, that one message names."""

MAX_WARNINGS = 100
"""Warnings that are shown; the rest are counted."""

MAX_HEIRS = 3
"""Requests that a message names, of those that a default does not suit."""

MAX_VALUES = 10
"""Mistakes of one kind in one field that are shown with their values; the rest are counted, with their rows."""

_VALUE = re.compile(r"`[^`]*`|'[^']*'|\d[\d,.x]*")


def without_values(text: str) -> str:
    """Return a message or a location without quoted values and numbers: equal for mistakes of one kind."""
    return _VALUE.sub("", text)


@dataclass(slots=True)
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
class LineRanges:
    """Lines of a file in ascending order, with neighbours joined: a million of them take little memory."""

    count: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[int]) -> LineRanges:
        """Return the ranges of these lines, which may be in any order."""
        found = cls()
        for line in sorted(lines):
            found.add(line)
        return found

    def add(self, line: int) -> None:
        """Add a line that is not before the last one."""
        first, last = self.ranges[-1] if self.ranges else (line, line - 2)
        if line == last:
            return
        self.count += 1
        if line == last + 1:
            self.ranges[-1] = (first, line)
        else:
            self.ranges.append((line, line))

    def __str__(self) -> str:
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges[:MAX_LINES]]
        hidden = sum(last - first + 1 for first, last in self.ranges[MAX_LINES:])
        return ", ".join(shown) + (f" and {hidden:,} more" if hidden else "")


_Mistake = tuple[str, str, str | None]
"""A mistake that is shown once: its location, its message, and the rows file whose lines meet it."""


@dataclass(slots=True)
class Diagnostics:
    """Problems and warnings of a job in the order in which they were found, each once with all its rows.

    `found` counts every occurrence of a problem.
    """

    job: Job
    found: int = 0
    warnings: dict[str, None] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)
    _mistakes: dict[_Mistake, LineRanges] = field(default_factory=dict)
    _others: dict[_Mistake, int] = field(default_factory=dict)  # those of a kind beyond MAX_VALUES → occurrences
    _kinds: Counter[tuple[str, str]] = field(default_factory=Counter)  # location and message without values
    _heirs: dict[_Mistake, tuple[str, set[int]]] = field(default_factory=dict)  # its default → entries that inherit it
    _row_warnings: dict[tuple[str, str], set[int]] = field(default_factory=dict)  # file, message → lines

    def __post_init__(self) -> None:
        self.found = len(self.job.problems)

    def add_problem(self, location: str, message: str) -> None:
        """Record a problem that no row takes part in."""
        self._add(location, message, None, None)

    def add_row_problem(self, file: str, line: int, message: str) -> None:
        """Record a problem of a line of a rows file."""
        self._add("", message, file, line)

    def add_row_warning(self, file: str, line: int, message: str) -> None:
        """Record a warning of a line of a rows file; equal messages are reported once, with all their lines."""
        self._row_warnings.setdefault((file, message), set()).add(line)

    def all_warnings(self) -> tuple[str, ...]:
        """Return the warnings of the job, then those of its rows files; the first of many, then their number."""
        rows = (
            f"{_folded('', file, LineRanges.of(lines))}: {message}"
            for (file, message), lines in self._row_warnings.items()
        )
        found = tuple(itertools.islice(itertools.chain(self.warnings, rows), MAX_WARNINGS))
        left = len(self.warnings) + len(self._row_warnings) - len(found)
        return (*found, f"and {left:,} more warnings") if left else found

    def all_problems(self) -> list[Problem]:
        """Return every different problem, with the rows that meet it, after the problems of the job's form."""
        folded = (
            Problem(_folded(mistake[0], mistake[2], lines), self._message(mistake), self._others.get(mistake, 1))
            for mistake, lines in self._mistakes.items()
        )
        return list(dict.fromkeys([*self.job.problems, *folded]))

    def add_field_problem(self, expanded: ExpandedRequest, key: str, message: str) -> None:
        """Record a problem of a field, unless a problem of its form has been recorded already."""
        if key.split(".", maxsplit=1)[0] not in expanded.entry.invalid:
            self.add_entry_problem(expanded.entry, expanded.line, key, message)

    def add_entry_problem(self, entry: Entry, line: int | None, key: str, message: str) -> None:
        """Record a problem of a field of an entry, in the row at `line` of its rows file."""
        file = None if line is None else entry.rows_name
        mistake = self._add(self.job.location(entry, key), message, file, line)
        name = key.partition(".")[0]
        if self.job.is_default(entry, name):
            self._heirs.setdefault(mistake, (name, set()))[1].add(entry.index)

    def location(self, entry: Entry, line: int | None, key: str) -> str:
        """Return the location of a field in the job file, with the row that filled it in."""
        location = self.job.location(entry, key)
        return location if line is None else f"{location} ({entry.rows_name}, {_word(entry.rows_name)} {line})"

    def _message(self, mistake: _Mistake) -> str:
        """Return the message; that of a default which suits other requests names those that it does not suit."""
        message = mistake[1]
        if mistake not in self._heirs:
            return message
        name, heirs = self._heirs[mistake]
        if len(heirs) == sum(name not in entry.own_keys for entry in self.job.entries):
            return message
        places = [_place(self.job, index) for index in sorted(heirs)[:MAX_HEIRS]]
        more = f" and {len(heirs) - MAX_HEIRS:,} more" if len(heirs) > MAX_HEIRS else ""
        where = f"in {'; '.join(places)}{more}"
        own = message.replace("leave it out", f"write `{name}: null` {where}")
        return own if own != message else f"{message} ({where})"

    def _add(self, location: str, message: str, file: str | None, line: int | None) -> _Mistake:
        """Record a problem; return under what it is recorded."""
        self.found += 1
        mistake = (location, message, file)
        if mistake not in self._mistakes:
            kind = (location or file or "", without_values(message))
            if self._kinds[kind] < MAX_VALUES:
                self._kinds[kind] += 1
            else:
                mistake = (location, f"has more mistakes of this kind, with other values: {kind[1]:.60}", file)
                self._others[mistake] = self._others.get(mistake, 0) + 1
        lines = self._mistakes.setdefault(mistake, LineRanges())
        if line is not None:
            lines.add(line)
        return mistake


def _place(job: Job, index: int) -> str:
    lines = job.document.lines
    return f"requests[{index}], line {lines.get(('requests', index), lines.get(('requests',), 1))}"


def _folded(location: str, file: str | None, lines: LineRanges) -> str:
    """Return the location of a problem with the rows that meet it."""
    if file is None:
        return location
    word = _word(file)
    if not location:
        return f"{file}, {word}{'s' if lines.count > 1 else ''} {lines}"
    if lines.count == 1:
        return f"{location} ({file}, {word} {lines})"
    return f"{location} (in {lines.count:,} rows of {file}: {lines})"


def _word(file: str | None) -> str:
    """Return what a number of a rows file counts: Parquet has no lines."""
    return "row" if file is not None and file.lower().endswith(".parquet") else "line"

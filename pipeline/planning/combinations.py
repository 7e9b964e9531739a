"""Make the variables of an entry's requests: rows, zipped lists and the matrix, less what is excluded, or a sample."""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from pipeline.errors import JobError, Problem
from pipeline.planning.identity import canonical
from pipeline.planning.json_rows import STDIN, STDIN_TWICE
from pipeline.planning.paths import not_a_path, with_slashes
from pipeline.planning.rows import read_rows, read_stdin_rows
from pipeline.planning.templates import as_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pipeline.planning.diagnostics import Diagnostics
    from pipeline.planning.job import Entry, Job
    from pipeline.planning.rows import Row, Variables, Warn

Combination = tuple[int | None, "Variables"]
"""The line of the row, None without rows, and the variables of one request."""

_KEYS = frozenset({"matrix", "rows", "zip", "exclude", "sample"})


def matrix_combinations(matrix: Mapping[str, Sequence[Any]]) -> Iterator[Variables]:
    """Yield every combination of the axes lazily, the last axis fastest."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def list_combinations(zipped: Mapping[str, Sequence[Any]], matrix: Mapping[str, Sequence[Any]]) -> Iterator[Variables]:
    """Yield the values of zipped lists, which go together, times every combination of the matrix, lazily."""
    if not zipped:
        yield from matrix_combinations(matrix)
        return
    for values in zip(*zipped.values(), strict=True):
        together = dict(zip(zipped, values, strict=True))
        yield from ({**together, **axes} for axes in matrix_combinations(matrix))


def value_text(value: Any) -> str:
    """Return a variable as text, as it is compared with the rules of `exclude`."""
    try:
        return str(as_text(value))
    except TemplateError:  # a list or a mapping
        return canonical(value)


@dataclass(frozen=True, slots=True)
class Combinations:
    """The variables of the requests of a job's entries."""

    job: Job
    diagnostics: Diagnostics

    def of(self, entry: Entry) -> Iterator[Combination]:
        """Yield the variables of each request of an entry, in the order of the job.

        Raises JobError for lists that do not fit together, for a rows file that cannot be read, and if nothing is left.
        """
        if not entry.invalid.isdisjoint(_KEYS):
            return
        self._check_lists(entry)
        found = self._all(entry)
        if entry.exclude:
            found = self._not_excluded(entry, found)
        if entry.sample:
            found = self._sampled(entry, found)
        yield from found

    def _check_lists(self, entry: Entry) -> None:
        zipped, matrix = entry.zip or {}, entry.matrix or {}
        lengths = {name: len(values) for name, values in zipped.items()}
        if len(set(lengths.values())) > 1:
            stated = ", ".join(f"`{name}` has {length:,}" for name, length in lengths.items())
            raise self._error(entry, "zip", f"has lists of different lengths: {stated}; their values go together")
        if twice := zipped.keys() & matrix.keys():
            raise self._error(entry, "zip", f"`{min(twice)}` is also in `matrix`; rename one of them")
        for key, lists in (("zip", zipped), ("matrix", matrix)):
            try:
                canonical(lists)
            except ValueError as reason:  # in a job of Python
                raise self._error(entry, key, f"cannot be written as JSON: {reason}") from None

    def _all(self, entry: Entry) -> Iterator[Combination]:
        """Yield rows times zipped lists times matrix."""
        zipped, matrix = entry.zip or {}, entry.matrix or {}
        if entry.rows is None:
            yield from ((None, values) for values in list_combinations(zipped, matrix))
            return
        for line, row in self._rows(entry):
            for key, names in (("zip", zipped), ("matrix", matrix)):
                if not row.keys().isdisjoint(names):
                    twice = min(row.keys() & names.keys())
                    raise self._error(entry, key, f"`{twice}` is also a column of {entry.rows_name}; rename one")
            if zipped or matrix:
                yield from ((line, {**row, **values}) for values in list_combinations(zipped, matrix))
            else:
                yield line, row

    def _rows(self, entry: Entry) -> Iterator[tuple[int, Variables]]:
        """Yield the rows of an entry; what is wrong with one is recorded."""
        name = entry.rows_name or ""
        warn = functools.partial(self.diagnostics.add_row_warning, name)
        for line, row in self._source(entry, name, warn):
            if isinstance(row, str):
                self.diagnostics.add_row_problem(name, line, row)
            else:
                yield line, row

    def _source(self, entry: Entry, file: str, warn: Warn) -> Iterator[Row]:
        location = self.job.location(entry, "rows")
        if entry.rows == STDIN:
            if entry is not self.job.reads_stdin[0]:
                raise self._error(entry, "rows", STDIN_TWICE)
            return read_stdin_rows(location, warn)
        if reason := not_a_path(file):
            raise self._error(entry, "rows", f"{file:.120} {reason}".strip())
        return read_rows(self.job.folder / with_slashes(file, self.job.folder), location, file, warn)

    def _not_excluded(self, entry: Entry, found: Iterator[Combination]) -> Iterator[Combination]:
        """Yield what no rule excludes. Rules that name unknown variables, or exclude everything, are errors."""
        rules = [
            {name: {value_text(value) for value in values} for name, values in rule.items()} for rule in entry.exclude
        ]
        names: set[str] = set()
        matches = [0] * len(rules)
        has_own_names = entry.rows is not None and entry.rows.lower().endswith((STDIN, ".jsonl"))  # in each row
        total = left = 0
        for total, (line, variables) in enumerate(found, 1):
            names.update(variables)
            if total == 1 and not has_own_names:
                self._check_names(entry, names)
            matching = [number for number, rule in enumerate(rules) if _matches(rule, variables)]
            for number in matching:
                matches[number] += 1
            if not matching:
                left += 1
                yield line, variables
        if not total:
            return
        self._check_names(entry, names)
        for number in range(len(rules)):
            if not matches[number]:
                where = self.job.location(entry, f"exclude.{number}")
                self.diagnostics.warnings[f"{where}: no combination matches this rule: it excludes nothing"] = None
        if not left:
            raise self._error(entry, "exclude", f"excludes all {total:,} combinations: nothing is left to make")

    def _check_names(self, entry: Entry, names: set[str]) -> None:
        for number, rule in enumerate(entry.exclude):
            if unknown := min(rule.keys() - names, default=None):
                known = ", ".join(sorted(names)) or "none: add `matrix:`, `zip:` or `rows:`"
                message = f"variable `{unknown:.60}` is not defined; known here: {known:.500}"
                raise self._error(entry, f"exclude.{number}", message)

    def _sampled(self, entry: Entry, found: Iterable[Combination]) -> Iterator[Combination]:
        """Yield the combinations of the lowest rank, a hash of seed and variables, in their order.

        A larger sample contains each smaller one, and additional rows only take places.
        """
        assert entry.sample is not None
        n, seed = entry.sample
        ranked = ((_rank(seed, combination[1]), position, combination) for position, combination in enumerate(found))
        lowest = heapq.nsmallest(n, ranked, key=lambda ranked_item: ranked_item[:2])
        yield from (
            combination for _rank, _position, combination in sorted(lowest, key=lambda ranked_item: ranked_item[1])
        )

    def _error(self, entry: Entry, field: str, message: str) -> JobError:
        return JobError([Problem(self.job.location(entry, field), message)])


def _matches(rule: Mapping[str, set[str]], variables: Variables) -> bool:
    return all(name in variables and value_text(variables[name]) in texts for name, texts in rule.items())


def _rank(seed: int, variables: Variables) -> bytes:
    """Return the rank of a combination: the same on every machine, whatever else the entry makes."""
    return hashlib.sha256(canonical([seed, variables]).encode("utf-8", "surrogatepass")).digest()

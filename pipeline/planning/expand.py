"""`Entry`s → `Draft`s: rows times matrix, and every field filled with its variables."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from pipeline.config.yaml_document import MAX_PROBLEMS
from pipeline.errors import JobError, Problem
from pipeline.models.table import convert
from pipeline.planning.rows import combinations, read_rows
from pipeline.planning.templates import as_text, is_template, render

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.models.model import Model
    from pipeline.models.table import Models
    from pipeline.planning.job import Entry, Job
    from pipeline.planning.rows import Variables

OURS = frozenset({"operation", "prompt", "image", "mask", "n", "fit", "resize", "extra", "id"})
"""Fields that the planner reads; all others are parameters of the call."""

_TEXTS = frozenset({"prompt", "id"})
_WORDS = frozenset({"operation", "model", "fit", "resize", "n"})  # spaces around them mean nothing


@dataclass(slots=True)
class Findings:
    """What is wrong with a job and what people should know of it, in the order it is met, each once."""

    job: Job
    problems: dict[Problem, None] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)

    @property
    def full(self) -> bool:
        """Whether there are as many problems as anyone will read."""
        return len(self.problems) >= MAX_PROBLEMS

    def wrong(self, where: str, what: str) -> None:
        """Note a problem."""
        if self.full:
            return
        self.problems[Problem(where, what)] = None
        if len(self.problems) == MAX_PROBLEMS - 1:
            self.problems[Problem("", "there may be more; these come first")] = None

    def wrong_field(self, draft: Draft, key: str, what: str) -> None:
        """Note a problem of a draft's field, if it is not one of form, which is named already."""
        if key.split(".", maxsplit=1)[0] not in draft.entry.faulty:
            self.wrong(self.location(draft, key), what)

    def location(self, draft: Draft, key: str) -> str:
        """Say where a draft's field stands in the job file, and which row filled it."""
        where = self.job.location(draft.entry, key)
        return where if draft.line is None else f"{where} ({draft.entry.rows}, line {draft.line})"


@dataclass(frozen=True, slots=True)
class Draft:
    """The fields of one request, filled; those that are null or an empty cell are left out. `line` is its row's."""

    entry: Entry
    line: int | None
    variables: Variables
    fields: Mapping[str, Any]
    model: Model | None


@dataclass(slots=True)
class Expansion:
    """The multiplication of one job's entries. `most` is how many requests a matrix may make; None for any number."""

    job: Job
    models: Models
    findings: Findings
    most: int | None
    _models: dict[str | None, Model | None] = field(default_factory=dict)

    def drafts(self) -> Iterator[Draft]:
        """Yield the drafts in the order of the job; what is wrong is noted and left out."""
        for entry in self.job.entries:
            if self._is_large(entry):
                continue
            templates = frozenset(key for key, raw in entry.fields.items() if is_template(raw))
            drafted = False
            try:
                for line, variables in self._variables(entry):
                    if self.findings.full:
                        return
                    drafted = True
                    yield self._fill(entry, line, variables, templates)
            except JobError as error:
                for problem in error.problems:
                    self.findings.wrong(problem.location, problem.message)
            if not drafted and self.findings.problems:  # without its variables, the rest can be judged all the same
                yield self._fill(self._without(entry, templates), None, {}, frozenset())

    def _is_large(self, entry: Entry) -> bool:
        count = math.prod(len(axis) for axis in (entry.matrix or {}).values())
        if self.most is None or count <= self.most:
            return False
        what = f"makes {count:,} requests, more than {self.most:,}; if that is meant, add --allow-large"
        self.findings.wrong(self.job.location(entry, "matrix"), what)
        return True

    def _variables(self, entry: Entry) -> Iterator[tuple[int | None, Variables]]:
        """Yield (line of the row, variables) for each request that the entry makes: rows times matrix."""
        if not entry.faulty.isdisjoint({"matrix", "rows"}):
            return
        matrix = entry.matrix or {}
        if entry.rows is None:
            yield from ((None, axis) for axis in combinations(matrix))
            return
        for line, row in read_rows(self.job.folder / entry.rows, self.job.location(entry, "rows"), entry.rows):
            if isinstance(row, str):
                self.findings.wrong(f"{entry.rows}, line {line}", row)
            elif twice := row.keys() & matrix.keys():
                what = f"`{min(twice)}` is also a column of {entry.rows}; give one of them another name"
                raise JobError([Problem(self.job.location(entry, "matrix"), what)])
            elif matrix:
                yield from ((line, {**row, **axis}) for axis in combinations(matrix))
            else:
                yield line, row

    def _without(self, entry: Entry, templates: frozenset[str]) -> Entry:
        fields = {key: raw for key, raw in entry.fields.items() if key not in templates}
        return replace(entry, fields=fields, faulty=entry.faulty | templates)

    def _fill(self, entry: Entry, line: int | None, variables: Variables, templates: frozenset[str]) -> Draft:
        draft = Draft(entry, line, variables, entry.fields, None)
        name = entry.fields.get("model")
        if "model" in templates:
            name = self._value(draft, "model", name, None)
        model = self._find(None if name is None else str(name), entry)
        if not templates:
            return Draft(entry, line, variables, entry.fields, model)
        before = len(self.findings.problems)
        filled = {
            key: self._value(draft, key, raw, model) if key in templates else raw for key, raw in entry.fields.items()
        }
        if len(self.findings.problems) > before:  # what could not be filled is named, and not missing besides
            entry = replace(entry, faulty=entry.faulty | {key for key, value in filled.items() if value is None})
        fields = {key: value for key, value in filled.items() if value is not None}
        return Draft(entry, line, variables, fields, model)

    def _value(self, draft: Draft, key: str, raw: Any, model: Model | None) -> Any:
        """Fill a field's variables in. None leaves the field out, as an empty cell does."""
        try:
            value = render(raw, draft.variables)
            if key in _TEXTS or (key in _WORDS and key != "n" and value is not None):
                value = str(as_text(value))
        except (ValueError, TemplateError) as reason:
            self.findings.wrong_field(draft, key, str(reason))
            return None
        if isinstance(value, list | dict):
            return _without_empty(value) or None
        if not isinstance(value, str):
            return value
        text = value.strip() if key in _WORDS else value
        if not text:
            return None
        if key == "n":
            return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text
        if key in OURS:
            return text
        return convert(key, text, model)

    def _find(self, name: str | None, entry: Entry) -> Model | None:
        """Find the model in the table, and say once what is to be known about it."""
        if name in self._models:
            return self._models[name]
        model = self._models[name] = self.models.find(name)
        if name is None and "model" not in entry.faulty:
            what = "no `model` is given: the server chooses one, and nothing can be checked or priced before"
            self.findings.warnings[what] = None
        elif name is not None and model is None:
            self.findings.warnings[self.models.unknown_model_warning(name)] = None
        if model is None or model.prices is None:
            self.findings.unpriced.add(name or "(none)")
        return model


def _without_empty(value: list[Any] | dict[str, Any]) -> list[Any] | dict[str, Any]:
    if isinstance(value, list):
        return [one for one in value if one is not None and one != ""]
    return {key: one for key, one in value.items() if one is not None and one != ""}

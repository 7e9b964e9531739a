"""Expand the entries of a job into single requests: one for each combination of its variables, which are filled in."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from pipeline.errors import JobError
from pipeline.models.table import convert
from pipeline.planning.combinations import Combinations
from pipeline.planning.diagnostics import Diagnostics, ExpandedRequest
from pipeline.planning.dynamic_prompts import COMMENT
from pipeline.planning.templates import UndefinedVariable, as_text, is_template, render
from pipeline.planning.unused_variables import unused_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.models.model import Model
    from pipeline.models.table import Models
    from pipeline.planning.dynamic_prompts import DynamicPrompts
    from pipeline.planning.job import Entry, Job
    from pipeline.planning.rows import Variables

PLANNER_FIELDS = frozenset({"operation", "prompt", "image", "mask", "n", "fit", "resize", "extra", "id"})
"""Fields that the planner reads; all others are parameters of the call."""

_TEXT_FIELDS = frozenset({"prompt", "id"})
_WORD_FIELDS = frozenset({"operation", "model", "fit", "resize", "n"})  # surrounding spaces are ignored


@dataclass(slots=True)
class Expansion:
    """The expansion of one job's entries. `max_requests` limits what one matrix may make; None for no limit."""

    job: Job
    models: Models
    diagnostics: Diagnostics
    max_requests: int | None
    dynamic: DynamicPrompts
    _models: dict[str | None, Model | None] = field(default_factory=dict)

    def requests(self) -> Iterator[ExpandedRequest]:
        """Yield the requests in the order of the job; problems are recorded, and their requests left out."""
        combinations = Combinations(self.job, self.diagnostics)
        for entry in self.job.entries:
            if self._is_too_large(entry):
                continue
            is_literal = entry.custom_id is not None
            templates = frozenset(key for key, raw in entry.fields.items() if not is_literal and is_template(raw))
            is_expanded = False
            try:
                for line, variables in combinations.of(entry):
                    if not is_expanded:
                        self._warn_of_unused(entry, variables)
                    is_expanded = True
                    yield self._fill(entry, line, variables, templates)
            except JobError as error:
                for problem in error.problems:
                    self.diagnostics.add_problem(problem.location, problem.message)
            if not is_expanded and self.diagnostics.found:  # fields without variables can still be checked
                yield self._fill(self._without(entry, templates), None, {}, frozenset())

    def expand_prompt(self, expanded: ExpandedRequest, prompt: str | None, occurrence: int) -> str | None:
        """Return the prompt of a request, expanded if its entry says so; a mistake in it is recorded."""
        if not expanded.entry.is_dynamic or not prompt:
            return prompt
        if "#" in prompt:
            self.diagnostics.warnings[f"{self.job.location(expanded.entry, 'prompt')}: {COMMENT}"] = None
        try:
            return self.dynamic.expand(prompt, expanded.variables, occurrence)
        except ValueError as reason:
            self.diagnostics.add_field_problem(expanded, "prompt", str(reason))
            return prompt

    def _is_too_large(self, entry: Entry) -> bool:
        matrix, zipped = entry.matrix or {}, entry.zip or {}
        count = math.prod([*map(len, matrix.values()), *map(len, list(zipped.values())[:1])])
        if self.max_requests is None or count <= self.max_requests:
            return False
        what = "has {:,} combinations to choose from" if entry.exclude or entry.sample else "makes {:,} requests"
        message = f"{what.format(count)}, more than {self.max_requests:,}; if that is intended, add --allow-large"
        self.diagnostics.add_problem(self.job.location(entry, "matrix" if matrix else "zip"), message)
        return True

    def _warn_of_unused(self, entry: Entry, variables: Variables) -> None:
        model = self.models.find(str(entry.fields.get("model")))
        parameters = self.models.parameters if model is None else model.accepted_parameters
        for key, message in unused_variables(entry, variables, {"model", "n", *parameters}):
            self.diagnostics.warnings[f"{self.job.location(entry, key)}: {message}"] = None

    def _without(self, entry: Entry, templates: frozenset[str]) -> Entry:
        fields = {key: raw for key, raw in entry.fields.items() if key not in templates}
        return replace(entry, fields=fields, invalid=entry.invalid | templates)

    def _fill(self, entry: Entry, line: int | None, variables: Variables, templates: frozenset[str]) -> ExpandedRequest:
        expanded = ExpandedRequest(entry, line, variables, entry.fields, None)
        name = entry.fields.get("model")
        if "model" in templates:
            name = self._value(expanded, "model", name, None)
        model = expanded.model = self._find_model(None if name is None else str(name), entry)
        if not templates:
            return expanded
        before = self.diagnostics.found
        filled = {
            key: self._value(expanded, key, raw, model) if key in templates else raw
            for key, raw in entry.fields.items()
        }
        if self.diagnostics.found > before:  # a field that could not be filled is not also reported as missing
            empty = {key for key, value in filled.items() if value is None}
            expanded.entry = replace(entry, invalid=entry.invalid | empty)
        expanded.fields = {key: value for key, value in filled.items() if value is not None}
        return expanded

    def _value(self, expanded: ExpandedRequest, key: str, raw: Any, model: Model | None) -> Any:
        """Return a field with its variables filled in; None leaves the field out, as an empty cell does."""
        try:
            value = render(raw, expanded.variables)
            if key in _TEXT_FIELDS or (key in _WORD_FIELDS and key != "n" and value is not None):
                value = str(as_text(value))
        except (ValueError, TemplateError) as reason:
            rows = expanded.entry.rows or ""
            has_header = rows.lower().endswith((".csv", ".tsv"))
            is_column = has_header and isinstance(reason, UndefinedVariable)
            hint = f"; the first line of {rows} is its header" if is_column else ""
            self.diagnostics.add_field_problem(expanded, key, f"{reason}{hint}")
            return None
        if isinstance(value, list | dict):
            return _without_empty(value) or None
        if not isinstance(value, str):
            return value
        text = value.strip() if key in _WORD_FIELDS else value
        if not text:
            return None
        if key == "n":
            return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text
        return text if key in PLANNER_FIELDS else convert(key, text, model)

    def _find_model(self, name: str | None, entry: Entry) -> Model | None:
        """Find the model in the table; record its warnings when it is first found."""
        if name in self._models:
            return self._models[name]
        model = self._models[name] = self.models.find(name)
        if name is None and "model" not in entry.invalid:
            warning = "no `model` is given: the server chooses one, and nothing can be checked or priced before"
            self.diagnostics.warnings[warning] = None
        elif name is not None and model is None:
            self.diagnostics.warnings[self.models.unknown_model_warning(name)] = None
        if model is None or model.prices is None:
            self.diagnostics.unpriced.add(name or "(none)")
        return model


def _without_empty(value: list[Any] | dict[str, Any]) -> list[Any] | dict[str, Any]:
    if isinstance(value, list):
        return [item for item in value if item is not None and item != ""]
    return {key: item for key, item in value.items() if item is not None and item != ""}

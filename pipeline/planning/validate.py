"""Validate expanded requests: against the rules of their model, or against what holds for every model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pipeline.models.batch_eligibility import batch_fault
from pipeline.models.validation import validate
from pipeline.planning.job import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config.load import Provider
    from pipeline.models.model import Model
    from pipeline.models.table import Models
    from pipeline.models.validation import FieldProblem
    from pipeline.planning.diagnostics import Diagnostics, ExpandedRequest
    from pipeline.planning.mode_names import Mode


_CONTROL = re.compile(r"[^\t\n\v\f\r\x85 -\x7e\xa0-\U0010ffff]")  # all but tabs and line breaks


@dataclass(slots=True)
class SharedParams:
    """Parameters that many requests share, their canonical form, and the problems that were found, by operation."""

    values: Mapping[str, Any]
    form: str
    problems: dict[str, list[FieldProblem]] = field(default_factory=dict)


@dataclass(slots=True)
class RequestValidator:
    """Validates the requests of one job; parameters that requests share are validated once."""

    provider: Provider
    models: Models
    diagnostics: Diagnostics
    mode: Mode = "realtime"
    serving: Sequence[Provider] = ()
    _today: date = field(default_factory=lambda: datetime.now(UTC).date())

    def validate(
        self,
        expanded: ExpandedRequest,
        operation: str,
        prompt: str | None,
        params: SharedParams,
        images: int,
        *,
        has_mask: bool,
    ) -> None:
        """Record every problem of a request; `images` is the number of its input images."""
        if operation in OPERATIONS:
            self._check_served(expanded, operation)
        if self.mode == "batch" and operation in OPERATIONS:
            self._check_batch(expanded, operation)
        self._check_references(expanded)
        if prompt is not None and (found := _CONTROL.search(prompt)):
            message = f"holds a control character, U+{ord(found[0]):04X}: delete it"
            self.diagnostics.add_field_problem(expanded, "prompt", message)
        if expanded.model is None:
            self._validate_unknown(expanded, operation, prompt, images, has_mask=has_mask)
            if operation in OPERATIONS:
                self._warn_unknown_params(operation, params)
            return
        if self.provider.sandbox is None and operation not in params.problems:  # else they are known
            self.diagnostics.warnings.update(dict.fromkeys(expanded.model.warnings(self._today)))
        for problem in _problems(expanded.model, operation, prompt, params, images, has_mask=has_mask):
            message = f"{problem.message}{_prompt_hint(expanded, problem.field)}"
            self.diagnostics.add_field_problem(expanded, problem.field, message)

    def _check_served(self, expanded: ExpandedRequest, operation: str) -> None:
        """Record if no provider of the job serves a request."""
        name = expanded.fields.get("model")
        if not self.serving or any(member.serves(name, operation) for member in self.serving):
            return
        has_model = any(member.models is None or name in member.models for member in self.serving)
        who = ", ".join(f"`{member.name}`" for member in self.serving)
        what = f"makes {operation}s with `{name}`" if has_model else f"serves the model `{name}`"
        message = f"no provider of the job ({who}) {what}: see `models` and `operations` in the config"
        self.diagnostics.add_field_problem(expanded, "operation" if has_model else "model", message)

    def _check_references(self, expanded: ExpandedRequest) -> None:
        """Record if a provider of the job takes no images by file id or by URL."""
        references = expanded.entry.references
        if not references:
            return
        images = [*references.get("images", ()), *([references["mask"]] if "mask" in references else [])]
        kinds = dict.fromkeys(key for reference in images for key in reference)
        for provider in self.serving or [self.provider]:
            if wrong := next((kind for kind in kinds if not provider.takes_reference(kind)), None):
                message = f"provider `{provider.name}` takes no `{wrong}`: put the image into the line, as a data URL"
                self.diagnostics.add_field_problem(expanded, "image", message)

    def _check_batch(self, expanded: ExpandedRequest, operation: str) -> None:
        """Record if a request cannot go by batch. Whether the provider has a Batch API is checked for the whole job."""
        name, model = expanded.fields.get("model"), expanded.model
        if self.provider.batch is None:
            return
        by_batch = next((member for member in self.serving if member.batch is not None), self.provider)
        fault = batch_fault(name, model, operation, self.provider.batch)
        if fault is None and not by_batch.serves(name, operation):
            fault = f"`{by_batch.name}`, the first provider with a Batch API, does not serve it"
        if fault is None:
            return
        instead = f"use {model.replacement}, or " if model and model.replacement else ""
        field = "operation" if operation == "variation" else "model"
        message = f"{fault}; {instead}write `mode: auto`, which makes it in realtime"
        self.diagnostics.add_field_problem(expanded, field, message)

    def _validate_unknown(
        self, expanded: ExpandedRequest, operation: str, prompt: str | None, images: int, *, has_mask: bool
    ) -> None:
        """Validate what holds for every model."""

        def add(key: str, message: str) -> None:
            self.diagnostics.add_field_problem(expanded, key, message)

        if operation not in OPERATIONS:
            add("operation", f"is `{operation:.60}`; it must be one of {', '.join(OPERATIONS)}")
            return
        if operation != "variation" and (prompt is None or not prompt.strip()):
            hint = _prompt_hint(expanded, "prompt")
            add("prompt", f"is missing{hint}" if hint else "is missing or empty; describe the image")
        if operation != "generation" and not images:
            add("image", f"is missing; `{operation}` needs an input image")
        if operation == "generation" and images:
            add("image", "is not for a generation; write `operation: edit`")
        if operation != "edit" and has_mask:
            add("mask", "is for an edit; leave it out")

    def _warn_unknown_params(self, operation: str, params: SharedParams) -> None:
        if operation in params.problems:
            return
        params.problems[operation] = []
        for name in params.values:
            if name != "model" and name not in self.models.parameters:
                warning = f"`{name}` is a parameter of no known model: it is sent unchecked"
                self.diagnostics.warnings[warning] = None


def _prompt_hint(expanded: ExpandedRequest, field: str) -> str:
    """Return what to write if the rows have a prompt that the entry does not name."""
    is_unnamed = field == "prompt" and "prompt" in expanded.variables and "prompt" not in expanded.entry.fields
    return ': write `prompt: "{{ prompt }}"`' if is_unnamed else ""


def _problems(
    model: Model, operation: str, prompt: str | None, params: SharedParams, images: int, *, has_mask: bool
) -> list[FieldProblem]:
    problems = validate(model, operation, prompt, {}, images, mask=has_mask)
    if operation not in params.problems:
        everything = validate(model, operation, prompt, params.values, images, mask=has_mask)
        params.problems[operation] = [problem for problem in everything if problem not in problems]
    if operation not in OPERATIONS:
        problems = [problem for problem in problems if problem.field == "operation"]
    return [*problems, *params.problems[operation]]

"""Describe one model: what it accepts by operation and parameter, and what its calls cost."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from datetime import date  # noqa: TC003 - pydantic reads the annotations
from typing import Any, ClassVar

from pipeline.models.prices import Cost, Estimate, Prices
from pipeline.models.rules import Operation, ParameterRule

_WARN_DAYS = 30


def count_references(params: Mapping[str, object]) -> int:
    """Return how many input images a call names by URL or file id, in its parameters."""
    images = params.get("images")
    return len(images) if isinstance(images, list) else 0


@dataclass(frozen=True, slots=True)
class ImageRequirements:
    """What the input images of one operation must be."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    formats: tuple[str, ...]  # png, jpeg, webp
    max_bytes: int | None = None  # a file must be smaller than this
    square: bool = False
    upright: bool = False  # the service does not read EXIF orientation
    least: int = 1  # number of images, at least
    most: int | None = 1  # number of images, at most
    mask: bool = False  # accepts a mask, for the first image
    mask_max_bytes: int | None = None
    own_mask_modes: tuple[str, ...] = ()  # without a mask the image's own transparency is the mask, in these modes


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the table of models. The names of the fields are the keys of models.yaml."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    operations: tuple[Operation, ...]
    prompt: int  # characters, at most
    n: int  # images of one call, at most
    parameters: Mapping[str, ParameterRule] = field(default_factory=dict)
    pictures: Mapping[Operation, ImageRequirements] = field(default_factory=dict)
    prices: Prices | None = None
    batch: bool = False  # the Batch API takes its generations and edits
    snapshots: tuple[str, ...] = ()  # other names of the same model
    shutdown: date | None = None
    replacement: str | None = None

    def max_n(self, operation: str, params: Mapping[str, object]) -> int:
        """Return the number of images that one call may ask for (1 for SVG)."""
        rules = [(name, rule) for name, rule in self.parameters.items() if rule.value_n and rule.is_for(operation)]
        return min([self.n, *(rule.value_n.get(str(params.get(name)), self.n) for name, rule in rules)])

    def served_by(self, operation: str) -> str:
        """Return the operation whose endpoint is called: a variation becomes an edit if it has no endpoint.

        OpenAI advises this since it has retired the endpoint (its SDK's `create_variation`).
        """
        is_edit = operation == "variation" and operation not in self.operations and "edit" in self.operations
        return "edit" if is_edit else operation

    def image_requirements(self, operation: str) -> ImageRequirements | None:
        """Return the requirements for the operation's input images, or None if it takes none or has no rules."""
        return next((requirements for name, requirements in self.pictures.items() if name == operation), None)

    @property
    def accepted_parameters(self) -> set[str]:
        """The parameters that any operation accepts."""
        return {name for name, rule in self.parameters.items() if not rule.refused}

    def rules(self, operation: str) -> dict[str, ParameterRule]:
        """Return the rules of the parameters that the operation accepts."""
        return {name: rule for name, rule in self.parameters.items() if rule.is_for(operation)}

    def with_defaults(self, operation: str, params: Mapping[str, object]) -> dict[str, object]:
        """Return the parameters, with the model's defaults for those that are missing."""
        defaults = {name: rule.default for name, rule in self.rules(operation).items() if rule.default is not None}
        return defaults | {name: value for name, value in params.items() if value is not None}

    def warnings(self, today: date) -> list[str]:
        """Return a warning if the model is shut down, or will be within 30 days."""
        if self.shutdown is None or (days := (self.shutdown - today).days) > _WARN_DAYS:
            return []
        when = "was" if days < 0 else "is"
        soon = "" if days < 0 else " (today)" if days == 0 else f" (in {days} day{'s' if days > 1 else ''})"
        instead = f"; use {self.replacement}" if self.replacement else ""
        return [f"{self.name} {when} shut down on {self.shutdown}{soon} at OpenAI{instead}"]

    def estimate(
        self,
        operation: str,
        prompt: str | None,
        params: Mapping[str, object],
        n: int,
        inputs: Sequence[tuple[int, int]],
    ) -> Estimate:
        """Return the expected cost of a call for `n` images; `inputs` are (width, height) of the input images."""
        if self.prices is None:
            return Estimate(None, (f"{self.name} has no price in the table",))
        return self.prices.estimate(
            prompt, self.with_defaults(operation, params), n, len(inputs) + count_references(params)
        )

    def max_cost(
        self,
        operation: str,
        prompt: str | None,
        params: Mapping[str, object],
        n: int,
        inputs: Sequence[tuple[int, int]],
    ) -> float | None:
        """Return an upper bound of that cost in USD, for a budget to reserve; None without a price.

        `auto` counts as the most expensive value.
        """
        if self.prices is None:
            return None
        rule = self.parameters.get("size", ParameterRule())
        sizes = [*rule.values, *([rule.free_size.largest()] if rule.free_size else [])]
        count = len(inputs) + count_references(params)
        return self.prices.max_cost(prompt, self.with_defaults(operation, params), n, count, sizes)

    def cost(
        self, operation: str, params: Mapping[str, object], n_received: int, usage: Mapping[str, Any] | None
    ) -> Cost:
        """Return the cost in USD of an answered call: from a plausible `usage`, else from the tables."""
        if self.prices is None:
            return Cost(None)
        return self.prices.cost(operation, self.with_defaults(operation, params), n_received, usage)


@functools.cache
def default_requirements() -> ImageRequirements:
    """Return the requirements for a model that the table does not know: a common format, any number of images."""
    return ImageRequirements(formats=("png", "jpeg", "webp"), most=None, mask=True)

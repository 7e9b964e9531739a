"""Validation and pricing of requests for one model, according to its entry in the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from datetime import date  # noqa: TC003 - pydantic reads the annotations
from typing import Any, ClassVar

from pipeline.config.yaml_document import nearest
from pipeline.models.prices import Estimate, Prices
from pipeline.models.rules import Operation, Rule, either, quoted

_WARN_DAYS = 30


@dataclass(frozen=True, slots=True)
class Complaint:
    """One mistake of a request: `field` is its key in the job, `what` goes on after it ("is `hd`; … takes …")."""

    field: str
    what: str


@dataclass(frozen=True, slots=True)
class Demands:
    """What the input pictures of one operation must be."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    formats: tuple[str, ...]  # png, jpeg, webp
    max_bytes: int | None = None  # a file must be smaller than this
    square: bool = False
    upright: bool = False  # the service does not read EXIF orientation
    least: int = 1  # pictures
    most: int | None = 1
    mask: bool = False  # takes a mask, for the first picture
    mask_max_bytes: int | None = None
    own_mask_modes: tuple[str, ...] = ()  # without a mask the picture's own transparency is the mask, in these modes


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what it takes, by operation and parameter, and what it costs."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    operations: tuple[Operation, ...]
    prompt: int  # characters, at most
    n: int  # pictures of one call, at most
    parameters: Mapping[str, Rule] = field(default_factory=dict)
    pictures: Mapping[Operation, Demands] = field(default_factory=dict)
    prices: Prices | None = None
    snapshots: tuple[str, ...] = ()  # other names of the same model
    shutdown: date | None = None
    replacement: str | None = None

    def max_n(self, operation: str, params: Mapping[str, object]) -> int:
        """Give the number of pictures that one call may ask for (1 for SVG)."""
        limits = [rule.value_n.get(str(params.get(name)), self.n) for name, rule in self._rules(operation).items()]
        return min([self.n, *limits])

    def check(
        self, operation: str, prompt: str | None, params: Mapping[str, object], images: int, mask: bool
    ) -> list[Complaint]:
        """Name every mistake of a request: `params` without n and prompt, the number of input pictures, mask or not."""
        complaints = list(self._check_call(operation, prompt, images, mask=mask))
        for name, value in params.items():
            if name != "model" and value is not None:
                complaints += [Complaint(name, what) for what in self._check_parameter(operation, name, value, params)]
        return complaints

    def served_by(self, operation: str) -> str:
        """Give the operation whose endpoint serves this one: a variation becomes an edit where there is no endpoint.

        That is what OpenAI advises since it has retired the endpoint (its SDK's `create_variation`).
        """
        is_edit = operation == "variation" and operation not in self.operations and "edit" in self.operations
        return "edit" if is_edit else operation

    def demands(self, operation: str) -> Demands | None:
        """Say what the operation's input pictures must be; None where it has none or there are no rules."""
        return next((demands for name, demands in self.pictures.items() if name == operation), None)

    def warnings(self, today: date) -> list[str]:
        """Say that the model is shut down, or will be within 30 days."""
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
        """Estimate the cost of a call for `n` pictures; `inputs` are (width, height) of the input pictures."""
        if self.prices is None:
            return Estimate(None, (f"{self.name} has no price in the table",))
        return self.prices.estimate(prompt, self._settled(operation, params), n, len(inputs))

    def most(
        self,
        operation: str,
        prompt: str | None,
        params: Mapping[str, object],
        n: int,
        inputs: Sequence[tuple[int, int]],
    ) -> float | None:
        """Bound that cost from above, for a budget to reserve: `auto` counts as the dearest. None without a price."""
        if self.prices is None:
            return None
        rule = self.parameters.get("size", Rule())
        sizes = [*rule.values, *([rule.free_size.largest()] if rule.free_size else [])]
        return self.prices.most(prompt, self._settled(operation, params), n, len(inputs), sizes)

    def cost(
        self, operation: str, params: Mapping[str, object], n_received: int, usage: Mapping[str, Any] | None
    ) -> float | None:
        """Count what an answered call did cost: from `usage`, else from the tables, else None."""
        if self.prices is None:
            return None
        return self.prices.cost(operation, self._settled(operation, params), n_received, usage)

    def _rules(self, operation: str) -> dict[str, Rule]:
        """Give the rules of the parameters that the operation takes."""
        rules = self.parameters.items()
        return {name: rule for name, rule in rules if not rule.refused and (not rule.only or operation in rule.only)}

    def _settled(self, operation: str, params: Mapping[str, object]) -> dict[str, object]:
        """Give the parameters with the model's defaults."""
        defaults = {name: rule.default for name, rule in self._rules(operation).items() if rule.default is not None}
        return defaults | {name: value for name, value in params.items() if value is not None}

    def _check_call(self, operation: str, prompt: str | None, images: int, *, mask: bool) -> Iterator[Complaint]:
        if operation not in self.operations:
            yield Complaint("operation", f"is {quoted(operation)}; {self.name} takes {either(self.operations)}")
        if operation == "variation":
            if prompt is not None:
                yield Complaint("prompt", f"is {quoted(prompt)}; a variation takes none: leave it out")
        elif prompt is None or not prompt.strip():
            yield Complaint("prompt", f"is missing; {_a(operation)} needs one")
        elif len(prompt) > self.prompt:
            yield Complaint("prompt", f"has {len(prompt):,} characters; {self.name} takes at most {self.prompt:,}")
        yield from self._check_pictures(operation, images, mask=mask)

    def _check_pictures(self, operation: str, images: int, *, mask: bool) -> Iterator[Complaint]:
        demands = self.demands(operation) or unknown_demands()
        if operation == "generation":
            if images:
                yield Complaint("image", "is given; a generation takes none: leave it out or write `operation: edit`")
        elif images < demands.least:
            yield Complaint("image", f"is missing; {_a(operation)} needs one")
        elif demands.most is not None and images > demands.most:
            yield Complaint("image", f"names {images} pictures; {self.name} takes at most {demands.most}")
        if mask and (operation != "edit" or not demands.mask):
            yield Complaint("mask", f"is given; {_a(operation)} with {self.name} takes none: leave it out")

    def _check_parameter(self, operation: str, name: str, value: object, params: Mapping[str, object]) -> Iterator[str]:
        rule = self.parameters.get(name)
        if rule is None:
            yield self._unknown(operation, name, value)
        elif rule.refused:
            yield f"is {quoted(value)}, which {self.name} does not take: {rule.refused}"
        elif rule.only and operation not in rule.only:
            yield f"is {quoted(value)}; {self.name} takes it with {either(rule.only)} only: leave it out"
        elif fault := rule.fault(value):
            yield f"{fault}; {self.name} takes {rule.allowed()}"
        else:
            settled = self._settled(operation, params)
            for other, values in {**rule.needs, **rule.value_needs.get(str(value), {})}.items():
                if settled.get(other) not in values:
                    found = f"with `{other}: {settled.get(other)}`"
                    yield f"is {quoted(value)} {found}; {self.name} takes it with {other} {either(values)} only"

    def _unknown(self, operation: str, name: str, value: object) -> str:
        known = sorted(self._rules(operation))
        close = nearest(name, known)
        hint = f"did you mean `{close}`?" if close else f"it takes {', '.join(known)}"
        return f"is {quoted(value)}, but {self.name} does not take this parameter; {hint}"


def unknown_demands() -> Demands:
    """Ask little of input pictures for a model that the table does not know: a usual kind, as many as you like."""
    return Demands(formats=("png", "jpeg", "webp"), most=None, mask=True)


def _a(operation: str) -> str:
    return f"an {operation}" if operation[:1] in "aeiou" else f"a {operation}"

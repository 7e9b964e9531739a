"""Check a request against the rules of its model; every problem is returned with the field that it concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.yaml_document import nearest
from pipeline.models.model import default_requirements
from pipeline.models.rules import join_or, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.models.model import Model


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One problem of a request: `field` is its key in the job, `message` continues after it ("is `hd`; … takes …")."""

    field: str
    message: str


def validate(
    model: Model, operation: str, prompt: str | None, params: Mapping[str, object], images: int, *, mask: bool
) -> list[FieldProblem]:
    """Return every problem of a request.

    `params` are without n and prompt, `images` is the number of input images, `mask` whether there is a mask.
    """
    problems = [*_check_prompt(model, operation, prompt), *_check_images(model, operation, images, mask=mask)]
    for name, value in params.items():
        if name != "model" and value is not None:
            messages = _check_parameter(model, operation, name, value, params)
            problems += [FieldProblem(name, message) for message in messages]
    return problems


def _check_prompt(model: Model, operation: str, prompt: str | None) -> Iterator[FieldProblem]:
    if operation not in model.operations:
        yield FieldProblem("operation", f"is {quoted(operation)}; {model.name} takes {join_or(model.operations)}")
    if operation == "variation":
        if prompt is not None:
            yield FieldProblem("prompt", f"is {quoted(prompt)}; a variation takes none: leave it out")
    elif prompt is None or not prompt.strip():
        yield FieldProblem("prompt", f"is missing; {_with_article(operation)} needs one")
    elif len(prompt) > model.prompt:
        yield FieldProblem("prompt", f"has {len(prompt):,} characters; {model.name} takes at most {model.prompt:,}")


def _check_images(model: Model, operation: str, images: int, *, mask: bool) -> Iterator[FieldProblem]:
    requirements = model.image_requirements(operation) or default_requirements()
    if operation == "generation":
        if images:
            yield FieldProblem("image", "is given; a generation takes none: leave it out or write `operation: edit`")
    elif images < requirements.least:
        yield FieldProblem("image", f"is missing; {_with_article(operation)} needs one")
    elif requirements.most is not None and images > requirements.most:
        yield FieldProblem("image", f"names {images} images; {model.name} takes at most {requirements.most}")
    if mask and (operation != "edit" or not requirements.mask):
        message = f"is given; {_with_article(operation)} with {model.name} takes none: leave it out"
        yield FieldProblem("mask", message)


def _check_parameter(
    model: Model, operation: str, name: str, value: object, params: Mapping[str, object]
) -> Iterator[str]:
    rule = model.parameters.get(name)
    if rule is None:
        yield _unknown_parameter(model, operation, name, value)
    elif rule.refused:
        yield f"is {quoted(value)}, which {model.name} does not take: {rule.refused}"
    elif rule.only and operation not in rule.only:
        yield f"is {quoted(value)}; {model.name} takes it with {join_or(rule.only)} only: leave it out"
    elif violation := rule.violation(value):
        yield f"{violation}; {model.name} takes {rule.allowed()}"
    else:
        effective = model.with_defaults(operation, params)
        for other, values in {**rule.needs, **rule.value_needs.get(str(value), {})}.items():
            if effective.get(other) not in values:
                found = f"with `{other}: {effective.get(other)}`"
                yield f"is {quoted(value)} {found}; {model.name} takes it with {other} {join_or(values)} only"


def _unknown_parameter(model: Model, operation: str, name: str, value: object) -> str:
    known = sorted(model.rules(operation))
    close = nearest(name, known)
    hint = f"did you mean `{close}`?" if close else f"it takes {', '.join(known)}"
    return f"is {quoted(value)}, but {model.name} does not take this parameter; {hint}"


def _with_article(operation: str) -> str:
    return f"an {operation}" if operation[:1] in "aeiou" else f"a {operation}"

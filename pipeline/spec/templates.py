"""Text with {{ variables }} → values: a lone variable keeps its type, an undefined one is an error."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

MAX_CHARACTERS = 1_000_000
"""What one template may render to; the longest prompt that any model takes has 32,000."""

_LONE = re.compile(r"\{\{-?\s*([A-Za-z_][A-Za-z0-9_]*)\s*-?\}\}")


class _Environment(SandboxedEnvironment):
    """Jinja2's sandbox, in which no operator makes a small template into a large text or number."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or (operator == "**" and (abs(left) > 1000 or abs(right) > 10)):
            raise TemplateError(f"`{operator}` is for small numbers here")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def render(value: Any, variables: Mapping[str, Any]) -> Any:
    """Fill the variables into a value, also within lists and mappings. Raises ValueError with the reason."""
    if isinstance(value, str):
        return _render_text(value, variables)
    if isinstance(value, list):
        return [render(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: render(item, variables) for key, item in value.items()}
    return value


def _render_text(text: str, variables: Mapping[str, Any]) -> Any:
    if "{{" not in text and "{%" not in text and "{#" not in text:
        return text
    if lone := _LONE.fullmatch(text):
        if lone[1] not in variables:
            raise ValueError(_undefined(lone[1], variables))
        return variables[lone[1]]
    try:
        pieces, length = [], 0
        for piece in _compile(text).generate(variables):
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise ValueError(f"the template renders to more than {MAX_CHARACTERS:,} characters")
            pieces.append(piece)
    except TemplateError as reason:
        missing = re.fullmatch(r"'(\w+)' is undefined", str(reason))
        raise ValueError(_undefined(missing[1], variables) if missing else f"template: {reason}") from None
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as reason:
        raise ValueError(f"template: {reason}") from None
    return "".join(pieces)


def _undefined(name: str, variables: Mapping[str, Any]) -> str:
    known = ", ".join(sorted(str(key) for key in variables)) or "none: add `matrix:` or `rows:`"
    return f"variable `{name}` is not defined; known here: {known}"


@functools.lru_cache(maxsize=1024)
def _compile(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)

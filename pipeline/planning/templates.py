"""Text with {{ variables }} → values: a lone variable keeps its type, an undefined one is an error.

Only `{{ }}` means anything; `{%` and `{#` are text, so that nothing loops and no prompt loses a part as a comment.
"""

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

_LONE = re.compile(r"\{\{-?\s*([^{}]*?)\s*-?\}\}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"})
_SWELLING = frozenset({"center", "expandtabs", "format", "format_map", "ljust", "rjust", "zfill"})
_BARRED = ("center", "format", "indent", "random", "wordwrap")  # filters that swell, or give another text each time


class _Environment(SandboxedEnvironment):
    """Jinja2's sandbox, in which no operator makes a small template into a large text or number."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers or (operator == "**" and (abs(left) > 1000 or abs(right) > 10)):
            raise TemplateError(f"`{operator}` is for small numbers here")
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> None:
        del value  # let is_safe_attribute refuse it

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _SWELLING and super().is_safe_attribute(obj, attr, value)


def as_text(value: Any) -> Any:
    """Write a value in a text as YAML and JSON do: true, false; nothing for null, as for an empty cell.

    Raises TemplateError for a list or a mapping, whose form in a text nobody could guess.
    """
    if isinstance(value, list | dict):
        what = "a list" if isinstance(value, list) else "a mapping"
        raise TemplateError(
            f"a variable is {what}, which is no text; pick one of its parts, or write {{{{ x|join(' ') }}}}"
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


_ENVIRONMENT = _Environment(
    block_start_string="\0{%",
    block_end_string="%\0}",
    comment_start_string="\0{#",
    comment_end_string="#\0}",
    undefined=StrictUndefined,
    finalize=as_text,
    keep_trailing_newline=True,
    autoescape=False,
)
_ENVIRONMENT.globals.clear()  # `range`, `lipsum` and the like are no variables of the job
for _name in _BARRED:
    del _ENVIRONMENT.filters[_name]


def is_template(value: Any) -> bool:
    """Whether a value holds {{ variables }}, within lists and mappings too."""
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, list):
        return any(map(is_template, value))
    return isinstance(value, dict) and any(map(is_template, value.values()))


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
    if "{{" not in text:
        return text
    if (lone := _lone(text)) is not None:
        if lone in variables:
            return variables[lone]
        if _WORD.fullmatch(lone) and lone not in _CONSTANTS:
            raise ValueError(_undefined(lone, variables))
    try:
        if (pieces := _plain(text)) is not None:
            names = pieces[1::2]
            if missing := next((name for name in names if name not in variables), None):
                raise ValueError(_undefined(missing, variables))
            values = [str(as_text(variables[name])) for name in names]
            return _bounded([*(part for pair in zip(pieces[::2], values, strict=False) for part in pair), pieces[-1]])
        return _bounded(_compile(text).generate(variables))
    except TemplateError as reason:
        missing_one = re.fullmatch(r"'(\w+)' is undefined", str(reason))
        raise ValueError(_undefined(missing_one[1], variables) if missing_one else f"template: {reason}") from None
    except (
        *(ArithmeticError, AssertionError, AttributeError, LookupError),
        *(MemoryError, RecursionError, SyntaxError, TypeError),
    ) as reason:
        raise ValueError(f"template: {reason}") from None


def _bounded(pieces: Any) -> str:
    kept, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_CHARACTERS:
            raise ValueError(f"the template renders to more than {MAX_CHARACTERS:,} characters")
        kept.append(piece)
    return "".join(kept)


def _undefined(name: str, variables: Mapping[str, Any]) -> str:
    known = ", ".join(sorted(str(key) for key in variables)) or "none: add `matrix:` or `rows:`"
    return f"variable `{name}` is not defined; known here: {known}"


@functools.lru_cache(maxsize=1024)
def _lone(text: str) -> str | None:
    """Give the name where a text is one variable and nothing else."""
    lone = _LONE.fullmatch(text)
    return lone[1] if lone else None


@functools.lru_cache(maxsize=1024)
def _plain(text: str) -> tuple[str, ...] | None:
    """Split text, variable, text, … where all there is are names: Jinja2 takes ten times as long to fill them in."""
    pieces = tuple(_PLAIN.split(text))
    plain = not any("{{" in part for part in pieces[::2]) and not _CONSTANTS.intersection(pieces[1::2])
    return pieces if plain else None


@functools.lru_cache(maxsize=1024)
def _compile(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)

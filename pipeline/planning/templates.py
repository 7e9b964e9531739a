"""Render text with {{ variables }}: a text that is a single variable keeps its type, an undefined one is an error.

Only `{{ }}` is template syntax; `{%` and `{#` are text, so that there are no loops and no prompt loses a comment.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, TemplateSyntaxError

from pipeline.planning.expressions import MAX_SIZE, ExpressionEnvironment, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jinja2 import Template

MAX_CHARACTERS = 1_000_000
"""Maximum length of a rendered template; the longest prompt that any model accepts has 32,000."""

_MAX_NAMES = 50  # of variables in a message

_BRACES = "for two braces in the text itself write {{ '{{' }}"

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_CONSTANTS = frozenset({"true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if", "else"})


class UndefinedVariable(ValueError):
    """A text names a variable that there is not."""


def as_text(value: Any) -> Any:
    """Format a value for a text as YAML and JSON do: true, false; nothing for null, as for an empty cell.

    Raises TemplateError for a list or a mapping, which have no obvious form in a text.
    """
    if isinstance(value, list | dict):
        type_name = "a list" if isinstance(value, list) else "a mapping"
        raise TemplateError(
            f"a variable is {type_name}, which is not text; select one of its parts, or write {{{{ x|join(' ') }}}}"
        )
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


_ENVIRONMENT = ExpressionEnvironment(finalize=as_text)


def is_template(value: Any) -> bool:
    """Whether a value contains {{ variables }}, also within lists and mappings."""
    if isinstance(value, str):
        return "{{" in value
    if isinstance(value, list):
        return any(map(is_template, value))
    return isinstance(value, dict) and any(map(is_template, value.values()))


def render(value: Any, variables: Mapping[str, Any]) -> Any:
    """Replace the variables in a value, also within lists and mappings. Raises ValueError with the reason."""
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
    if (single := _single(text)) is not None:
        if single in variables:
            return variables[single]
        if _WORD.fullmatch(single) and single not in _CONSTANTS:
            raise _undefined(single, variables)
    try:
        if (pieces := _plain(text)) is not None:
            for name in pieces[1::2]:
                if name not in variables:
                    raise _undefined(name, variables)
            parts = list(pieces)
            parts[1::2] = [str(as_text(variables[name])) for name in pieces[1::2]]
            return _bounded(parts)
        return _evaluated(text, variables)
    except TemplateError as reason:
        missing_one = re.fullmatch(r"'(\w+)' is undefined", str(reason))
        hint = f" ({_BRACES})" if isinstance(reason, TemplateSyntaxError) else ""
        columns = (variable for variable in variables if _is_named(variable, text))
        if hint and (column := next(columns, None)) is not None:
            hint = f"; {_rename_hint(column)}"
        if missing_one:
            raise _undefined(missing_one[1], variables) from None
        raise ValueError(f"template: {reason!s:.300}{hint}") from None
    except (
        *(ArithmeticError, AssertionError, AttributeError, LookupError),
        *(MemoryError, RecursionError, SyntaxError, TypeError),
    ) as reason:
        raise ValueError(f"template: {reason!s:.300}") from None


def _evaluated(text: str, variables: Mapping[str, Any]) -> str:
    """Evaluate the expressions of a text. Raises TemplateError, and what Python raises for a wrong type or number."""
    compiled = _compile(text)
    if isinstance(compiled, Exception):
        raise compiled.with_traceback(None)
    template, names = compiled
    for name in names & variables.keys():
        if size_of(variables[name]) > MAX_SIZE:
            raise TemplateError(f"variable `{name}` is too large: in a text with filters it has at most {MAX_SIZE:,}")
    return _bounded(template.generate(variables))


def _bounded(pieces: Any) -> str:
    kept, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_CHARACTERS:
            raise ValueError(f"the template renders to more than {MAX_CHARACTERS:,} characters")
        kept.append(piece)
    return "".join(kept)


def _is_named(column: str, text: str) -> bool:
    """Return whether an expression of the text names a column whose name is not one word."""
    return not _WORD.fullmatch(column) and re.search(rf"\{{\{{[^{{}}]*{re.escape(column)}", text) is not None


def _rename_hint(column: str) -> str:
    return f"a variable is one word: rename the column `{column:.100}` to `{_as_word(column):.100}`"


def _as_word(column: str) -> str:
    word = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_")
    return word if _WORD.fullmatch(word) else f"column_{word}"


def _undefined(name: str, variables: Mapping[str, Any]) -> UndefinedVariable:
    column = next((key for key in variables if not _WORD.fullmatch(key) and _as_word(key) == name), None)
    if column is not None:
        return UndefinedVariable(f"variable `{name}` is not defined; {_rename_hint(column)}")
    names = sorted(f"{key!s:.100}" for key in variables)
    more = f" and {len(names) - _MAX_NAMES:,} more" if len(names) > _MAX_NAMES else ""
    known = ", ".join(names[:_MAX_NAMES]) + more or "none: add `matrix:` or `rows:`"
    return UndefinedVariable(f"variable `{name}` is not defined; known here: {known} ({_BRACES})")


@functools.lru_cache(maxsize=1024)
def _single(text: str) -> str | None:
    """Return the expression if a text is `{{ expression }}` and nothing else."""
    inner = text[2:-2]
    if not (text.startswith("{{") and text.endswith("}}")) or len(text) < 4 or "{" in inner or "}" in inner:
        return None
    return inner.removeprefix("-").removesuffix("-").strip()


@functools.lru_cache(maxsize=1024)
def _plain(text: str) -> tuple[str, ...] | None:
    """Split into text, variable, text, … if all expressions are names: Jinja2 takes ten times as long."""
    pieces = tuple(_PLAIN.split(text))
    plain = not any("{{" in part for part in pieces[::2]) and not _CONSTANTS.intersection(pieces[1::2])
    return pieces if plain else None


@functools.lru_cache(maxsize=1024)
def _compile(text: str) -> tuple[Template, frozenset[str]] | Exception:
    """Return a template and the names of its variables, or why it cannot be compiled, for all rows at once."""
    try:
        return _ENVIRONMENT.compiled(text)
    except Exception as reason:  # noqa: BLE001 - the caller raises it
        return reason

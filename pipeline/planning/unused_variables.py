"""Find variables of an entry that its text does not use: values that buy the same image again, and lost parameters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from pipeline.planning.job import Entry
    from pipeline.planning.rows import Variables

_EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_ONE_BRACE = re.compile(r"(?<!\{)\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}(?!\})")


def unused_variables(entry: Entry, variables: Variables, parameters: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield the key and the warning for each variable that has one brace, and for each list whose values say nothing.

    A column of a table may be unused, and a list of `zip`, as long as another one is used; but not a column that is
    called like one of the API's `parameters`, unless the entry states that itself. An entry with dynamic prompts may
    have a variable for its choice alone.
    """
    if not variables or entry.custom_id is not None:
        return
    texts = [(key, text) for key, value in entry.fields.items() for text in _texts(value)]
    used = {
        word for _, text in texts for expression in _EXPRESSION.findall(text) for word in re.findall(r"\w+", expression)
    }
    lost = [name for name in variables if name in parameters and name not in used and name not in entry.own_keys]
    if entry.rows is not None and lost:
        yield "rows", _lost(lost, entry.rows_name)
    if entry.is_dynamic:
        return
    one_brace = [(key, name) for key, text in texts for name in _ONE_BRACE.findall(text) if name in variables]
    for key, name in one_brace:
        if name not in used:
            yield key, f"`{{{name}}}` is sent as it stands: a variable has two braces, `{{{{ {name} }}}}`"
    used |= {name for _, name in one_brace}
    matrix, zipped = entry.matrix or {}, entry.zip or {}
    for name, values in matrix.items():
        if name not in used and len(values) > 1:
            yield "matrix", _unused(name, "value")
    columns = [name for name in variables if name not in matrix and name not in zipped]
    if entry.rows is not None and columns and used <= {*matrix, *zipped}:
        yield "rows", _unused(columns[0], "row")
    if zipped and used.isdisjoint(zipped) and len(next(iter(zipped.values()))) > 1:
        yield "zip", _unused(next(iter(zipped)), "place")


def _lost(names: list[str], table: str | None) -> str:
    columns, them = ("column", "it") if len(names) == 1 else ("columns", "one")
    what = f"{columns} {', '.join(names)} {'is' if len(names) == 1 else 'are'} not used"
    return f'{table}: {what}; to use {them}, write `{names[-1]}: "{{{{ {names[-1]} }}}}"`'


def _unused(name: str, of_what: str) -> str:
    again = f"each {of_what} makes the same request again (several images of one prompt are `n:`)"
    return f"no field uses `{{{{ {name:.60} }}}}`: {again}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)

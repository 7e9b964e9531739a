"""Mappings of models.yaml's form → `Model`s: overlays, inheritance, and every wrong key named."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.document import dotted, nearest
from pipeline.errors import ConfigError, Problem
from pipeline.spec import models, parameters, prices

_OWN = ("inherits", "snapshots", "shutdown", "replacement")  # of an entry alone, never inherited
_PARTS = (models.Model, models.Demands, parameters.Rule, parameters.FreeSize, prices.Prices, prices.TokenPrices)


def read_models(built_in: Mapping[str, Any], extra: Mapping[str, Any]) -> list[models.Model]:
    """Lay `extra` over `built_in` and read every entry. Raises ConfigError with all problems."""
    problems: list[Problem] = []
    entries = _overlay(built_in, extra)
    found = []
    for name, entry in entries.items():
        if entry is None:
            continue
        try:
            whole = _inherit(str(name), entries, ())
            found.append(_adapter().validate_python({**_without_nulls(whole), "name": str(name)}))
        except ConfigError as wrong:
            problems += wrong.problems
        except ValidationError as wrong:
            errors = wrong.errors(include_url=False)
            problems += [_problem(str(name), dict(error)) for error in errors if _is_own(entry, error["loc"])]
    if problems:
        raise ConfigError(problems)
    return found


def _inherit(name: str, entries: Mapping[str, Any], way: tuple[str, ...]) -> dict[str, Any]:
    """Give the entry laid over what it inherits. Raises ConfigError for a parent that is missing or a circle."""
    entry = entries.get(name)
    if not isinstance(entry, Mapping):
        raise ConfigError([Problem(f"models.{(*way, name)[0]}", _no_parent(name, entries) if way else "is no mapping")])
    if name in way:
        raise ConfigError([Problem(f"models.{name}.inherits", f"runs in a circle: {' → '.join((*way, name))}")])
    parent = entry.get("inherits")
    base = {} if parent is None else _inherit(str(parent), entries, (*way, name))
    base = {key: value for key, value in base.items() if key not in _OWN}
    return _overlay(base, {key: value for key, value in entry.items() if key != "inherits"})


def _is_own(entry: Mapping[str, Any], place: tuple[str | int, ...]) -> bool:
    """Whether a mistake stands in the entry itself; one that is inherited is named where it stands, once."""
    value: Any = entry
    for step in place:
        if isinstance(step, int) or not isinstance(value, Mapping):
            return True
        if step not in value:
            return "inherits" not in entry
        value = value[step]
    return True


def _no_parent(name: str, entries: Mapping[str, Any]) -> str:
    close = nearest(name, map(str, entries))
    return f"inherits from `{name}`, which is no model" + (f"; did you mean `{close}`?" if close else "")


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings at every depth; a null stays, to take away what is inherited later."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _overlay(below, value)
        else:
            merged[key] = value
    return merged


def _without_nulls(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in entry.items()
        if value is not None
    }


@functools.cache
def _adapter() -> TypeAdapter[models.Model]:
    return TypeAdapter(models.Model)


def _problem(name: str, error: Mapping[str, Any]) -> Problem:
    place = tuple(error["loc"])
    where = dotted(("models", name, *place))
    if error["type"] == "unexpected_keyword_argument":
        known = {part.name for kind in _PARTS for part in fields(kind)} - {"name"}
        close = nearest(str(place[-1]), known)
        return Problem(where, "is an unknown key" + (f"; did you mean `{close}`?" if close else ""))
    if error["type"] == "missing":
        return Problem(where, "is missing")
    return Problem(where, f"is {error['input']!r:.80}: {error['msg'][:1].lower()}{error['msg'][1:]}")

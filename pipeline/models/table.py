"""The table of models: models.yaml with the `models:` section of the config merged over it.

Entries inherit from each other; every unknown key is reported. No model name appears in the code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline.config import yaml_document
from pipeline.config.yaml_document import dotted, nearest
from pipeline.errors import ConfigError, Problem
from pipeline.models.model import Demands, Model
from pipeline.models.prices import Prices, TokenPrices
from pipeline.models.rules import FreeSize, Rule, quoted

_TABLE = Path(__file__).with_name("models.yaml")
_OWN = ("inherits", "snapshots", "shutdown", "replacement")  # of an entry alone, never inherited
_PARTS = (Model, Demands, Rule, FreeSize, Prices, TokenPrices)


@dataclass(frozen=True, slots=True)
class Models:
    """The table: by every name, snapshots included."""

    _by_name: Mapping[str, Model]

    @classmethod
    def load(cls, extra: Mapping[str, Any] | None = None) -> Models:
        """Lay `extra` (the user's `models:`) over the built-in table. Raises ConfigError that names the wrong keys."""
        models = read_models(_built_in(), extra or {})
        return cls({name: model for model in models for name in (model.name, *model.snapshots)})

    def find(self, name: str | None) -> Model | None:
        """Give the model by its name or a snapshot's; None where it is unknown or none is given."""
        return None if name is None else self._by_name.get(name)

    def names(self) -> list[str]:
        """Give every known name, snapshots included."""
        return sorted(self._by_name)

    def warn_unknown(self, name: str) -> str:
        """Say what it means that the table does not know this model."""
        close = nearest(name, self._by_name)
        hint = f" (did you mean {close}?)" if close else ""
        return f"model {quoted(name)} is not in the table{hint}: it is sent as it is, unchecked and without a price"


def convert(parameter: str, text: str, model: Model | None = None) -> object:
    """Convert a text cell to the type that the parameter takes ("80" → 80), else return it unchanged.

    Without a model, or for a parameter that it does not define, the rule of any known model applies.
    """
    rule = (model and model.parameters.get(parameter)) or _known_rules().get(parameter)
    return rule.convert(text) if rule else text


def known_parameters() -> frozenset[str]:
    """Name the parameters that any model of the built-in table takes."""
    return frozenset(_known_rules())


@functools.cache
def _known_rules() -> dict[str, Rule]:
    rules = {"n": Rule(takes="whole")}
    for model in Models.load()._by_name.values():
        rules |= {name: rule for name, rule in model.parameters.items() if not rule.refused}
    return rules


@functools.cache
def _built_in() -> Mapping[str, Any]:
    return yaml_document.read(_TABLE, ConfigError).value  # type: ignore[no-any-return]  # the file's own form


def read_models(built_in: Mapping[str, Any], extra: Mapping[str, Any]) -> list[Model]:
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
def _adapter() -> TypeAdapter[Model]:
    return TypeAdapter(Model)


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

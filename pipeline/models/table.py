"""Load the table of models: models.yaml with the `models:` section of the config merged over it.

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
from pipeline.models.model import ImageRequirements, Model
from pipeline.models.prices import Prices
from pipeline.models.rules import FreeSize, ParameterRule, quoted
from pipeline.models.usage import TokenPrices

_TABLE = Path(__file__).with_name("models.yaml")
_NOT_INHERITED = ("inherits", "snapshots", "shutdown", "replacement")
_CLASSES = (Model, ImageRequirements, ParameterRule, FreeSize, Prices, TokenPrices)


@dataclass(frozen=True, slots=True)
class Models:
    """The table of models, by name; the names of snapshots are included."""

    by_name: Mapping[str, Model]

    @classmethod
    def load(cls, extra: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None) -> Models:
        """Merge `extra` (`models:` of the config) over the built-in table, and over both what is a provider's `own`.

        Raises ConfigError with all problems.
        """
        models = read_models(_built_in(), _merge(extra or {}, own or {}))
        return cls({name: model for model in models for name in (model.name, *model.snapshots)})

    def find(self, name: str | None) -> Model | None:
        """Return the model by its name or a snapshot's, or None if it is unknown or `name` is None."""
        return None if name is None else self.by_name.get(name)

    @property
    def parameters(self) -> set[str]:
        """The parameters that any model of the table knows, be it only to refuse them."""
        return {name for model in self.by_name.values() for name in model.parameters}

    def unknown_model_warning(self, name: str) -> str:
        """Return the warning for a model that the table does not know."""
        close = nearest(name, self.by_name)
        hint = f" (did you mean {close}?)" if close else ""
        return f"model {quoted(name)} is not in the table{hint}: its requests are sent unchecked and without a price"


def convert(parameter: str, text: str, model: Model | None = None) -> object:
    """Convert a text cell to the type that the parameter takes ("80" → 80), else return it unchanged.

    Without a model, or for a parameter that it does not define, the rule of any known model applies.
    """
    rule = (model and model.parameters.get(parameter)) or _known_rules().get(parameter)
    return rule.convert(text) if rule else text


def known_parameters() -> frozenset[str]:
    """Return the names of the parameters that any model of the built-in table accepts."""
    return frozenset(_known_rules())


@functools.cache
def _known_rules() -> dict[str, ParameterRule]:
    rules = {"n": ParameterRule(takes="whole")}
    for model in Models.load().by_name.values():
        rules |= {name: rule for name, rule in model.parameters.items() if not rule.refused}
    return rules


@functools.cache
def _built_in() -> Mapping[str, Any]:
    return yaml_document.read(_TABLE, ConfigError).value  # type: ignore[no-any-return]  # models.yaml is a mapping


def read_models(built_in: Mapping[str, Any], extra: Mapping[str, Any]) -> list[Model]:
    """Merge `extra` over `built_in` and read every entry. Raises ConfigError with all problems."""
    problems: list[Problem] = []
    entries = _merge(built_in, extra)
    found = []
    for name, entry in entries.items():
        if entry is None:
            continue
        try:
            merged = _inherit(str(name), entries, ())
            found.append(_adapter().validate_python({**_without_nulls(merged), "name": str(name)}))
        except ConfigError as error:
            problems += error.problems
        except ValidationError as error:
            details = error.errors(include_url=False)
            problems += [_problem(str(name), dict(detail)) for detail in details if _is_own(entry, detail["loc"])]
    if problems:
        raise ConfigError(problems)
    return found


def _inherit(name: str, entries: Mapping[str, Any], children: tuple[str, ...]) -> dict[str, Any]:
    """Return the entry merged over what it inherits. Raises ConfigError for a parent that is missing or a cycle."""
    entry = entries.get(name)
    if not isinstance(entry, Mapping):
        raise ConfigError(
            [Problem(f"models.{(*children, name)[0]}", _no_parent(name, entries) if children else "is not a mapping")]
        )
    if name in children:
        raise ConfigError([Problem(f"models.{name}.inherits", f"is a cycle: {' → '.join((*children, name))}")])
    parent = entry.get("inherits")
    base = {} if parent is None else _inherit(str(parent), entries, (*children, name))
    base = {key: value for key, value in base.items() if key not in _NOT_INHERITED}
    return _merge(base, {key: value for key, value in entry.items() if key != "inherits"})


def _is_own(entry: Mapping[str, Any], path: tuple[str | int, ...]) -> bool:
    """Whether a mistake is in the entry itself; an inherited one is reported for the parent only."""
    value: Any = entry
    for step in path:
        if isinstance(step, int) or not isinstance(value, Mapping):
            return True
        if step not in value:
            return "inherits" not in entry
        value = value[step]
    return True


def _no_parent(name: str, entries: Mapping[str, Any]) -> str:
    close = nearest(name, map(str, entries))
    return f"inherits from `{name}`, which is not a model" + (f"; did you mean `{close}`?" if close else "")


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings at every depth; nulls stay, since they remove inherited keys later."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
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
    path = tuple(error["loc"])
    location = dotted(("models", name, *path))
    if error["type"] == "unexpected_keyword_argument":
        known = {part.name for cls in _CLASSES for part in fields(cls)} - {"name"}
        close = nearest(str(path[-1]), known)
        return Problem(location, "is an unknown key" + (f"; did you mean `{close}`?" if close else ""))
    if error["type"] == "missing":
        return Problem(location, "is missing")
    return Problem(location, f"is {error['input']!r:.80}: {error['msg'][:1].lower()}{error['msg'][1:]}")

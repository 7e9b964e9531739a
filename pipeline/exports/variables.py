"""Types of a job's variables: a reader of columns takes one type for each, whatever a job file mixes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

VariableType = Literal["boolean", "integer", "number", "text"]

_LARGEST = 2**63


class VariableTypes:
    """The types of all variables that were added, by name."""

    def __init__(self) -> None:
        self._found: dict[str, set[VariableType]] = {}

    def add(self, variables: Mapping[str, Any]) -> None:
        """Note the types of the variables of one request."""
        for name, value in variables.items():
            types = self._found.setdefault(name, set())
            if value is not None:
                types.add(_type_of(value))

    def types(self) -> dict[str, VariableType]:
        """Return one type for each variable: text if its values have several, or if there is none."""
        return {name: _common(types) for name, types in self._found.items()}

    def shown(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the variables of one request, each value in the type of its variable; text is JSON if need be."""
        return {name: _shown(value, _common(self._found[name])) for name, value in variables.items()}


def _type_of(value: Any) -> VariableType:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return "integer"
    return "number" if isinstance(value, float) else "text"


def _common(types: set[VariableType]) -> VariableType:
    if len(types) == 1:
        return next(iter(types))
    return "number" if types == {"integer", "number"} else "text"


def _shown(value: Any, wanted: VariableType) -> Any:
    if value is None or (wanted == "text" and isinstance(value, str)):
        return value
    if wanted == "text":
        return json.dumps(value, ensure_ascii=False)
    return float(value) if wanted == "number" else value

"""A walk through all schemas within a JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def never(message: str) -> dict[str, Any]:
    """Return what no value fits, with a message for editors; of `false` some validators name no place."""
    return {"enum": [], "errorMessage": message}


NEVER = never("not allowed here")
UNKNOWN = never("unknown key")

MAPS = {"properties", "patternProperties", "$defs"}
"""Keywords whose value maps names to schemas."""


def walk(part: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Return a schema in which each schema, the innermost first, is what `change` returns for it."""
    if isinstance(part, list):
        return [walk(one, change) for one in part]
    if not isinstance(part, dict):
        return part
    return change(
        {
            key: {name: walk(below, change) for name, below in one.items()} if key in MAPS else walk(one, change)
            for key, one in part.items()
        }
    )

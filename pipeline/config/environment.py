"""Read values that come from environment variables, and the HTTP headers that may hold them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.dialect import HEADER_NAME, SECRET_NAME
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.validation import Section

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """A value that is read from the environment variable `variable`, so that it is not written in a file."""

    variable: str


def read_headers(section: Section) -> dict[str, str | EnvironmentVariable]:
    """Read extra HTTP headers; problems are recorded in the section."""
    headers: dict[str, str | EnvironmentVariable] = {}
    for name, value in section.value.items():
        if not HEADER_NAME.fullmatch(name):
            section.add_problem(name, "is not a valid name of an HTTP header")
        named = parse_variable_reference(value)
        if named is not None:
            headers[name] = named
        elif SECRET_NAME.search(name):
            section.add_problem(
                name, "keys are never written in files; write {env: NAME} for a value from the environment"
            )
        elif isinstance(value, str) and value.isprintable() and value.isascii():
            headers[name] = value
        else:
            section.add_problem(name, "must be one line of ASCII text, or {env: NAME} for a value from the environment")
    return headers


def resolve_headers(
    headers: Mapping[str, str | EnvironmentVariable], environment: Mapping[str, str], who: str
) -> dict[str, str]:
    """Return the headers with their values; `who` names the user of them in messages.

    Raises ConfigError if a variable is unset or empty.
    """
    return {
        name: read_variable(environment, value.variable, f"{who} takes its header {name} from")
        if isinstance(value, EnvironmentVariable)
        else value
        for name, value in headers.items()
    }


def parse_variable_reference(value: object) -> EnvironmentVariable | None:
    """Parse {env: NAME}; return None for any other value."""
    variable = value["env"] if isinstance(value, dict) and set(value) == {"env"} else None
    return EnvironmentVariable(variable) if isinstance(variable, str) and VARIABLE_NAME.fullmatch(variable) else None


def read_variable(environment: Mapping[str, str], name: str, purpose: str) -> str:
    """Return the value of an environment variable.

    Raises ConfigError, which begins with `purpose`, if it is unset, empty or not usable in an HTTP header.
    """
    value = environment.get(name, "").strip()
    if not value:
        raise ConfigError(f"{purpose} ${name}, which is unset or empty: export {name}=…")
    if not value.isprintable() or not value.isascii():
        raise ConfigError(f"{purpose} ${name}, which holds characters that are not allowed in an HTTP header")
    return value

"""Read values that come from environment variables, and the HTTP headers that may hold them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.dialect import HEADER_NAME, SECRET_NAME
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pipeline.config.validation import Section

_QUOTES = frozenset("\"'`\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a")

BASIC_VARIABLES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TZ", "TMPDIR", "TEMP", "TMP", "LANG", "LANGUAGE"),
        *("LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME"),
        *("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),  # notify-send
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA"),
    }
)
"""Environment variables that programs need and that hold no secret."""

PYTHON_VARIABLES = frozenset(
    {
        *("PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8"),
        *("PYTHONIOENCODING", "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONWARNINGS", "PYTHONHASHSEED"),
        *("PYTHONPLATLIBDIR", "PYTHONFAULTHANDLER", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
    }
)
"""Those of Python, for a process that is Python."""

ADMIN_KEY = "OPENAI_ADMIN_KEY"
"""The environment variable with the key of the admin API, which makes no images."""

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class EnvironmentVariable:
    """A value that is read from the environment variable `variable`, so that it is not written in a file."""

    variable: str


class UnusableVariable(ConfigError):
    """An environment variable that is unset or cannot be sent. `fault` is its message without the advice."""

    def __init__(self, variable: str, fault: str, advice: str | None = None) -> None:
        super().__init__(fault if advice is None else f"{fault}: {advice}")
        self.variable = variable
        self.fault = fault


def child_environment(
    environment: Mapping[str, str], names: frozenset[str] = BASIC_VARIABLES, secret: Collection[str] = ()
) -> dict[str, str]:
    """Return the environment of a child process: the variables of these names, without those that hold secrets.

    A child needs no key of ours, and no secret that others left in the environment; it gets no proxy, either.
    """
    return {name: value for name, value in environment.items() if name.upper() in names and name not in secret}


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

    Raises UnusableVariable if a variable is unset or cannot be sent.
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
    """Return the value of an environment variable, without white space around it.

    Raises UnusableVariable, which begins with `purpose` and never repeats the value, if it is unset, empty, not usable
    in an HTTP header, or holds more than the value: quotes, or the name of the variable.
    """
    value = environment.get(name, "").strip()
    if not value:
        raise UnusableVariable(name, f"{purpose} ${name}, which is unset or empty", f"export {name}=…")
    fault = _find_fault(value, name)
    if fault is not None:
        raise UnusableVariable(name, f"{purpose} ${name}, which {fault}")
    return value


def read_key(environment: Mapping[str, str], name: str, purpose: str, header: str, scheme: str | None) -> str:
    """Return a key, which is one word; `header` and `scheme` are what is written before it when it is sent.

    Raises UnusableVariable as `read_variable` does, and if the key holds spaces, or the words that are added to it.
    """
    value, which = read_variable(environment, name, purpose), f"{purpose} ${name}, which"
    added = re.match(rf"(?:{re.escape(header)}|Authorization)\s*:", value, re.IGNORECASE)
    words = {"Bearer", "Token", "Basic", scheme or "Bearer"}
    is_whole_value = scheme is None and header.lower() == "authorization"  # the key brings its own word
    if added is not None:
        raise UnusableVariable(name, f"{which} begins with the name of a header; leave in it the key alone")
    for word in () if is_whole_value else sorted(words):
        if value.lower().startswith(f"{word.lower()} "):
            raise UnusableVariable(name, f"{which} begins with `{word} `; that word is added when it is sent")
    if not is_whole_value and re.search(r"\s", value):
        raise UnusableVariable(name, f"{which} holds a space within it; a key is one word")
    return value


def _find_fault(value: str, name: str) -> str | None:
    """Return what is wrong with a value, without a letter of it that could be secret; None if nothing is."""
    if value[0] in _QUOTES and value[-1] in _QUOTES:
        return "begins and ends with quotation marks, which are sent with it; write it without them (docker keeps them)"
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        return "begins or ends with a quotation mark, and the other one is missing; write it without"
    if re.match(rf"(?:export\s+|set\s+)?(?:{re.escape(name)}|[A-Z][A-Z0-9_]*_(?:KEY|TOKEN|URL))\s*=", value):
        return f"begins with the name of a variable and `=`; write it once: export {name}=…"
    if re.fullmatch(r"\$\{?\w+\}?|%\w+%", value):
        return "holds the name of another variable, which nothing has replaced"
    if re.search(r"[\r\n]", value):
        return "holds a line break within it; write it in one line"
    if not value.isascii():
        character = next(character for character in value if not character.isascii())
        named = f"U+{ord(character):04X} {unicodedata.name(character, '')}".rstrip()
        return f"holds characters that are not allowed in an HTTP header ({named}); copy it again"
    if not value.isprintable():
        return "holds characters that are not allowed in an HTTP header"
    return None

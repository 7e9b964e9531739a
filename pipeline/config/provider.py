"""One entry of `providers:` → a `Provider`: where a server is, and how hard it may be asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.config.dialect import HEADER_NAME, KEYS, SECRET_NAME, Dialect, read_dialect
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.validation import Section

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")
"""What a job, a provider or a request may be called; it becomes a folder's or a file's name."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # of the environment


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `images` images' worth of calls in any `per_seconds` seconds; `margin` stretches the window."""

    images: int = 50
    per_seconds: float = 60.0
    margin: float = 1.005

    @property
    def window(self) -> float:
        """The seconds in which we ourselves never send more than `images`."""
        return self.per_seconds * self.margin


@dataclass(frozen=True, slots=True)
class Provider:
    """A server that speaks the Images API. `base_url` is None for the sandbox, which gets an address when it starts."""

    name: str
    base_url: str | None
    api_key_env: str | None = None
    rate_limit: RateLimit | None = field(default_factory=RateLimit)
    concurrency: int = 1024
    images_per_call: int = 10
    timeout_seconds: float = 600.0
    url_ttl_seconds: float = 3600.0
    headers: Mapping[str, str | EnvironmentName] = field(default_factory=dict)
    sandbox: Mapping[str, Any] | None = None
    dialect: Dialect = field(default_factory=Dialect)

    def key(self, environment: Mapping[str, str]) -> str | None:
        """Read the provider's key; None where it takes none. Raises ConfigError where it is unset or empty."""
        if self.api_key_env is None:
            return None if self.sandbox is None else "sandbox"
        return variable_of(environment, self.api_key_env, f"provider `{self.name}` takes its key from")

    def header_values(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Read the values of the extra headers. Raises ConfigError where a named variable is unset or empty."""
        return values_of(self.headers, environment, f"provider `{self.name}`")


@dataclass(frozen=True, slots=True)
class EnvironmentName:
    """A value that stands in the environment, so that it need not stand in a file."""

    variable: str


_KEYS = (
    "sandbox",
    "base_url",
    "api_key_env",
    "rate_limit",
    "concurrency",
    "images_per_call",
    "timeout_seconds",
    "url_ttl_seconds",
    "headers",
    *KEYS,
)


def read_provider(section: Section, name: str) -> Provider:
    """Read one entry of `providers`; its mistakes are noted in the section."""
    section.only(*_KEYS)
    if not NAME.fullmatch(name):
        section.wrong(None, f"`{name}` is no name: letters, digits, '.', '_', '-', at most 100, no dot in front")
    sandbox = section.value.get("sandbox")
    rehearsal = sandbox is True or isinstance(sandbox, dict)
    if sandbox is not None and not isinstance(sandbox, bool | dict):
        section.wrong("sandbox", "must be true or a mapping of the sandbox's settings")
    base_url = section.text("base_url", None)
    if rehearsal and base_url is not None:
        section.wrong("base_url", "a sandbox gets its own address; leave out `base_url` or `sandbox`")
    if not rehearsal:
        _check_base_url(section, base_url)
    rate_limit = _read_rate_limit(section)
    return Provider(
        name=name,
        base_url=None if rehearsal or base_url is None else base_url.rstrip("/"),
        api_key_env=_read_key_name(section),
        rate_limit=rate_limit,
        concurrency=section.integer("concurrency", 32 if rate_limit is None else 1024, least=1),
        images_per_call=section.integer("images_per_call", 10, least=1),
        timeout_seconds=section.number("timeout_seconds", 600.0, least=0.001),
        url_ttl_seconds=section.number("url_ttl_seconds", 3600.0, least=0),
        headers=read_headers(section.section("headers")),
        sandbox=(sandbox if isinstance(sandbox, dict) else {}) if rehearsal else None,
        dialect=read_dialect(section),
    )


def _read_key_name(section: Section) -> str | None:
    name = section.value.get("api_key_env")
    if name is None or (isinstance(name, str) and _VARIABLE.fullmatch(name)):
        return name
    # A key that was pasted here is not repeated.
    section.wrong(
        "api_key_env", "must be the name of a variable, like OPENAI_API_KEY; a key is never written in a file"
    )
    return None


def _check_base_url(section: Section, base_url: str | None) -> None:
    if base_url is None:
        section.wrong(None, "needs `base_url: https://…/v1`, or `sandbox: true`")
        return
    try:
        url = urlsplit(base_url)
        good = url.scheme in {"http", "https"} and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    if not good or not base_url.isprintable() or " " in base_url:
        section.wrong("base_url", f"`{base_url:.80}` is no address; write it like https://api.openai.com/v1")
    elif "@" in url.netloc:
        section.wrong("base_url", "a key does not belong in an address; name its variable in `api_key_env`")
    elif url.query or url.fragment:
        section.wrong(
            "base_url", f"`{base_url}` must end with its path; a query does not belong here, but into `query:`"
        )


def _read_rate_limit(section: Section) -> RateLimit | None:
    if "rate_limit" in section.value and section.value["rate_limit"] is None:
        return None
    limit = section.section("rate_limit")
    limit.only("images", "per_seconds", "margin")
    return RateLimit(
        images=limit.integer("images", 50, least=1),
        per_seconds=limit.number("per_seconds", 60.0, least=0.001),
        margin=limit.number("margin", 1.005, least=1),
    )


def read_headers(section: Section) -> dict[str, str | EnvironmentName]:
    """Read extra headers of HTTP; their mistakes are noted in the section."""
    headers: dict[str, str | EnvironmentName] = {}
    for name, value in section.value.items():
        if not HEADER_NAME.fullmatch(name):
            section.wrong(name, "is no name of an HTTP header")
        named = environment_name(value)
        if named is not None:
            headers[name] = named
        elif SECRET_NAME.search(name):
            section.wrong(name, "a key is never written in a file; write {env: NAME} for a value from the environment")
        elif isinstance(value, str) and value.isprintable() and value.isascii():
            headers[name] = value
        else:
            section.wrong(name, "must be a line of text, or {env: NAME} for a value from the environment")
    return headers


def values_of(headers: Mapping[str, str | EnvironmentName], environment: Mapping[str, str], who: str) -> dict[str, str]:
    """Give the values of headers; `who` takes them. Raises ConfigError where a named variable is unset or empty."""
    return {
        name: variable_of(environment, value.variable, f"{who} takes its header {name} from")
        if isinstance(value, EnvironmentName)
        else value
        for name, value in headers.items()
    }


def environment_name(value: object) -> EnvironmentName | None:
    """Read {env: NAME}; None where it is something else."""
    variable = value["env"] if isinstance(value, dict) and set(value) == {"env"} else None
    return EnvironmentName(variable) if isinstance(variable, str) and _VARIABLE.fullmatch(variable) else None


def variable_of(environment: Mapping[str, str], name: str, purpose: str) -> str:
    """Read a variable of the environment. Raises ConfigError, which says what it is for, where it is unset or empty."""
    value = environment.get(name, "").strip()
    if not value:
        raise ConfigError(f"{purpose} ${name}, which is unset or empty: export {name}=…")
    if not value.isprintable() or not value.isascii():
        raise ConfigError(f"{purpose} ${name}, which holds characters that no HTTP header can carry")
    return value

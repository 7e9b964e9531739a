"""config.yaml and the environment → a frozen `Config`; mistakes name file, line and the nearest right spelling."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline import document
from pipeline.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.document import Document, Place

DEFAULT_FILE = "config.yaml"
FILE_VARIABLE = "PIPELINE_CONFIG"
NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")
"""What a job, a provider or a request may be called; it becomes a folder's or a file's name."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `images` images' worth of calls in any `per_seconds` seconds; `margin` stretches the window for jitter."""

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

    def key(self, environment: Mapping[str, str]) -> str | None:
        """Read the provider's key; None where it takes none. Raises ConfigError where its variable is unset or empty."""
        if self.api_key_env is None:
            return None if self.sandbox is None else "sandbox"
        return _variable(environment, self.api_key_env, f"provider `{self.name}` takes its key from")

    def header_values(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Read the values of the extra headers. Raises ConfigError where a named variable is unset or empty."""
        return {
            name: _variable(environment, value.variable, f"provider `{self.name}` takes its header {name} from")
            if isinstance(value, EnvironmentName)
            else value
            for name, value in self.headers.items()
        }


@dataclass(frozen=True, slots=True)
class EnvironmentName:
    """A value that stands in the environment, so that it need not stand in a file."""

    variable: str


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and how long a request is tried."""

    attempts: int = 10
    max_wait_seconds: float = 120.0
    outage_hours: float = 12.0


@dataclass(frozen=True, slots=True)
class DownloadRules:
    """How often a definite refusal is asked again, how large a picture may be, and which hosts may be private ones."""

    attempts: int = 6
    max_bytes: int = 100 * 1024 * 1024
    allow_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that holds for all jobs."""

    file: Path | None
    output: Path
    provider: str | None
    providers: Mapping[str, Provider]
    budget_usd: float | None = None
    retry: RetryRules = field(default_factory=RetryRules)
    download: DownloadRules = field(default_factory=DownloadRules)
    models: Mapping[str, Any] = field(default_factory=dict)

    def find_provider(self, name: str) -> Provider:
        """Give the provider called `name`. Raises ConfigError that names the nearest one."""
        if name in self.providers:
            return self.providers[name]
        close = document.nearest(name, self.providers)
        hint = f"did you mean `{close}`?" if close else f"known are {', '.join(sorted(self.providers))}"
        raise ConfigError([Problem(str(self.file or "built-in config"), f"has no provider `{name}`; {hint}")])


def load(
    path: Path | None = None, *, output: Path | None = None, environment: Mapping[str, str] = os.environ
) -> Config:
    """Read the config: `path`, else `$PIPELINE_CONFIG`, else ./config.yaml, else the built-in defaults.

    `output` wins over the file's own. Raises ConfigError.
    """
    chosen = path or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    if chosen is None and Path(DEFAULT_FILE).is_file():
        chosen = Path(DEFAULT_FILE)
    if chosen is None:
        providers = {"sandbox": _SANDBOX, "openai": _OPENAI}
        return Config(None, (output or Path("outputs")).absolute(), None, providers)
    return _read_config(document.read(chosen, ConfigError), chosen, output)


_SANDBOX = Provider("sandbox", None, sandbox={})
_OPENAI = Provider("openai", "https://api.openai.com/v1", api_key_env="OPENAI_API_KEY")


def _read_config(doc: Document, path: Path, output: Path | None) -> Config:
    top = _Section(doc, ())
    top.only("output", "provider", "providers", "budget_usd", "retry", "download", "models")
    folder = output or path.parent / top.text("output", "outputs")
    providers = {
        name: _read_provider(top.section("providers").section(name), name) for name in top.section("providers").keys()
    }
    retry, download = top.section("retry"), top.section("download")
    retry.only("attempts", "max_wait_seconds", "outage_hours")
    download.only("attempts", "max_bytes", "allow_hosts")
    config = Config(
        file=path,
        output=folder.absolute(),
        provider=top.text("provider", None),
        providers=providers or {"sandbox": _SANDBOX, "openai": _OPENAI},
        budget_usd=top.number("budget_usd", None, least=0),
        retry=RetryRules(
            attempts=retry.integer("attempts", 10, least=1),
            max_wait_seconds=retry.number("max_wait_seconds", 120.0, least=0),
            outage_hours=retry.number("outage_hours", 12.0, least=0),
        ),
        download=DownloadRules(
            attempts=download.integer("attempts", 6, least=1),
            max_bytes=download.integer("max_bytes", 100 * 1024 * 1024, least=1),
            allow_hosts=frozenset(host.lower() for host in download.texts("allow_hosts")),
        ),
        models=top.mapping("models"),
    )
    if config.provider is not None and config.provider not in config.providers:
        close = document.nearest(config.provider, config.providers)
        hint = f"did you mean `{close}`?" if close else f"known are {', '.join(sorted(config.providers))}"
        top.wrong("provider", f"there is no provider `{config.provider}`; {hint}")
    if top.problems:
        raise ConfigError(top.problems)
    return config


_PROVIDER_KEYS = (
    "sandbox",
    "base_url",
    "api_key_env",
    "rate_limit",
    "concurrency",
    "images_per_call",
    "timeout_seconds",
    "url_ttl_seconds",
    "headers",
)


def _read_provider(section: _Section, name: str) -> Provider:
    section.only(*_PROVIDER_KEYS)
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
        api_key_env=section.text("api_key_env", None),
        rate_limit=rate_limit,
        concurrency=section.integer("concurrency", 32 if rate_limit is None else 1024, least=1),
        images_per_call=section.integer("images_per_call", 10, least=1),
        timeout_seconds=section.number("timeout_seconds", 600.0, least=0.001),
        url_ttl_seconds=section.number("url_ttl_seconds", 3600.0, least=0),
        headers=_read_headers(section.section("headers")),
        sandbox=(sandbox if isinstance(sandbox, dict) else {}) if rehearsal else None,
    )


def _check_base_url(section: _Section, base_url: str | None) -> None:
    if base_url is None:
        section.wrong(None, "needs `base_url: https://…/v1`, or `sandbox: true`")
        return
    try:
        url = urlsplit(base_url)
        good = url.scheme in {"http", "https"} and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    if not good:
        section.wrong("base_url", f"`{base_url}` is no address; write it like https://api.openai.com/v1")
    elif "@" in url.netloc:
        section.wrong("base_url", "a key does not belong in an address; name its variable in `api_key_env`")
    elif url.query or url.fragment:
        section.wrong("base_url", f"`{base_url}` must end with its path; a query does not belong here")


def _read_rate_limit(section: _Section) -> RateLimit | None:
    if "rate_limit" in section.value and section.value["rate_limit"] is None:
        return None
    limit = section.section("rate_limit")
    limit.only("images", "per_seconds", "margin")
    return RateLimit(
        images=limit.integer("images", 50, least=1),
        per_seconds=limit.number("per_seconds", 60.0, least=0.001),
        margin=limit.number("margin", 1.005, least=1),
    )


def _read_headers(section: _Section) -> dict[str, str | EnvironmentName]:
    headers: dict[str, str | EnvironmentName] = {}
    for name, value in section.value.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            section.wrong(name, "is no name of an HTTP header")
        if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
            headers[name] = EnvironmentName(value["env"])
        elif isinstance(value, str) and value.isprintable():
            headers[name] = value
        else:
            section.wrong(name, "must be a line of text, or {env: NAME} for a value from the environment")
    return headers


def _variable(environment: Mapping[str, str], name: str, purpose: str) -> str:
    value = environment.get(name, "").strip()
    if not value:
        raise ConfigError(f"{purpose} ${name}, which is unset or empty: export {name}=…")
    if not value.isprintable() or not value.isascii():
        raise ConfigError(f"{purpose} ${name}, which holds characters that no HTTP header can carry")
    return value


@dataclass(slots=True)
class _Section:
    """One mapping of the config file while it is read; what is wrong is gathered in one list for the whole file."""

    doc: Document
    place: Place
    value: dict[str, Any] = field(init=False)
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        value = self.doc.value
        for step in self.place:
            value = value.get(step) if isinstance(value, dict) else None
        self.value = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            self.wrong(None, "must be a mapping of keys to values")

    def wrong(self, key: str | None, what: str) -> None:
        place = self.place if key is None else (*self.place, key)
        self.problems.append(Problem(self.doc.where(*place), what))

    def only(self, *known: str) -> None:
        for key in self.value:
            if key not in known:
                self.wrong(key, document.unknown_key(key, known))

    def section(self, key: str) -> _Section:
        inner = _Section(self.doc, (*self.place, key))
        self.problems.extend(inner.problems)
        inner.problems = self.problems
        return inner

    def keys(self) -> list[str]:
        return list(self.value)

    def mapping(self, key: str) -> dict[str, Any]:
        return self.section(key).value

    def text(self, key: str, default: Any) -> Any:
        value = self.value.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            self.wrong(key, f"must be text, not {value!r}")
            return default
        return value

    def texts(self, key: str) -> list[str]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.wrong(key, "must be a list of names")
            return []
        return value

    def integer(self, key: str, default: int, *, least: int) -> int:
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.wrong(key, f"must be a whole number of at least {least}, not {value!r}")
            return default
        return value

    def number(self, key: str, default: Any, *, least: float) -> Any:
        value = self.value.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
            self.wrong(key, f"must be a number of at least {least:g}, not {value!r}")
            return default
        return float(value)

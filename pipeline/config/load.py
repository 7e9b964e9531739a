"""config.yaml and the environment → a frozen `Config`; mistakes name file, line and the nearest right spelling."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml_document
from pipeline.config.notifications import Notify, read_notify
from pipeline.config.provider import NAME, EnvironmentName, Provider, RateLimit, read_provider
from pipeline.config.validation import Section
from pipeline.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.yaml_document import Document

__all__ = ["NAME", "Config", "DownloadRules", "EnvironmentName", "Provider", "RateLimit", "RetryRules", "load"]

DEFAULT_FILE = "config.yaml"
FILE_VARIABLE = "PIPELINE_CONFIG"


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
    notify: Notify | None = None

    def secrets(self, environment: Mapping[str, str]) -> list[str]:
        """Give every value that this config takes from the environment, as far as it is there; they may be keys."""
        named = [provider.api_key_env for provider in self.providers.values()]
        headers = [value for provider in self.providers.values() for value in provider.headers.values()]
        if self.notify is not None:
            headers += [*self.notify.headers.values(), *([self.notify.webhook] if self.notify.webhook else [])]
        named += [value.variable for value in headers if isinstance(value, EnvironmentName)]
        return [value for name in named if name and (value := environment.get(name, "").strip())]

    def find_provider(self, name: str) -> Provider:
        """Give the provider called `name`. Raises ConfigError that names the nearest one."""
        if name in self.providers:
            return self.providers[name]
        raise ConfigError([Problem("", self.no_provider(name))])

    def no_provider(self, name: str) -> str:
        """Say that there is no provider of that name, and which one was probably meant."""
        return f"{self.file or 'the built-in config'} has no provider `{name}`; {_hint(name, self.providers)}"


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
    return _read_config(yaml_document.read(chosen, ConfigError), chosen, output)


_SANDBOX = Provider("sandbox", None, sandbox={})
_OPENAI = Provider("openai", "https://api.openai.com/v1", api_key_env="OPENAI_API_KEY")


def _read_config(doc: Document, path: Path, output: Path | None) -> Config:
    top = Section(doc, (), list(doc.problems))
    top.only("output", "provider", "providers", "budget_usd", "retry", "download", "models", "notify")
    folder = output or path.parent / top.text("output", "outputs")
    named = top.section("providers")
    providers = {name: read_provider(named.section(name), name) for name in named.value}
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
        notify=read_notify(top.section("notify")),
    )
    if config.provider is not None and config.provider not in config.providers:
        top.wrong("provider", f"there is no provider `{config.provider}`; {_hint(config.provider, config.providers)}")
    if top.problems:
        raise ConfigError(top.problems)
    return config


def _hint(name: str, known: Mapping[str, Provider]) -> str:
    close = yaml_document.nearest(name, known)
    return f"did you mean `{close}`?" if close else f"known are {', '.join(sorted(known))}"

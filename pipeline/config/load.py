"""Read config.yaml into a frozen `Config`; problems name file, line and the closest known key."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import yaml_document
from pipeline.config.batch_rules import SANDBOX_BATCH_RULES, BatchRules
from pipeline.config.environment import ADMIN_KEY, EnvironmentVariable
from pipeline.config.image_places import DEFAULT_SPOOL_BYTES, read_image_places
from pipeline.config.notifications import NotificationSettings, read_notifications
from pipeline.config.provider import Provider, RateLimit, read_provider
from pipeline.config.routes import Route, read_routes
from pipeline.config.validation import Section
from pipeline.config.workers import WorkerSettings, read_workers
from pipeline.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pipeline.config.yaml_document import Document

__all__ = ["Config", "DownloadRules", "Provider", "RateLimit", "RetryRules", "Route", "load"]

DEFAULT_FILE = "config.yaml"
FILE_VARIABLE = "PIPELINE_CONFIG"


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often a call is retried, and how long the run waits. `unknown` bounds retries of calls that may be paid."""

    attempts: int = 10
    unknown: int = 2
    max_wait_seconds: float = 120.0
    outage_hours: float = 12.0
    start_minutes: float = 10.0


@dataclass(frozen=True, slots=True)
class DownloadRules:
    """How often a refused download is retried, the limits of an image, and hosts that may have private addresses.

    `max_pixels` is of one frame, and holds for images that arrive as base64, too.
    """

    attempts: int = 6
    max_bytes: int = 100 * 1024 * 1024
    max_pixels: int = 89_478_485
    allow_hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of all jobs."""

    file: Path | None
    output: Path
    provider: str | None
    providers: Mapping[str, Provider]
    budget_usd: float | None = None
    retry: RetryRules = field(default_factory=RetryRules)
    download: DownloadRules = field(default_factory=DownloadRules)
    models: Mapping[str, Any] = field(default_factory=dict)
    notify: NotificationSettings | None = None
    shared: bool = False  # what is written is readable as the umask allows
    images: Path | str | None = None  # the folder, or the URL of the object store, of new images; `output` if None
    images_url: str | None = None  # where people see images; replaces the root
    images_options: Mapping[str, Any] = field(default_factory=dict)  # for fsspec
    spool_bytes: int = DEFAULT_SPOOL_BYTES
    routes: Mapping[str, Route] = field(default_factory=dict)
    workers: WorkerSettings | None = None  # on other machines

    @property
    def images_folder(self) -> Path:
        """The local folder below which new images are written, in a job's folder; all else is below `output`."""
        return self.images if isinstance(self.images, Path) else self.output

    @property
    def discounts(self) -> dict[str, float]:
        """The discount of batches at each provider or route that has a Batch API."""
        return {name: service.batch.discount for name, service in self.services.items() if service.batch is not None}

    @property
    def services(self) -> dict[str, Provider]:
        """Whatever a job may name: the providers, and each route as if it were one."""
        return {**self.providers, **{name: route.as_provider(self.providers) for name, route in self.routes.items()}}

    def members(self, name: str) -> list[Provider]:
        """Return the providers of a route, or the one of this name. Raises ConfigError, as `find_provider` does."""
        if name in self.routes:
            return [self.providers[member] for member in self.routes[name].members]
        return [self.find_provider(name)]

    def routes_with(self, name: str) -> list[Route]:
        """Return the routes that a provider is a member of."""
        return [route for route in self.routes.values() if name in route.members]

    def secrets(self, environment: Mapping[str, str]) -> list[str]:
        """Return every value that this config reads from the environment and that is set; any of them may be a key."""
        return [value for name in self.secret_variables() if (value := environment.get(name, "").strip())]

    def secret_variables(self) -> list[str]:
        """Return the names of the environment variables that this config reads."""
        named = [ADMIN_KEY, *(provider.api_key_env for provider in self.providers.values())]
        headers = [value for provider in self.providers.values() for value in provider.headers.values()]
        if self.notify is not None:
            headers += [*self.notify.headers.values(), *([self.notify.webhook] if self.notify.webhook else [])]
        named += [value.variable for value in headers if isinstance(value, EnvironmentVariable)]
        return [name for name in named if name]

    def find_provider(self, name: str) -> Provider:
        """Return the provider or the route called `name`. Raises ConfigError, which suggests the closest name."""
        if name in self.providers:
            return self.providers[name]
        if name in self.routes:
            return self.routes[name].as_provider(self.providers)
        raise ConfigError([Problem("", self.unknown_provider(name))])

    def unknown_provider(self, name: str) -> str:
        """Return the message for an unknown provider, with the closest name."""
        hint = _hint(name, [*self.providers, *self.routes])
        return f"{self.file or 'the built-in config'} has no provider `{name}`; {hint}"


def load(
    path: Path | str | None = None, *, output: Path | str | None = None, environment: Mapping[str, str] = os.environ
) -> Config:
    """Read the config: `path`, else `$PIPELINE_CONFIG`, else what `find_default` finds, else the built-in defaults.

    `output` overrides the one in the file. Raises ConfigError.
    """
    named = path if path is not None else environment.get(FILE_VARIABLE) or None
    chosen = find_default() if named is None else Path(named)
    folder = None if output is None else Path(output)
    if chosen is None:
        providers = {"sandbox": _SANDBOX, "openai": _OPENAI}
        return Config(None, (folder or Path("outputs")).absolute(), None, providers)
    return _read_config(yaml_document.read(chosen, ConfigError), chosen, folder)


def budget_in_force(option: float | None, job: float | None, default: float | None) -> float | None:
    """Return the budget of a job: that of the command's option, else the job's own, else the config's; None if none."""
    return next((usd for usd in (option, job, default) if usd is not None), None)


def find_default() -> Path | None:
    """Return the config.yaml of the current folder, else of the nearest folder above it; None if there is none.

    The search ends at the user's home folder, or at the root of the file system. Raises ConfigError if the current
    folder was removed.
    """
    if os.path.lexists(DEFAULT_FILE):
        return Path(DEFAULT_FILE)
    try:
        folder, last = Path.cwd(), _home()
    except FileNotFoundError:
        raise ConfigError("the current folder was removed: change to one that is there") from None
    while folder not in {last, folder.parent}:
        folder = folder.parent
        with contextlib.suppress(OSError):  # a folder that may not be searched
            if os.path.lexists(folder / DEFAULT_FILE):
                return folder / DEFAULT_FILE
    return None


def _home() -> Path | None:
    try:
        return Path.home().resolve()
    except (RuntimeError, OSError):  # a user without a home folder
        return None


_SANDBOX = Provider("sandbox", None, sandbox={}, batch=SANDBOX_BATCH_RULES)
_OPENAI = Provider("openai", "https://api.openai.com/v1", api_key_env="OPENAI_API_KEY", batch=BatchRules())


_KEYS = (
    *("output", "provider", "providers", "routes", "budget_usd", "retry", "download", "models", "notify", "shared"),
    *("images", "images_url", "images_options", "spool_bytes", "workers"),
)


def _read_config(doc: Document, path: Path, output: Path | None) -> Config:
    if isinstance(doc.value, dict) and "requests" in doc.value:
        raise ConfigError([Problem(str(path), "is a job, not a config: write `pipeline run` and its name")])
    top = Section(doc, (), list(doc.problems))
    top.reject_unknown_keys(*_KEYS)
    folder = output or path.parent / top.text("output", "outputs")
    entries = top.section("providers")
    providers = {name: read_provider(entries.section(name), name) for name in entries.value}
    providers = providers or {"sandbox": _SANDBOX, "openai": _OPENAI}
    config = Config(
        file=path,
        output=folder.absolute(),
        provider=top.text("provider", None),
        providers=providers,
        routes=read_routes(top.section("routes"), providers),
        budget_usd=top.number("budget_usd", None, least=0),
        retry=_read_retry(top.section("retry")),
        download=_read_download(top.section("download")),
        models=top.mapping("models"),
        notify=read_notifications(top.section("notify")),
        shared=top.flag("shared"),
        workers=read_workers(top),
        **read_image_places(top, path.parent),
    )
    if config.provider is not None and config.provider not in {**providers, **top.mapping("routes")}:
        known = [*config.providers, *config.routes]
        top.add_problem("provider", f"there is no provider `{config.provider}`; {_hint(config.provider, known)}")
    if top.problems:
        raise ConfigError(top.problems)
    return config


def _read_retry(section: Section) -> RetryRules:
    section.reject_unknown_keys("attempts", "unknown", "max_wait_seconds", "outage_hours", "start_minutes")
    return RetryRules(
        attempts=section.integer("attempts", 10, least=1),
        unknown=section.integer("unknown", 2, least=0),
        max_wait_seconds=section.number("max_wait_seconds", 120.0, least=0),
        outage_hours=section.number("outage_hours", 12.0, least=0),
        start_minutes=section.number("start_minutes", 10.0, least=0),
    )


def _read_download(section: Section) -> DownloadRules:
    section.reject_unknown_keys("attempts", "max_bytes", "max_pixels", "allow_hosts")
    return DownloadRules(
        attempts=section.integer("attempts", 6, least=1),
        max_bytes=section.integer("max_bytes", 100 * 1024 * 1024, least=1),
        max_pixels=section.integer("max_pixels", 89_478_485, least=1),
        allow_hosts=frozenset(host.lower() for host in section.texts("allow_hosts")),
    )


def _hint(name: str, known: Collection[str]) -> str:
    close = yaml_document.nearest(name, known)
    return f"did you mean `{close}`?" if close else f"known are {', '.join(sorted(known))}"

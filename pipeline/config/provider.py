"""Read one entry of `providers:`: a server's URL, key, limits and dialect."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.config import dialect
from pipeline.config.batch_rules import BatchRules, read_batch_rules
from pipeline.config.dialect import Dialect, read_dialect
from pipeline.config.environment import VARIABLE_NAME, EnvironmentVariable, read_headers, read_key, resolve_headers
from pipeline.config.hosts import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.opening_hours import OpeningHours
    from pipeline.config.validation import Section

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")
"""The form of the name of a job, a provider or a request, which becomes the name of a folder or file."""

_OPERATION = re.compile(r"/(?:images/(?:generations|edits|variations)|chat/completions)/*\Z")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `images` images' worth of calls in any `per_seconds` seconds; `margin` is a factor on the window."""

    images: int = 50
    per_seconds: float = 60.0
    margin: float = 1.005

    @property
    def window(self) -> float:
        """Length in seconds of the window in which the client sends at most `images`."""
        return self.per_seconds * self.margin

    @property
    def per_minute(self) -> float:
        """Images per minute, without the margin."""
        return self.images * 60 / self.per_seconds


@dataclass(frozen=True, slots=True)
class Provider:
    """A server that speaks the Images API. `base_url` is None for a sandbox, whose URL is known once it has started."""

    name: str
    base_url: str | None
    api_key_env: str | None = None
    rate_limit: RateLimit | None = field(default_factory=RateLimit)
    concurrency: int = 1024
    images_per_call: int = 10
    timeout_seconds: float = 600.0
    url_ttl_seconds: float = 3600.0
    headers: Mapping[str, str | EnvironmentVariable] = field(default_factory=dict)
    sandbox: Mapping[str, Any] | None = None
    insecure: bool = False  # the key may be sent without encryption
    dialect: Dialect = field(default_factory=Dialect)
    batch: BatchRules | None = None  # of its Batch API, if it has one
    models: frozenset[str] | None = None  # that it serves; None: all
    operations: frozenset[str] | None = None  # the same
    project: str | None = None  # of its key, as the organization's admin API calls it
    own_models: Mapping[str, Any] = field(default_factory=dict)  # entries of `models:` that hold here only
    window: OpeningHours | None = None  # in which calls may start; None: always
    shared_limit: RateLimit | None = None  # of which `rate_limit` is this program's share; None: it is all ours

    @property
    def share(self) -> float:
        """The part of the limit that is for this program."""
        if self.rate_limit is None or self.shared_limit is None:
            return 1.0
        return self.rate_limit.images / self.shared_limit.images

    def throttled(self, images: int | None) -> Provider:
        """Return it with a lower limit of images in its time; itself if that is not lower, or if it has no limit."""
        limit = self.rate_limit
        if limit is None or images is None or images >= limit.images:
            return self
        return replace(self, rate_limit=replace(limit, images=images))

    def serves(self, model: object, operation: str) -> bool:
        """Return whether requests for a model and an operation, by the endpoint that is called, may go here."""
        has_model = self.models is None or model in self.models
        return has_model and (self.operations is None or operation in self.operations)

    def takes_reference(self, kind: str) -> bool:
        """Return whether an edit may name its images by `image_url`, or by the `file_id` of a file at the service."""
        if self.sandbox is not None or self.batch is not None:
            return True
        uploads = self.dialect.uploads
        return kind == "image_url" and uploads.encoding == "json" and uploads.reference not in {"data_url", "base64"}

    def key(self, environment: Mapping[str, str]) -> str | None:
        """Return the provider's key, or None if it takes none. Raises UnusableVariable if it is unset or no key."""
        if self.api_key_env is None:
            return None if self.sandbox is None else "sandbox"
        purpose = f"provider `{self.name}` takes its key from"
        return read_key(environment, self.api_key_env, purpose, self.dialect.auth_header, self.dialect.auth_scheme)

    @property
    def host(self) -> str:
        """The host of its `base_url` in lower case; empty for a sandbox."""
        return urlsplit(self.base_url or "").hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.base_url is None or place_of(urlsplit(self.base_url).hostname or "") == "loopback"

    @property
    def exposed_host(self) -> str | None:
        """The host to which a secret is sent without encryption, over a network; None if there is none."""
        is_secret = any(isinstance(value, EnvironmentVariable) for value in self.headers.values())
        if self.base_url is None or self.insecure or not (self.api_key_env or is_secret):
            return None
        url = urlsplit(self.base_url)
        host = url.hostname or ""
        return None if url.scheme == "https" or place_of(host) == "loopback" else host

    def header_values(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the extra headers. Raises UnusableVariable if a variable is unset or cannot be sent."""
        return resolve_headers(self.headers, environment, f"provider `{self.name}`")


_KEYS = (
    "sandbox",
    "base_url",
    "insecure",
    "api_key_env",
    "rate_limit",
    "concurrency",
    "images_per_call",
    "timeout_seconds",
    "url_ttl_seconds",
    "headers",
    "batch",
    "models",
    "operations",
    "project",
    "window",
    "share",
    *dialect.KEYS,
)


def read_provider(section: Section, name: str) -> Provider:
    """Read one entry of `providers`; problems are recorded in the section."""
    section.reject_unknown_keys(*_KEYS)
    if not NAME.fullmatch(name):
        section.add_problem(
            None, f"`{name}` is not a valid name: letters, digits, '.', '_', '-', at most 100, not beginning with a dot"
        )
    sandbox = section.value.get("sandbox")
    is_sandbox = sandbox is True or isinstance(sandbox, dict)
    if sandbox is not None and not isinstance(sandbox, bool | dict):
        section.add_problem("sandbox", "must be true or a mapping of the sandbox's settings")
    base_url = section.text("base_url", None)
    if is_sandbox and base_url is not None:
        section.add_problem("base_url", "a sandbox has its own URL; leave out `base_url` or `sandbox`")
    if not is_sandbox and not _is_base_url(section, base_url):
        base_url = None
    limit = _read_rate_limit(section)
    rate_limit = _read_share(section, limit)
    provider = Provider(
        name=name,
        base_url=None if is_sandbox or base_url is None else base_url.rstrip("/"),
        api_key_env=_read_key_name(section),
        rate_limit=rate_limit,
        concurrency=section.integer("concurrency", 32 if rate_limit is None else 1024, least=1),
        images_per_call=section.integer("images_per_call", 10, least=1),
        timeout_seconds=section.number("timeout_seconds", 600.0, least=0.001),
        url_ttl_seconds=section.number("url_ttl_seconds", 3600.0, least=0),
        headers=read_headers(section.section("headers")),
        sandbox=(sandbox if isinstance(sandbox, dict) else {}) if is_sandbox else None,
        insecure=section.flag("insecure"),
        dialect=read_dialect(section),
        batch=read_batch_rules(section, base_url, is_sandbox=is_sandbox),
        models=_read_models(section),
        operations=_read_operations(section),
        project=section.text("project", None),
        own_models=_read_own_models(section),
        window=_read_window(section),
        shared_limit=None if section.value.get("share") is None else limit,
    )
    if provider.exposed_host and place_of(provider.exposed_host) == "open":
        what = f"would send the key to {provider.exposed_host:.80} without encryption"
        section.add_problem("base_url", f"{what}; write https://, or `insecure: true` beside it if that is meant")
    return provider


def _read_window(section: Section) -> OpeningHours | None:
    if section.value.get("window") is None:
        return None
    from pipeline.config.opening_hours import read_opening_hours

    return read_opening_hours(section)


def _read_models(section: Section) -> frozenset[str] | None:
    """Return the names of the models that a provider serves, from a list or from the keys of a mapping."""
    if section.value.get("models") is None:
        return None
    names = section.mapping("models") if isinstance(section.value["models"], dict) else section.texts("models")
    if not names:
        section.add_problem("models", "must be a list of names, or a mapping of names to their entries")
    return frozenset(names)


def _read_own_models(section: Section) -> dict[str, Any]:
    if not isinstance(section.value.get("models"), dict):
        return {}
    return {name: entry for name, entry in section.mapping("models").items() if entry is not None}


def _read_operations(section: Section) -> frozenset[str] | None:
    if section.value.get("operations") is None:
        return None
    names = section.texts("operations")
    if not names:
        section.add_problem("operations", f"must be a list of {', '.join(dialect.OPERATIONS)}")
    for name in names:
        section.check_choice("operations", name, dialect.OPERATIONS)
    return frozenset(names)


def _read_key_name(section: Section) -> str | None:
    name = section.value.get("api_key_env")
    if name is None or (isinstance(name, str) and VARIABLE_NAME.fullmatch(name)):
        return name
    # If a key was pasted here, the message must not repeat it.
    section.add_problem(
        "api_key_env",
        "must be the name of an environment variable, like OPENAI_API_KEY; keys are never written in files",
    )
    return None


def _is_base_url(section: Section, base_url: str | None) -> bool:
    """Return whether this is a base URL; record a problem if it is not."""
    if base_url is None:
        section.add_problem(None, "needs `base_url: https://…/v1`, or `sandbox: true`")
        return False
    try:
        url = urlsplit(base_url)
        is_valid = url.scheme in {"http", "https"} and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid or not base_url.isprintable() or " " in base_url:
        section.add_problem("base_url", f"`{base_url:.80}` is not a URL; write it like https://api.openai.com/v1")
    elif "@" in url.netloc:
        section.add_problem("base_url", "a key does not belong in a URL; name its variable in `api_key_env`")
    elif match := _OPERATION.search(url.path):
        section.add_problem("base_url", f"`{base_url}` is the address of one operation: write it without `{match[0]}`")
    elif url.query or url.fragment:
        section.add_problem("base_url", f"`{base_url}` must end with its path; write the query under `query:`")
    else:
        return True
    return False


def _read_rate_limit(section: Section) -> RateLimit | None:
    if "rate_limit" in section.value and section.value["rate_limit"] is None:
        return None
    if not isinstance(section.value.get("rate_limit", {}), dict):
        example = "rate_limit: {images: 50, per_seconds: 60}"
        section.add_problem("rate_limit", f"must be a mapping of keys to values: write `{example}`")
        return RateLimit()
    limit = section.section("rate_limit")
    limit.reject_unknown_keys("images", "per_seconds", "margin")
    return RateLimit(
        images=limit.integer("images", 50, least=1),
        per_seconds=limit.number("per_seconds", 60.0, least=0.001),
        margin=limit.number("margin", 1.005, least=1),
    )


def _read_share(section: Section, limit: RateLimit | None) -> RateLimit | None:
    """Return the part of a limit that `share:` leaves to this program, at least one image."""
    share = section.number("share", None, least=0)
    if share is None:
        return limit
    if not 0 < share <= 1:
        section.add_problem("share", f"must be a part of the limit, above 0 and up to 1, not {share:g}")
    elif limit is None:
        section.add_problem("share", "is a part of a limit, and there is none: write `rate_limit`, or leave it out")
    else:
        return replace(limit, images=max(1, math.floor(limit.images * share + 1e-9)))
    return limit

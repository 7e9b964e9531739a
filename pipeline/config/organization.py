"""Read what the admin API of an organization is asked with: the admin key and the project, from the environment.

The admin key is sent to the provider's own host, and only if that is OpenAI's, this machine, or one whose entry names a
`project:`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.config.environment import ADMIN_KEY, read_key
from pipeline.config.hosts import place_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.provider import Provider

PROJECT = "OPENAI_PROJECT_ID"
"""The environment variable that names the project of every provider whose entry has no `project:`."""

_SANDBOX_KEY = "sk-admin-sandbox"  # a sandbox gets no secret of the environment
_SANDBOX_PROJECT = "proj_sandbox"


def read_admin_key(provider: Provider, environment: Mapping[str, str]) -> str | None:
    """Return the key for the admin API of a provider; None if it is not set, or may not be sent to this provider.

    Raises ConfigError if it is no key.
    """
    if provider.sandbox is not None:
        return str(_sandbox_settings(provider).get("admin_key") or _SANDBOX_KEY)
    if not environment.get(ADMIN_KEY, "").strip() or not has_admin_api(provider):
        return None
    return read_key(environment, ADMIN_KEY, "the admin API takes its key from", "Authorization", "Bearer")


def read_project(provider: Provider, environment: Mapping[str, str]) -> str | None:
    """Return the project of a provider's key: that of its entry, else that of the environment; None if neither is."""
    if provider.sandbox is not None:
        return str(provider.project or _sandbox_settings(provider).get("project") or _SANDBOX_PROJECT)
    return provider.project or environment.get(PROJECT, "").strip() or None


def has_admin_api(provider: Provider) -> bool:
    """Return whether the admin key may be sent to a provider: never without encryption over a network."""
    if provider.base_url is None:
        return True
    if place_of(provider.host) == "loopback":
        return True
    is_known = is_openai(provider) or provider.project is not None
    return is_known and (urlsplit(provider.base_url).scheme == "https" or provider.insecure)


def is_openai(provider: Provider) -> bool:
    """Return whether a provider is OpenAI itself, by its host."""
    return f".{provider.host}".endswith(".openai.com")


def _sandbox_settings(provider: Provider) -> Mapping[str, object]:
    found = (provider.sandbox or {}).get("organization")
    return found if isinstance(found, dict) else {}

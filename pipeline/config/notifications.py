"""`notify:` of config.yaml → a `Notify`: who is told when a run ends, stops, or pauses for long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pipeline.config.provider import EnvironmentName, environment_name, read_headers, values_of, variable_of
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.validation import Section

TEMPLATES: Final = ("json", "ntfy", "slack", "discord")
MOMENTS: Final = ("end", "stop", "pause")


@dataclass(frozen=True, slots=True)
class Notify:
    """A webhook, a command, or both, and the moments at which they are told."""

    webhook: str | EnvironmentName | None = None
    template: str = "json"
    headers: Mapping[str, str | EnvironmentName] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    on: frozenset[str] = frozenset(MOMENTS)
    pause_minutes: float = 15.0

    def address(self, environment: Mapping[str, str]) -> str | None:
        """Give the webhook's URL. Raises ConfigError, without repeating it, where its variable holds none."""
        if not isinstance(self.webhook, EnvironmentName):
            return self.webhook
        url = variable_of(environment, self.webhook.variable, "`notify` takes its webhook from")
        if not _is_address(url, self.template):
            raise ConfigError(f"`notify` takes its webhook from ${self.webhook.variable}, which holds no address")
        return url

    def header_values(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Read the values of the webhook's headers. Raises ConfigError where a named variable is unset or empty."""
        return values_of(self.headers, environment, "`notify`")


def read_notify(section: Section) -> Notify | None:
    """Read `notify`; None where there is none. Its mistakes are noted in the section."""
    if not section.value:
        return None
    section.only("webhook", "template", "headers", "command", "on", "pause_minutes")
    template = section.choice("template", "json", TEMPLATES)
    webhook, command = _read_webhook(section, template), _read_command(section)
    if section.value.get("webhook") is None and section.value.get("command") is None:
        section.wrong(None, "tells nobody: give it a `webhook` or a `command`")
    return Notify(
        webhook=webhook,
        template=template,
        headers=read_headers(section.section("headers")),
        command=command,
        on=frozenset(_read_moments(section)),
        pause_minutes=section.number("pause_minutes", 15.0, least=0),
    )


def _read_webhook(section: Section, template: str) -> str | EnvironmentName | None:
    value: Any = section.value.get("webhook")
    named = environment_name(value)
    if value is None or named is not None:
        return named
    if isinstance(value, str) and _is_address(value, template):
        return value
    # An address like this is a secret, and is not repeated.
    what = "https://ntfy.sh/TOPIC" if template == "ntfy" else "https://…"
    section.wrong("webhook", f"must be an address like {what}, or {{env: NAME}} for one from the environment")
    return None


def _is_address(url: str, template: str) -> bool:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return bool(good and url.isprintable() and " " not in url and (template != "ntfy" or parts.path.strip("/")))


def _read_command(section: Section) -> tuple[str, ...]:
    words = section.value.get("command")
    if words is None:
        return ()
    if isinstance(words, list) and words and all(isinstance(w, str) and w and "\0" not in w for w in words):
        return tuple(words)
    section.wrong("command", "must be a list of words, like [notify-send, pictures]; no shell reads it")
    return ()


def _read_moments(section: Section) -> list[str]:
    stated = section.value.get("on")
    if stated is None:
        return list(MOMENTS)
    if not isinstance(stated, list):
        section.wrong("on", f"must be a list of {', '.join(MOMENTS)}")
        return []
    return [moment for moment in stated if section.known("on", moment, MOMENTS)]

"""Read `notify:` of config.yaml: which webhook or command is notified when a run ends, stops, or pauses for long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from pipeline.config.environment import (
    EnvironmentVariable,
    UnusableVariable,
    parse_variable_reference,
    read_headers,
    read_variable,
    resolve_headers,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.config.validation import Section

TEMPLATES: Final = ("json", "ntfy", "slack", "discord")
EVENTS: Final = ("end", "stop", "pause")


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """A webhook, a command, or both, and the events that they are notified of."""

    webhook: str | EnvironmentVariable | None = None
    template: str = "json"
    headers: Mapping[str, str | EnvironmentVariable] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    on: frozenset[str] = frozenset(EVENTS)
    pause_minutes: float = 15.0

    def webhook_url(self, environment: Mapping[str, str]) -> str | None:
        """Return the webhook's URL. Raises UnusableVariable, without the value, if its variable does not hold a URL."""
        if not isinstance(self.webhook, EnvironmentVariable):
            return self.webhook
        url = read_variable(environment, self.webhook.variable, "`notify` takes its webhook from")
        if not _is_url(url, self.template):
            name = self.webhook.variable
            raise UnusableVariable(name, f"`notify` takes its webhook from ${name}, which does not hold a URL")
        return url

    def header_values(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return the webhook's headers. Raises UnusableVariable if a variable is unset or cannot be sent."""
        return resolve_headers(self.headers, environment, "`notify`")


def read_notifications(section: Section) -> NotificationSettings | None:
    """Read `notify`, or return None if it is missing; problems are recorded in the section."""
    if not section.value:
        return None
    section.reject_unknown_keys("webhook", "template", "headers", "command", "on", "pause_minutes")
    template = section.choice("template", "json", TEMPLATES)
    webhook, command = _read_webhook(section, template), _read_command(section)
    if section.value.get("webhook") is None and section.value.get("command") is None:
        section.add_problem(None, "has no recipient: add a `webhook` or a `command`")
    return NotificationSettings(
        webhook=webhook,
        template=template,
        headers=read_headers(section.section("headers")),
        command=command,
        on=frozenset(_read_events(section)),
        pause_minutes=section.number("pause_minutes", 15.0, least=0),
    )


def _read_webhook(section: Section, template: str) -> str | EnvironmentVariable | None:
    value: Any = section.value.get("webhook")
    named = parse_variable_reference(value)
    if value is None or named is not None:
        return named
    if isinstance(value, str) and _is_url(value, template):
        return value
    # A webhook's URL is a secret, so the message does not repeat it.
    example = "https://ntfy.sh/TOPIC" if template == "ntfy" else "https://…"
    section.add_problem("webhook", f"must be a URL like {example}, or {{env: NAME}} for one from the environment")
    return None


def _is_url(url: str, template: str) -> bool:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return bool(is_valid and url.isprintable() and " " not in url and (template != "ntfy" or parts.path.strip("/")))


def _read_command(section: Section) -> tuple[str, ...]:
    words = section.value.get("command")
    if words is None:
        return ()
    if isinstance(words, list) and words and all(isinstance(w, str) and w and "\0" not in w for w in words):
        return tuple(words)
    section.add_problem("command", "must be a list of words, like [notify-send, images]; it runs without a shell")
    return ()


def _read_events(section: Section) -> list[str]:
    names = section.value.get("on")
    if names is None:
        return list(EVENTS)
    if not isinstance(names, list):
        section.add_problem("on", f"must be a list of {', '.join(EVENTS)}")
        return []
    return [name for name in names if section.check_choice("on", name, EVENTS)]

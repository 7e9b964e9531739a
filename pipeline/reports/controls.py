"""Writes what people have set for providers and jobs, as far as it is in force: for people and as JSON."""

from __future__ import annotations

import math
import textwrap
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.config.routes import sum_of_limits
from pipeline.ledger.controls import read_controls
from pipeline.ledger.outages import read_outages
from pipeline.planning.mode import local_time
from pipeline.reports.facts import clock, counted, utc_time

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pipeline.config.opening_hours import OpeningHours
    from pipeline.config.provider import Provider
    from pipeline.ledger.controls import ControlFacts
    from pipeline.ledger.lock import LockOwner
    from pipeline.ledger.outages import Outage
    from pipeline.reports.forms import ControlForm
    from pipeline.reports.next_command import NextCommand

_LONGEST_WALK = 60 * 86400.0  # seconds of windows that are walked through; a longer time is estimated from them

_LONGEST_REASON = 200  # characters of why a provider is down


@dataclass(frozen=True, slots=True)
class ControlsInForce:
    """The controls of a ledger beside the providers of the config, in its order."""

    providers: Mapping[str, Provider]
    facts: ControlFacts
    outages: Mapping[str, Outage] = field(default_factory=dict)  # that the run at work has met

    @classmethod
    def read(
        cls, connection: sqlite3.Connection, providers: Mapping[str, Provider], owner: LockOwner | None = None
    ) -> ControlsInForce:
        """Read the controls from the ledger, and the outages if a run is at work."""
        return cls(providers, read_controls(connection), {} if owner is None else read_outages(connection))

    def at_work(self, provider: Provider) -> Provider:
        """Return a provider with the limit that is in force."""
        return provider.throttled(self.facts.of(provider.name).throttle)

    def members_at_work(self, members: Sequence[Provider]) -> tuple[Provider, ...]:
        """Return providers with the limits that are in force."""
        return tuple(map(self.at_work, members))

    def service_at_work(self, service: Provider, members: Sequence[Provider]) -> Provider:
        """Return a provider, or a route of these members, with the limit that is in force."""
        if [member.name for member in members] == [service.name]:
            return self.at_work(service)
        return replace(service, rate_limit=sum_of_limits([self.at_work(member) for member in members]))

    def lines(self, command: NextCommand, only: Collection[str] | None = None) -> Iterator[str]:
        """Yield what is in force at these providers, or at all, each with what takes it back; then priorities."""
        for name, provider in self.providers.items():
            if only is None or name in only:
                yield from self._provider_lines(provider, command)
        for job_priority in self.facts.priorities:
            if job_priority.is_waiting:
                yield f"job `{job_priority.job}` has priority {job_priority.priority}"

    def _provider_lines(self, provider: Provider, command: NextCommand) -> Iterator[str]:
        name, control = provider.name, self.facts.of(provider.name)
        if (outage := self.outages.get(name)) is not None:
            reason = textwrap.shorten(outage.reason, _LONGEST_REASON, placeholder=" …")
            since, end = moment_words(outage.since), clock(outage.until, time.time())
            yield f"provider `{name}` is down since {since} ({reason}); it is tried again until {end}"
        if control.held_since is not None:
            since = moment_words(control.held_since)
            yield f"provider `{name}` is paused since {since}; to end that: {command.line('unpause', name)}"
        if provider.window is not None:
            yield f"provider `{name}` {window_words(provider.window, time.time())}"
        if control.throttle is not None and provider.rate_limit is not None:
            lift = command.line("throttle", name, "--reset")
            yield f"provider `{name}` is throttled to {limit_words(provider, control.throttle)}; to end that: {lift}"
        elif provider.shared_limit is not None and provider.rate_limit is not None:
            yield f"provider `{name}` takes its share of the limit, {limit_words(provider, provider.rate_limit.images)}"

    def json(self) -> list[ControlForm]:
        """Return what is set for each provider of the config."""
        return [self._provider_json(provider) for provider in self.providers.values()]

    def _provider_json(self, provider: Provider) -> ControlForm:
        control, limit, now = self.facts.of(provider.name), self.at_work(provider).rate_limit, time.time()
        window, outage = provider.window, self.outages.get(provider.name)
        return {
            "name": provider.name,
            "paused": control.held_since is not None,
            "paused_since": utc_time(control.held_since),
            "throttle": control.throttle,
            "limit": None if limit is None else {"images": limit.images, "per_seconds": limit.per_seconds},
            "window": None if window is None else [span.describe(now) for span in window.spans],
            "open": window is None or window.is_open(now),
            "changes_at": None if window is None else _change(window, now),
            "down_since": None if outage is None else utc_time(outage.since),
            "down_until": None if outage is None else utc_time(outage.until),
            "down_reason": None if outage is None else outage.reason,
        }


def window_words(window: OpeningHours, now: float) -> str:
    """Return whether a window is open and when that changes, in words."""
    change = window.next_change(now)
    until = "" if change == math.inf else f" until {local_time(change)}"
    return f"is {'inside' if window.is_open(now) else 'outside'} its window, {window.describe(now)}{until}"


def _change(window: OpeningHours, now: float) -> str | None:
    change = window.next_change(now)
    return None if change == math.inf else utc_time(change)


def work_seconds(provider: Provider, seconds: float, now: float) -> float:
    """Return how long it takes from now on to work for so many seconds, if that is possible in the window only."""
    return seconds if provider.window is None else provider.window.after(now, seconds) - now


def images_seconds(members: Sequence[Provider], images: int, now: float) -> float | None:
    """Return how long it takes from now on until providers have made images at their limits, each in its window.

    None if one of them has no limit; infinity if no window ever opens.
    """
    rates = [0.0 if member.rate_limit is None else member.rate_limit.per_minute / 60 for member in members]
    if not all(rates):
        return None
    windows = [member.window for member in members]
    moment, left = now, float(images)
    while left > 0:
        change = min((window.next_change(moment) for window in windows if window is not None), default=math.inf)
        rate = sum(
            rate for rate, window in zip(rates, windows, strict=True) if window is None or window.is_open(moment)
        )
        if rate * (change - moment) >= left if rate else change == math.inf:
            return moment + left / rate - now if rate else math.inf
        left -= rate * (change - moment) if rate else 0.0
        moment = change
        if moment - now > _LONGEST_WALK and left < images:
            return (moment - now) * images / (images - left)
    return 0.0


def limit_words(provider: Provider, images: int) -> str:
    """Return a lower limit in words, beside the configured one."""
    limit = provider.shared_limit or provider.rate_limit
    assert limit is not None
    return f"{counted(images, 'image')} per {limit.per_seconds:g} s (configured: {limit.images:,})"


def moment_words(moment: float) -> str:
    """Return a moment of the past as the local clock shows it, with its date if it is not of today."""
    form = "%H:%M" if time.time() - moment < 12 * 3600 else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(moment))

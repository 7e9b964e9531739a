"""Events of what people have set while a run is at work, and of what the run does because of others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """No call is sent to a provider from now on, until `until` (seconds since 1970) if that is known; with `held`
    false, calls are sent again.
    """

    provider: str
    held: bool
    reason: str
    until: float | None


@dataclass(frozen=True, slots=True)
class Throttled:
    """Another limit is in force for a provider from now on, because of what people did here or at the provider."""

    provider: str
    images: int
    per_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Reprioritised:
    """A job has another priority from now on: jobs with a higher one go first."""

    job: str
    priority: int

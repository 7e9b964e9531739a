"""Sets what a run at work follows within two seconds: pauses and lower limits of providers, priorities of jobs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline import ledger
from pipeline.config.validation import find_number_fault
from pipeline.errors import BadInput
from pipeline.ledger import controls
from pipeline.ledger.submit import known_names
from pipeline.reports.controls import ControlsInForce
from pipeline.reports.status import read_owner

if TYPE_CHECKING:
    from pipeline.config.load import Config
    from pipeline.config.provider import Provider, RateLimit

MAX_PRIORITY = 1_000_000
"""Maximum of a priority, and with a minus the minimum."""


@dataclass(frozen=True, slots=True)
class FolderControls:
    """The controls of an output folder. They are facts in its ledger, and hold over all runs until they are ended."""

    config: Config

    def read(self) -> ControlsInForce:
        """Return what is set now."""
        with ledger.reading(self.config.output) as connection:
            owner = read_owner(self.config.output, connection)
            return ControlsInForce.read(connection, self.config.providers, owner)

    def pause(self, provider: str | None = None) -> list[str]:
        """Have no call sent to a provider, or to any; return the names of those that were not paused already.

        Downloads and calls in flight go on. Raises BadInput for a route and for an unknown provider.
        """
        names = list(self.config.providers) if provider is None else [self.provider(provider, "pause").name]
        with ledger.writing(self.config.output, shared=self.config.shared) as connection:
            return controls.hold(connection, names, time.time())

    def unpause(self, provider: str | None = None) -> list[str]:
        """End the pause of a provider, or all pauses; return the names of those that were paused. Raises BadInput."""
        if provider is not None and self.read().facts.of(provider).held_since is None:
            provider = self.provider(provider, "unpause").name
        with ledger.writing(self.config.output, shared=self.config.shared) as connection:
            return controls.release(connection, provider)

    def throttle(self, provider: str, images: int | None) -> None:
        """Lower the limit of a provider to so many images per window of the configured one; None ends that.

        Raises BadInput for a number that is not from 1 to the configured one, and without a configured limit.
        """
        found = self.provider(provider, "throttle")
        if images is not None:
            _check_images(found, images)
        with ledger.writing(self.config.output, shared=self.config.shared) as connection:
            controls.throttle(connection, found.name, images)

    def prioritise(self, job: str, priority: int) -> None:
        """Have the requests of a job go before those of a lower priority; 0 is the default. Raises BadInput."""
        if find_number_fault(priority, -MAX_PRIORITY, whole=True) or priority > MAX_PRIORITY:
            raise BadInput(f"a priority is a whole number from -{MAX_PRIORITY:,} to {MAX_PRIORITY:,}, not {priority}")
        with ledger.writing(self.config.output, job, shared=self.config.shared) as connection:
            (name,) = known_names(connection, [job])
            controls.prioritise(connection, name, priority)

    def provider(self, name: str, verb: str) -> Provider:
        """Return the provider of this name. Raises BadInput for a route, which is no provider, and ConfigError."""
        if name in self.config.routes:
            members = ", ".join(f"`{member.name}`" for member in self.config.members(name))
            raise BadInput(f"`{name}` is a route; {verb} its members one by one: {members}")
        return self.config.find_provider(name)


def limit_of(provider: Provider) -> RateLimit:
    """Return the configured limit of a provider, before its share is taken. Raises BadInput if it has none."""
    limit = provider.shared_limit or provider.rate_limit
    if limit is None:
        what = f"provider `{provider.name}` has no limit that could be lowered: its `rate_limit` is null"
        raise BadInput(f"{what}; write one in the config, or lower its `concurrency` there")
    return limit


def _check_images(provider: Provider, images: int) -> None:
    limit = limit_of(provider)
    if fault := find_number_fault(images, 1, whole=True):
        raise BadInput(f"the number of images per {limit.per_seconds:g} s {fault}")
    if images > limit.images:
        what = f"provider `{provider.name}` is configured to {limit.images:,} images per {limit.per_seconds:g} s"
        raise BadInput(f"{what}, and {images:,} is more: a throttle only lowers a limit; raise it in the config")

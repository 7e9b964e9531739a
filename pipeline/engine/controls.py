"""Controls of a run at work: pauses, lower limits and priorities, as the ledger has them now."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.engine.hold import Hold
from pipeline.errors import ProviderHeld, Stop
from pipeline.ledger.controls import ControlFacts, ProviderControl, read_controls
from pipeline.planning.mode import local_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pipeline.config.load import Config
    from pipeline.engine.admission import Admission
    from pipeline.engine.dispatcher import Dispatcher
    from pipeline.engine.events import Listener
    from pipeline.engine.hold import HoldReason
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.ledger.writer import Writer


FOLLOW_SECONDS = 0.3
"""How often the ledger is asked for what people have set: two queries of a few rows, and they are to hold at once."""


class Controls:
    """Passes the controls on to the admission of each provider, and emits what has changed.

    `record` is called with a provider and the number of calls in flight that was measured to be right for it.
    """

    def __init__(self, config: Config, admissions: Mapping[str, Admission], stops: StopPolicy, emit: Listener) -> None:
        self.record: Callable[[str, int], object] = lambda _provider, _number: None
        self._config = config
        self._admissions = admissions
        self._stops = stops
        self._emit = emit
        self._facts: ControlFacts | None = None  # before the first reading
        self._priorities: dict[int, int] = {}  # by primary key of the job
        self._held: dict[str, HoldReason | None] = {}  # by provider, as it was emitted last
        self._throttled: dict[str, int | None] = {}  # the same
        self._measured_levels: dict[str, int] = {}  # calls in flight, by provider, as they were recorded last

    async def keep_following(self, writer: Writer, dispatchers: Mapping[str, Dispatcher]) -> None:
        """Follow what people set until this is cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            await self.follow(writer, dispatchers)

    async def follow(self, writer: Writer, dispatchers: Mapping[str, Dispatcher]) -> None:
        """Read what people have set, and follow it."""
        with contextlib.suppress(Stop):  # no room even to read: who looks for work reports it
            self.apply(await writer.do(read_controls))
            for dispatcher in list(dispatchers.values()) if self._priorities else ():
                await dispatcher.give_way()

    def apply(self, facts: ControlFacts) -> None:
        """Follow the controls as they are now."""
        before, self._facts = self._facts, facts
        for name, admission in self._admissions.items():
            self._follow_hold(name, admission)
            self._follow_throttle(name, admission)
            self._follow_others(name, admission)
            self._remember(name, admission)
        self._follow_priorities(before)

    def apply_to(self, admission: Admission, name: str) -> None:
        """Apply the controls to the admission of a provider that is about to be called."""
        admission.priorities = self._priorities
        self._follow_hold(name, admission)
        self._follow_throttle(name, admission)

    def _of(self, name: str) -> ProviderControl:
        return (self._facts or ControlFacts()).of(name)

    def _follow_hold(self, name: str, admission: Admission) -> None:
        """Hold the calls of a provider, or end that; emit why."""
        admission.hold.set_paused(paused=self._of(name).held_since is not None)
        admission.follow_hold()
        reason = admission.hold.reason
        if reason == self._held.get(name):
            return
        self._held[name] = reason
        admission.give_back()
        admission.changed.set()
        self._emit(Held(name, False, "", None) if reason is None else Held(name, True, reason.text, reason.until))

    def _remember(self, name: str, admission: Admission) -> None:
        """Record how many calls a provider without a stated limit serves at once, if that has changed."""
        level = None if admission.room.adaptive is None else admission.room.adaptive.measured_level
        if level is not None and level != self._measured_levels.get(name):
            self._measured_levels[name] = level
            self.record(name, level)

    def _follow_others(self, name: str, admission: Admission) -> None:
        """Emit the limit that is in force since others use it, too, or leave more of it."""
        reason, limit = admission.others.step(), admission.throttle.limit
        if reason and limit is not None:
            self._emit(Throttled(name, limit.images, limit.per_seconds, reason))

    def _follow_throttle(self, name: str, admission: Admission) -> None:
        """Lower the limit of a provider, or end that; emit the limit that is in force then."""
        images = self._of(name).throttle
        if images == self._throttled.get(name):
            return
        self._throttled[name] = images
        admission.limits.set_images(images)
        if (limit := admission.throttle.limit) is not None:
            reason = "a person lifted the lower limit" if images is None else "a person lowered the limit"
            self._emit(Throttled(name, limit.images, limit.per_seconds, reason))

    def _follow_priorities(self, before: ControlFacts | None) -> None:
        """Emit the priorities that have changed, at first those of jobs that wait; the lines are formed anew."""
        assert self._facts is not None
        found = {job_priority.job_pk: job_priority for job_priority in self._facts.priorities}
        if before is None:
            changed = {pk: job_priority for pk, job_priority in found.items() if job_priority.is_waiting}
        else:
            known = {job_priority.job_pk: job_priority for job_priority in before.priorities}
            changed = {
                pk: job_priority
                for pk, job_priority in found.items()
                if self._priorities.get(pk) != job_priority.priority
            }
            for pk in known.keys() - found.keys():
                self._emit(Reprioritised(known[pk].job, 0))
            if not changed and known.keys() <= found.keys():
                return
        self._priorities.clear()
        self._priorities.update({pk: job_priority.priority for pk, job_priority in found.items()})
        for job_priority in changed.values():
            self._emit(Reprioritised(job_priority.job, job_priority.priority))
        for admission in self._admissions.values():
            admission.give_way()

    def stop_held(self, names: Iterable[str]) -> None:
        """Stop those of these providers whose calls are held now, for a run that is not to wait."""
        for name in names:
            reason = None if self._stops.is_stopped(name) else self._reason(name)
            if reason is not None:
                self._stops.stop_provider(name, ProviderHeld(reason))

    def _reason(self, name: str) -> str | None:
        """Return why a provider is held, with what ends that; None if it is not."""
        if self._of(name).held_since is not None:
            return f"provider `{name}` is paused; to have it called again, run: pipeline unpause {name}"
        provider = self._config.providers.get(name)
        reason = None if provider is None else Hold(provider.window).reason
        if reason is None or reason.until is None:
            return None
        return f"provider `{name}` is {reason.text}, until {local_time(reason.until)}; run again then"

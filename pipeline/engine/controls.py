"""Controls of a run at work: pauses, lower limits and priorities, as the ledger has them about once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.engine.control_events import Held, Reprioritised, Throttled
from pipeline.errors import ProviderHeld
from pipeline.ledger.controls import ControlFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.config.load import Config
    from pipeline.engine.admission import Admission
    from pipeline.engine.events import Listener
    from pipeline.engine.stop_policy import StopPolicy


class Controls:
    """Passes the controls on to the admission of each provider, and emits what has changed."""

    def __init__(self, config: Config, admissions: Mapping[str, Admission], stops: StopPolicy, emit: Listener) -> None:
        self._config = config
        self._admissions = admissions
        self._stops = stops
        self._emit = emit
        self._facts: ControlFacts | None = None  # before the first reading
        self._priorities: dict[int, int] = {}  # by primary key of the job

    @property
    def has_priorities(self) -> bool:
        """Whether some jobs go before others."""
        return bool(self._priorities)

    def apply(self, facts: ControlFacts) -> None:
        """Follow the controls as they are now."""
        before, self._facts = self._facts, facts
        for name, admission in self._admissions.items():
            self._follow(name, admission, ControlFacts() if before is None else before)
        self._follow_priorities(before)

    def equip(self, admission: Admission, name: str) -> None:
        """Apply the controls to the admission of a provider that is about to be called."""
        admission.priorities = self._priorities
        self._follow(name, admission, ControlFacts())

    def _follow(self, name: str, admission: Admission, before: ControlFacts) -> None:
        old, new = before.of(name), (self._facts or ControlFacts()).of(name)
        if old.held_since != new.held_since:
            admission.hold.set(new.held_since)
            admission.give_back()
            admission.changed.set()
            if (old.held_since is None) != (new.held_since is None):
                self._emit(Held(name, held=new.held_since is not None, reason="paused by a person", until=None))
        if old.throttle != new.throttle:
            admission.limits.set_images(new.throttle)
            limit = admission.throttle.limit
            if limit is not None:
                reason = "a person lifted the lower limit" if new.throttle is None else "a person lowered the limit"
                self._emit(Throttled(name, limit.images, limit.per_seconds, reason))

    def _follow_priorities(self, before: ControlFacts | None) -> None:
        """Emit the priorities that have changed, at first those of jobs that wait; the lines are formed anew."""
        assert self._facts is not None
        found = {one.job_pk: one for one in self._facts.priorities}
        if before is None:
            changed = {pk: one for pk, one in found.items() if one.is_waiting}
        else:
            known = {one.job_pk: one for one in before.priorities}
            changed = {pk: one for pk, one in found.items() if self._priorities.get(pk) != one.priority}
            for pk in known.keys() - found.keys():
                self._emit(Reprioritised(known[pk].job, 0))
            if not changed and known.keys() <= found.keys():
                return
        self._priorities.clear()
        self._priorities.update({pk: one.priority for pk, one in found.items()})
        for one in changed.values():
            self._emit(Reprioritised(one.job, one.priority))
        for admission in self._admissions.values():
            admission.give_way()

    def stop_held(self, names: Iterable[str]) -> None:
        """Stop those of these providers whose calls are held now, for a run that is not to wait."""
        for name in names:
            if not self._stops.is_stopped(name) and (self._facts or ControlFacts()).of(name).held_since is not None:
                what = f"provider `{name}` is paused; to have it called again, run: pipeline unpause {name}"
                self._stops.stop_provider(name, ProviderHeld(what))

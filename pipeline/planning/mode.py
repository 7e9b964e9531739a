"""Read how a job is served, in realtime or by batch, and until when: `mode` and `deadline` of a job or a command."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING

from pipeline.planning.mode_names import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.planning.mode_names import Mode

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}.*")
_LATEST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
_HOW = 'write a time of day as "07:00", or a moment with its offset as "2026-11-29T07:00+01:00"'


@dataclass(frozen=True, slots=True)
class ServiceMode:
    """How a job is served, and until when: `deadline` is in seconds since 1970, of mode auto only."""

    mode: Mode = "realtime"
    deadline: float | None = None

    def has_passed(self, now: float) -> bool:
        """Return whether there is a deadline that has passed."""
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True, slots=True)
class ModeOptions:
    """The mode and the deadline that options of a command ask for; None is not asked for."""

    mode: Mode | None = None
    deadline: float | None = None


def deadline_fault(mode: str) -> str:
    """Return the message for a deadline that an option gives to a job of this mode."""
    return f"the mode is {mode}, and a deadline is for mode auto only; add --mode auto"


def no_batch_api(provider: str) -> str:
    """Return the message for a job in mode batch whose provider has no Batch API, as far as is known."""
    instead = "write `mode: auto` or `mode: realtime`, or `batch: {}` in its entry in the config if it has one"
    return f"provider `{provider}` has no Batch API; {instead}"


def mode_faults(mode: object, deadline: object) -> Iterator[tuple[str, str]]:
    """Yield (key, message) for what is wrong with the mode and the deadline of a job; None is not given."""
    fault = None if mode is None else find_mode_fault(mode)
    if fault:
        yield "mode", fault
    if deadline is None:
        return
    if deadline_fault := find_deadline_fault(deadline):
        yield "deadline", deadline_fault
    elif not fault and mode != "auto":
        yield "deadline", "is for mode auto only: write `mode: auto`, or leave it out"


def find_mode_fault(value: object) -> str | None:
    """Return what is wrong with a mode, for a message, or None."""
    return None if value in MODES else f"must be one of {', '.join(MODES)}, not `{value!s:.60}`"


def find_deadline_fault(value: object) -> str | None:
    """Return what is wrong with a deadline, for a message, or None."""
    try:
        read_deadline(value, 0.0)
    except ValueError as reason:
        return str(reason)
    return None


def read_deadline(value: object, now: float) -> float:
    """Return a deadline in seconds since 1970: the next such time of the local clock, or the moment that is written.

    Raises ValueError, whose message says what to write.
    """
    text = value.strip() if isinstance(value, str) else ""
    if clock := _CLOCK.fullmatch(text):
        return _next_time(time(int(clock[1]), int(clock[2])), now)
    moment = _parse_moment(text)
    if moment is None:
        raise ValueError(f"`{value!s:.60}` is no deadline; {_HOW}")
    if moment.tzinfo is None:
        raise ValueError(f"`{text:.60}` has no offset from UTC; {_HOW}")
    if not 0 < (deadline := (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) < _LATEST:
        raise ValueError(f"`{text:.60}` is out of range; {_HOW}")
    return deadline


def _parse_moment(text: str) -> datetime | None:
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _next_time(wall: time, now: float) -> float:
    """Return when the local clock shows this time next.

    A time that the clock shows twice, in autumn, is met at its next showing; one that it skips, in spring, counts as
    if it had not been put forward.
    """
    today = datetime.fromtimestamp(now).date()  # noqa: DTZ006 - the local clock is meant
    moments = []
    for days in range(3):
        first = datetime.combine(today + timedelta(days), wall)
        second = first.replace(fold=1)
        moments.append(first.timestamp())
        if datetime.fromtimestamp(second.timestamp()) == first:  # noqa: DTZ006 - else the clock skips it
            moments.append(second.timestamp())
    return min(moment for moment in moments if moment > now)


def local_time(moment: float) -> str:
    """Return a moment as the local clock and calendar show it."""
    return datetime.fromtimestamp(moment).strftime("%a %d %b %H:%M")  # noqa: DTZ006 - the local clock is meant

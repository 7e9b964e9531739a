"""Read `window:` of a provider: the hours of the day in which calls may start, by the local clock or that of a zone."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from pipeline.config.validation import Section

_SPAN = re.compile(r"\s*(\d{1,2}):(\d{2})\s*[-–]\s*(\d{1,2}):(\d{2})(?:\s+(\S+))?\s*")  # noqa: RUF001 - a dash, too
_DAY = 24 * 60  # minutes
_STEP = 15 * 60
"""Seconds: clocks are changed at full quarters of an hour of UTC."""

_LONGEST_WALK = 60 * 86400.0  # seconds that are walked through; a longer time is estimated from them
_LONGEST_SEARCH = 9 * 86400.0  # for the next change; a span recurs each day, unless clocks are changed
_HOW = 'write it like "22:00-07:00" or "22:00-07:00 Europe/Berlin"'


@dataclass(frozen=True, slots=True)
class DailySpan:
    """A part of each day, in minutes since midnight of the clock of a zone; without one, of the local clock.

    If it ends at or before its start, it ends on the next day.
    """

    start: int
    end: int
    zone: str | None = None

    def contains(self, moment: float) -> bool:
        """Return whether the clock shows a time of this span at a moment; its end is outside."""
        minutes, _ = self._clock(moment)
        if self.start < self.end:
            return self.start <= minutes < self.end
        return minutes >= self.start or minutes < self.end

    def seconds_to_edge(self, moment: float) -> float:
        """Return the seconds until the clock shows the start or the end, if it is not changed before."""
        minutes, seconds = self._clock(moment)
        return min(((edge - minutes - 1) % _DAY + 1) * 60 - seconds for edge in (self.start, self.end))

    def describe(self, moment: float) -> str:
        """Return the span as people write it, always with its zone; that of the local clock is the one at `moment`."""
        zone = self.zone or f"local time, {time.strftime('%Z (UTC%z)', time.localtime(moment))}"
        return f"{_clock_text(self.start)}-{_clock_text(self.end)} {zone}"

    def _clock(self, moment: float) -> tuple[int, float]:
        """Return what the clock shows: minutes since midnight, and seconds."""
        if self.zone is None:
            local = time.localtime(moment)
            return local.tm_hour * 60 + local.tm_min, local.tm_sec + moment % 1
        shown = datetime.fromtimestamp(moment, _zone(self.zone))
        return shown.hour * 60 + shown.minute, shown.second + shown.microsecond / 1e6


@dataclass(frozen=True, slots=True)
class OpeningHours:
    """When calls may start: in any of these spans. Moments are in seconds since 1970."""

    spans: tuple[DailySpan, ...]

    def is_open(self, moment: float) -> bool:
        """Return whether a call may start at a moment."""
        return any(span.contains(moment) for span in self.spans)

    def next_change(self, moment: float) -> float:
        """Return when this opens or closes next; infinity if it does neither.

        Each edge of a span is looked at, and each moment at which clocks may be changed.
        """
        state, end = self.is_open(moment), moment + _LONGEST_SEARCH
        while moment < end:
            to_edge = min(span.seconds_to_edge(moment) for span in self.spans)
            moment = round(min(moment + to_edge, (moment // _STEP + 1) * _STEP), 3)
            if self.is_open(moment) != state:
                return moment
        return math.inf

    def after(self, moment: float, seconds: float) -> float:
        """Return when so many open seconds have passed since a moment, closed ones left out."""
        start, left = moment, seconds
        while left > 0:
            change = self.next_change(moment)
            if self.is_open(moment):
                if change - moment >= left:
                    return moment + left
                left -= change - moment
            if change == math.inf:
                return change
            moment = change
            if moment - start > _LONGEST_WALK and left < seconds:
                return moment + left * (moment - start) / (seconds - left)
        return moment

    def describe(self, moment: float) -> str:
        """Return the spans as people write them, each with its zone."""
        return ", ".join(span.describe(moment) for span in self.spans)


def read_opening_hours(section: Section) -> OpeningHours | None:
    """Read `window:` of a provider's section, one span or a list of them; None if there is none."""
    given = section.value.get("window")
    if given is None:
        return None
    spans = []
    for span in given if isinstance(given, list) and given else [given]:
        try:
            spans.append(_read_span(span))
        except ValueError as fault:
            section.add_problem("window", str(fault))
    return OpeningHours(tuple(spans)) if spans else None


def _read_span(value: object) -> DailySpan:
    """Read one span. Raises ValueError, whose message says what to write."""
    match = _SPAN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"`{value!s:.60}` is not a part of the day; {_HOW}")
    start, end = (_minutes(match[0], *match.group(first, first + 1)) for first in (1, 3))
    if start in {_DAY, end} or (start, end) == (0, _DAY):
        raise ValueError(f"`{match[0]:.60}` is no part of the day; {_HOW}, and leave `window` out for the whole day")
    zone = match[5]
    if zone is not None:
        _check_zone(zone)
    return DailySpan(start, end, zone)


def _minutes(text: str, hours: str, minutes: str) -> int:
    number = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or number > _DAY:
        raise ValueError(f"`{text:.60}` has a time that no clock shows; {_HOW}")
    return number


def _check_zone(name: str) -> None:
    """Raise ValueError if there is no such time zone, with the closest name."""
    try:
        _zone(name)
    except (ValueError, OSError, LookupError):  # ZoneInfoNotFoundError is a KeyError
        from zoneinfo import available_timezones

        from pipeline.config.yaml_document import nearest

        known = sorted(available_timezones())
        close = nearest(name, known)
        hint = f"did you mean `{close}`?" if close else "write a name like Europe/Berlin, or UTC"
        hint = hint if known else "it knows none: install the package `tzdata`, or leave the zone out"
        raise ValueError(f"`{name:.60}` is no time zone that this machine knows; {hint}") from None


@lru_cache
def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


def _clock_text(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"

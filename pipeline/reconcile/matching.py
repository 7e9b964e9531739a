"""Matching of calls with the images that a provider's usage counts by model, size, source and minute.

Images of a kind are interchangeable: of the calls that could explain one, that whose time ends first does. So the
number and the cost of the calls that were charged are exact, also if nobody can know which of two equal ones it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MINUTE = 60
_SKEW = MINUTE  # seconds by which the clocks may differ


@dataclass(frozen=True, slots=True)
class Kind:
    """What images are counted by; None if a dimension is not stated."""

    model: str | None
    size: str | None
    source: str | None

    def agrees(self, other: Kind, *, exactly: bool) -> bool:
        """Return whether both may be the same kind; unless `exactly`, what is not stated may be anything."""
        pairs = ((self.model, other.model), (self.size, other.size), (self.source, other.source))
        return all(mine == its or (not exactly and None in {mine, its}) for mine, its in pairs)


@dataclass(frozen=True, slots=True)
class Expected:
    """Images that a call brought, or may have cost: made between two moments, most likely at `likely`.

    `lacking` are images that its response lacked, and that may be counted all the same.
    """

    pk: int
    kind: Kind
    images: int
    earliest: float
    likely: float
    latest: float
    lacking: int = 0


@dataclass(slots=True)
class Counted:
    """Images of one kind that were made in the minute that begins at `start`; `left` are those not explained yet."""

    start: int
    kind: Kind
    left: int


class Matching:
    """The images that a provider counts; each call that is matched explains some of them."""

    def __init__(self, counted: Iterable[Counted]) -> None:
        self._minutes: dict[int, list[Counted]] = {}
        for images in counted:
            self._minutes.setdefault(images.start, []).append(images)
        self._found: dict[int, Counted] = {}

    def explain(self, calls: Iterable[Expected]) -> set[int]:
        """Match calls with what is left, and return the primary keys of those that were found.

        A call's images are made at once, so all of them are in one minute: in that of `likely` if possible.
        """
        waiting = sorted(calls, key=lambda call: (call.latest, call.pk))
        for exactly in (True, False):
            for is_wide in (False, True):
                waiting = [call for call in waiting if not self._take(call, exactly=exactly, is_wide=is_wide)]
        return self._found.keys() - {call.pk for call in waiting}

    def _take(self, call: Expected, *, exactly: bool, is_wide: bool) -> bool:
        for minute in _minutes(call) if is_wide else [_minute(call.likely)]:
            for images in self._minutes.get(minute, ()):
                if images.left >= call.images and images.kind.agrees(call.kind, exactly=exactly):
                    images.left -= call.images
                    self._found[call.pk] = images
                    return True
        return False

    def explain_lacking(self, calls: Iterable[Expected]) -> int:
        """Explain what is left by responses that had fewer images than were asked for; return how many it is."""
        explained = 0
        for call in calls:
            if call.lacking and (images := self._found.get(call.pk)) is not None:
                taken = min(images.left, call.lacking)
                images.left -= taken
                explained += taken
        return explained

    def start_of(self, pk: int) -> int:
        """Return the minute in which a call was found."""
        return self._found[pk].start

    def left(self) -> Sequence[Counted]:
        """Return what no call explains, oldest first."""
        return [images for start in sorted(self._minutes) for images in self._minutes[start] if images.left]


def _minute(moment: float) -> int:
    return int(moment // MINUTE) * MINUTE


def _minutes(call: Expected) -> Iterator[int]:
    return iter(range(_minute(call.earliest - _SKEW), _minute(call.latest + _SKEW) + MINUTE, MINUTE))

"""Reconciliation: which calls of unknown outcome a provider charged, and what it charged for nobody that we know.

A provider's usage counts as complete until the end of the minute of the last of our answers that is in it: a call of
unknown outcome that ended by then and is not in it was not charged. What is younger stays open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipeline.ledger.error_kind import INTERRUPTED
from pipeline.reconcile.matching import MINUTE, Counted, Expected, Kind, Matching

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.client.usage import UsedImages
    from pipeline.ledger.charged_calls import ChargedCall
    from pipeline.models.table import Models

DAY = 86400
Finding = Literal["charged", "not_charged", "open"]
_SOURCES = {operation: f"image.{operation}" for operation in ("generation", "edit", "variation")}
_AFTERWARDS = 15 * MINUTE  # how long a server may work on after a call was cut off on our side
_TIMEOUTS = frozenset({408, 504, 524})
"""Statuses by which a gateway says that it no longer waits: the server behind it works on."""


@dataclass(frozen=True, slots=True)
class UnknownCall:
    """A call of unknown outcome, and what became of it: charged, not_charged or open; `cost_usd` if it is charged."""

    call: ChargedCall
    finding: Finding
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Foreign:
    """Images of one kind and minute that no call of ours explains; `cost_usd` is what ours of the kind cost."""

    start: int
    kind: Kind
    images: int
    cost_usd: float | None


@dataclass(slots=True)
class Reconciliation:
    """What a comparison found, of the providers that share an address and a project.

    `matched` counts the images that our calls explain, `missing` are answered calls that the provider does not count.
    `made_on` says on which day of UTC the images of each call were counted.
    """

    providers: tuple[str, ...]
    since: float
    complete_until: float
    matched: int = 0
    unknown: list[UnknownCall] = field(default_factory=list)
    missing: list[ChargedCall] = field(default_factory=list)
    foreign: list[Foreign] = field(default_factory=list)
    known: list[ChargedCall] = field(default_factory=list)
    made_on: dict[int, int] = field(default_factory=dict)

    def found(self, finding: str) -> list[UnknownCall]:
        """Return the calls of unknown outcome with one finding."""
        return [call for call in self.unknown if call.finding == finding]

    @property
    def is_explained(self) -> bool:
        """Whether nothing is left that nobody can explain."""
        return not (self.foreign or self.missing or self.found("open"))


def reconcile(
    providers: Iterable[str],
    calls: Sequence[ChargedCall],
    used: Iterable[UsedImages],
    models: Models,
    *,
    since: float,
    now: float,
) -> Reconciliation:
    """Compare calls with what was counted since a moment; calls that ended before it may explain, and need not."""
    known = [call for call in calls if call.is_known and call.images]
    unknown = [call for call in calls if not call.is_known]
    answers = [call for call in known if call.outcome == "answered" and call.ended_at is not None and not call.is_line]
    slowest = max((call.ended_at - call.sent_at for call in answers if call.ended_at), default=0.0)
    expected = {call.attempt_pk: _expect(call, models, slowest, now) for call in (*known, *unknown)}
    matching = Matching(_counted(images, models) for images in used)
    matching.explain(expected[call.attempt_pk] for call in known)
    found = matching.explain(expected[call.attempt_pk] for call in unknown)
    ends = [call.ended_at for call in answers if call.attempt_pk in found and call.ended_at]
    complete = (min(now, (end // MINUTE + 1) * MINUTE) for end in ends)
    result = Reconciliation(tuple(sorted(providers)), since, max([_yesterday(now), *complete]))
    result.matched = matching.explain_lacking(expected[call.attempt_pk] for call in known)
    result.matched += sum(call.images for call in calls if call.attempt_pk in found and _is_since(call, since))
    result.made_on = {pk: matching.start_of(pk) // DAY * DAY for pk in found}
    result.known = [call for call in known if call.attempt_pk in found]
    costs = _Costs(known)
    for call in unknown:
        if _is_since(call, since):
            finding = _finding(call, slowest, result, is_found=call.attempt_pk in found)
            result.unknown.append(UnknownCall(call, finding, costs.of(call) if finding == "charged" else None))
    result.missing = [call for call in known if call.attempt_pk not in found and _is_due(call, since, result)]
    result.foreign = [Foreign(images.start, images.kind, images.left, costs.mean(images)) for images in matching.left()]
    return result


def _is_since(call: ChargedCall, since: float) -> bool:
    return call.ended_at is None or call.ended_at >= since


def _finding(call: ChargedCall, slowest: float, result: Reconciliation, *, is_found: bool) -> Finding:
    if is_found:
        return "charged"
    return "not_charged" if _over(call, slowest) <= result.complete_until else "open"


def _expect(call: ChargedCall, models: Models, slowest: float, now: float) -> Expected:
    """Return when, and of which kind, the images of a call were made if they were."""
    latest = likely = now if call.ended_at is None else call.ended_at
    if not call.is_known and call.error_type == INTERRUPTED:  # it ended when the next run began
        likely, latest = call.sent_at + slowest / 2, call.sent_at + slowest + _AFTERWARDS
    elif not call.is_known and _is_worked_on(call):
        latest += _AFTERWARDS
    kind = _kind(models, call.model, call.size, _SOURCES.get(call.operation))
    lacking = call.n - call.images if call.outcome == "answered" else 0
    latest = min(latest, now)
    return Expected(call.attempt_pk, kind, call.images, call.first_sent_at, likely, latest, max(0, lacking))


def _is_worked_on(call: ChargedCall) -> bool:
    """Return whether a server may have worked on after the end of a call: it was cut off before the server."""
    return call.ended_at is None or "Timeout" in (call.error_type or "") or call.http_status in _TIMEOUTS


def _over(call: ChargedCall, slowest: float) -> float:
    """Return when a call of unknown outcome must have been charged if it was; whether lines of batches are counted, is
    not documented.
    """
    if call.ended_at is None or call.is_line:
        return math.inf
    if call.error_type == INTERRUPTED:
        return call.sent_at + 2 * slowest
    return call.ended_at + (_AFTERWARDS if _is_worked_on(call) else 0.0)


def _counted(used: UsedImages, models: Models) -> Counted:
    start = used.start // MINUTE * MINUTE
    return Counted(start, _kind(models, used.model, used.size, used.source), used.images)


def _kind(models: Models, model: str | None, size: str | None, source: str | None) -> Kind:
    found = models.find(model)
    return Kind(found.name if found else model, None if size == "auto" else size, source)


def _is_due(call: ChargedCall, since: float, result: Reconciliation) -> bool:
    """Return whether a call should be counted by now; whether lines of batches are, is not documented."""
    return not call.is_line and since <= call.first_sent_at and (call.ended_at or 0.0) < result.complete_until


def _yesterday(now: float) -> float:
    """Return when yesterday began, in UTC: what is older is complete."""
    return float((int(now) // DAY - 1) * DAY)


class _Costs:
    """What a call of ours costs: as another one of the same request did, else as the mean of its kind."""

    def __init__(self, known: Iterable[ChargedCall]) -> None:
        self._requests: dict[tuple[int, int], float] = {}
        self._kinds: dict[tuple[str | None, ...], list[float]] = {}
        for call in known:
            if call.cost_usd is not None and not call.is_line and call.images == call.n:
                self._requests[call.request_pk, call.n] = call.cost_usd
                for kind in (_key(call), (call.model,)):
                    self._kinds.setdefault(kind, []).append(call.cost_usd / call.images)

    def of(self, call: ChargedCall) -> float | None:
        """Return what an unknown call cost, if it was charged."""
        same = self._requests.get((call.request_pk, call.n))
        if same is not None and not call.is_line:
            return same
        mean = None if call.is_line else _mean(self._kinds.get(_key(call)))
        return call.estimate_usd if mean is None else mean * call.images

    def mean(self, counted: Counted) -> float | None:
        """Return what images of a kind cost if they cost what ours do; None if there are none of ours."""
        mean = _mean(self._kinds.get((counted.kind.model,)))
        return None if mean is None else mean * counted.left


def _key(call: ChargedCall) -> tuple[str | None, ...]:
    return call.model, call.size, call.quality, call.operation


def _mean(values: Sequence[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def day_costs(result: Reconciliation, models: Models) -> Mapping[tuple[int, str | None], tuple[int, float]]:
    """Return the images of our own by day of UTC and model, with what they cost by usage and by the price table."""
    costs: dict[tuple[int, str | None], tuple[int, float]] = {}
    charged = [(unknown_call.call, unknown_call.cost_usd) for unknown_call in result.found("charged")]
    for call, cost in (*((known_call, known_call.cost_usd) for known_call in result.known), *charged):
        day, kind = result.made_on.get(call.attempt_pk), _kind(models, call.model, None, None)
        if day is not None:
            images, usd = costs.get((day, kind.model), (0, 0.0))
            costs[day, kind.model] = images + call.images, usd + (cost or 0.0)
    return costs

"""Writes what a comparison found: as one JSON document, and as lines for people."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pipeline.reports.facts import counted, dollars

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.ledger.charged_calls import ChargedCall
    from pipeline.reconcile.comparison import Compared
    from pipeline.reconcile.matching import Kind
    from pipeline.reconcile.prices import DayPrice
    from pipeline.reconcile.reconciliation import Finding, Foreign, UnknownCall

_FINDINGS: tuple[Finding, ...] = ("charged", "not_charged", "open")
_MOST_LINES = 50  # of one kind, for people


def comparison_json(found: Sequence[Compared]) -> dict[str, Any]:
    """Return the document. `matched` counts images, `unknown` calls; `calls` are these calls, each by its name."""
    results = [comparison.result for comparison in found]
    unknown = [call for result in results for call in result.unknown]
    return {
        "providers": [name for result in results for name in result.providers],
        "since": _moment(min((result.since for result in results), default=None)),
        "matched": sum(result.matched for result in results),
        "unknown": {finding: sum(call.finding == finding for call in unknown) for finding in _FINDINGS},
        "unknown_usd": _usd(sum(call.cost_usd or 0.0 for call in unknown)),
        "calls": [_call_json(call) for call in unknown],
        "missing": [_name_json(call) for result in results for call in result.missing],
        "foreign": [_foreign_json(foreign) for result in results for foreign in result.foreign],
        "prices": [_price_json(price) for comparison in found for price in comparison.prices],
        "complete_until": _moment(min((result.complete_until for result in results), default=None)),
    }


def _name_json(call: ChargedCall) -> dict[str, Any]:
    return {
        "job": call.job,
        "id": call.id,
        "provider": call.provider,
        "attempt": call.number,
        "sent_at": _moment(call.sent_at),
        "model": call.model,
        "size": call.size,
        "images": call.images,
        "idempotency_key": call.idempotency_key,
    }


def _call_json(call: UnknownCall) -> dict[str, Any]:
    return {**_name_json(call.call), "finding": call.finding, "cost_usd": _usd(call.cost_usd)}


def _foreign_json(foreign: Foreign) -> dict[str, Any]:
    kind = {"model": foreign.kind.model, "size": foreign.kind.size, "source": foreign.kind.source}
    return {"minute": _moment(foreign.start), **kind, "images": foreign.images, "cost_usd": _usd(foreign.cost_usd)}


def _price_json(price: DayPrice) -> dict[str, Any]:
    return {
        "day": _day(price.day),
        "model": price.model,
        "images": price.images,
        "foreign_images": price.foreign,
        "charged_usd": _usd(price.charged_usd),
        "charged_per_image_usd": _usd(price.charged_per_image),
        "table_usd": _usd(price.known_usd),
        "table_per_image_usd": _usd(price.known_per_image),
        "incomplete": price.is_incomplete,
        "differs": price.differs,
    }


def comparison_lines(found: Sequence[Compared], *, applied: bool, apply_command: str) -> Iterator[str]:
    """Yield what was found, in sentences; the last one is what to type."""
    if not found:
        yield "no provider that states what it charged was called yet"
    for comparison in found:
        yield from _account_lines(comparison)
    unsettled = sum(call.finding != "open" for comparison in found for call in comparison.result.unknown)
    if applied:
        yield f"{counted(unsettled, 'call')} of unknown outcome settled in the ledger"
    elif unsettled:
        yield f"to settle {'it' if unsettled == 1 else 'them'} in the ledger, run: {apply_command}"


def _account_lines(comparison: Compared) -> Iterator[str]:
    result = comparison.result
    who = ", ".join(result.providers)
    yield f"{who}: {counted(result.matched, 'image')} matched since {_moment(result.since)}"
    words = {"charged": "was charged", "not_charged": "was not charged", "open": "is open: not complete yet"}
    for finding in _FINDINGS:
        calls = result.found(finding)
        if not calls:
            continue
        usd = sum(call.cost_usd or 0.0 for call in calls)
        cost = f", {dollars(usd)}" if usd else ""
        yield f"calls of unknown outcome, {finding.replace('_', ' ')}: {len(calls):,}{cost}"
        yield from _bounded([f"  {_name(call.call)} {words[finding]}{_cost(call.cost_usd)}" for call in calls])
    yield from _bounded([f"answered and not counted by the provider: {_name(call)}" for call in result.missing])
    yield from _bounded(
        [
            f"not ours: {counted(other.images, 'image')} of {_kind(other.kind)} at {_moment(other.start)}"
            f"{_cost(other.cost_usd, 'about ')}: another program uses this key or project"
            for other in result.foreign
        ]
    )
    yield from (_price_line(price) for price in comparison.prices)
    yield f"the provider's usage is complete until {_moment(result.complete_until)}"


def _bounded(lines: Sequence[str]) -> Iterator[str]:
    yield from lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        yield f"  and {len(lines) - _MOST_LINES:,} more; --json lists all"


def _name(call: ChargedCall) -> str:
    which = f"attempt {call.number} at {_moment(call.sent_at)}"
    return f"{call.job}/{call.id}, {which}, {counted(call.images, 'image')},"


def _kind(kind: Kind) -> str:
    words = (kind.model or "a model that is not stated", kind.size, kind.source)
    return " ".join(word for word in words if word)


def _cost(usd: float | None, about: str = "") -> str:
    return "" if usd is None else f", {about}{dollars(usd)}"


def _price_line(price: DayPrice) -> str:
    def per_image(usd: float | None) -> str:
        return "" if usd is None else f" ({dollars(usd)} an image)"

    invoice = f"{dollars(price.charged_usd)}{per_image(price.charged_per_image)}"
    known = f"{dollars(price.known_usd)}{per_image(price.known_per_image)}"
    foreign = f" and {counted(price.foreign, 'image')} that {'is' if price.foreign == 1 else 'are'} not ours"
    note = "; incomplete" if price.is_incomplete else "; this is a difference" if price.differs else ""
    images = f"{counted(price.images, 'image')}{foreign if price.foreign else ''}"
    return f"{_day(price.day)} {price.model}: {images}, charged {invoice}, by usage and price table {known}{note}"


def _usd(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 6)


def _moment(moment: float | None) -> str | None:
    return None if moment is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))

"""How a job stands, as (value, label) facts: the same words in status, summary, notification, report and live page."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.ledger.job_summary import JobSummary


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure and what it counts; as text, the one before the other."""

    value: str
    label: str

    def __str__(self) -> str:
        return f"{self.value} {self.label}"


def counted(number: int, word: str) -> Fact:
    """Return a number with its noun, in the plural if it is not 1."""
    plural = f"{word}es" if word.endswith("ch") else f"{word}s"
    return Fact(f"{number:,}", word if number == 1 else plural)


def dollars(usd: float) -> str:
    """Return an amount of money: cents, and below one dollar up to four decimals."""
    return "$" + (re.sub("0{1,2}$", "", f"{usd:.4f}") if 0 < usd < 1 else f"{usd:,.2f}")


def duration(seconds: float) -> str:
    """Return a time span in its two largest units, rounded up to minutes from one minute on: 33 h 20 min."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = math.ceil(round(seconds / 60, 3))
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24) if hours >= 48 else (0, hours)
    parts = [(days, "days"), (hours, "h"), (minutes, "min")]
    return " ".join(f"{number:,} {unit}" for number, unit in parts if number) or "0 min"


def rate(per_minute: float) -> str:
    """Return a number per minute: with one decimal below 100, else without."""
    return f"{per_minute:,.0f}" if per_minute >= 99.95 or per_minute == round(per_minute) else f"{per_minute:.1f}"


def rfc3339(moment: float, timespec: str = "milliseconds") -> str:
    """Return a moment as RFC 3339 writes it, in UTC; `strftime` would take four times as long."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


def utc_time(moment: float | None) -> str | None:
    """Return a moment in UTC to the second, as scripts read it."""
    return None if moment is None else rfc3339(moment, "seconds")


def clock(moment: float, now: float, *, seconds: bool = False) -> str:
    """Return a moment in local time, with its day if that is not today."""
    then, today = time.localtime(moment), time.localtime(now)
    text = time.strftime("%H:%M:%S" if seconds else "%H:%M", then)
    if then[:3] == today[:3]:
        return text
    return time.strftime("%a ", then) + text if abs(moment - now) < 6 * 86400 else time.strftime("%d %b ", then) + text


def count_facts(summary: JobSummary) -> list[Fact]:
    """Return the number of requests of each status that there is; those in batches are not called running."""
    words = {"superseded": "replaced or removed"}
    in_batch = min(summary.in_batches.requests, summary.counts["running"])
    pending = {"pending": summary.counts["pending"], "in batch": in_batch}
    counts = {**pending, **summary.counts, "running": summary.counts["running"] - in_batch}
    return [Fact(f"{number:,}", words.get(status, status)) for status, number in counts.items() if number]


def spent_facts(summary: JobSummary) -> list[Fact]:
    """Return what a job has cost, the calls that may have been paid in addition, and images still to be downloaded."""
    facts = []
    if summary.cost_usd is not None:
        facts.append(Fact(dollars(summary.cost_usd), "rehearsal price, not charged" if summary.rehearsal else "spent"))
    if summary.maybe_paid:
        calls = counted(summary.maybe_paid, "call")
        facts.append(Fact(calls.value, f"more {calls.label} may have been paid (unclear: the response was lost)"))
    if summary.paid_waiting:
        images = counted(summary.paid_waiting, "image")
        facts.append(Fact(images.value, f"{images.label} paid and not downloaded yet"))
    return facts


def expected_facts(summary: JobSummary) -> list[Fact]:
    """Return what the images to come cost, as far as there are any."""
    if not summary.missing:
        return []
    return [
        Fact("unknown", "cost to come")
        if summary.expected_usd is None
        else Fact(dollars(summary.expected_usd), "expected")
    ]


def job_line(summary: JobSummary) -> str:
    """Return how a job stands in one line."""
    number = sum(number for status, number in summary.counts.items() if status != "superseded")
    counts = ", ".join(map(str, count_facts(summary))) or "nothing to do"
    facts = [counted(summary.images, "image"), *spent_facts(summary)]
    return f"{summary.name}: {counted(number, 'request')}: {counts}; {_joined(facts)}"


def _joined(facts: Iterable[Fact | str]) -> str:
    return "; ".join(map(str, facts))

"""How far every job and provider is and when it ends, as values and in words. Moments are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.ledger.batch_queries import BatchesOut
from pipeline.reports.batches import waits_words
from pipeline.reports.facts import clock, counted, dollars, rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.config.opening_hours import OpeningHours
    from pipeline.ledger.batch_queries import RecordedBatch

SEPARATOR = " · "
_BOTTLENECKS = {
    "limit": "waiting for the limit",
    "provider": "waiting for responses",
    "downloads": "waiting for downloads",
    "disk": "waiting for the disk",
    "held": "held: no call is sent",
}


def thumbnails_made(made: int, total: int) -> str:
    """Return how many thumbnails are made."""
    return f"thumbnails {made:,}/{total:,}"


@dataclass(frozen=True, slots=True)
class JobView:
    """One job: requests done, failed (partial ones too) and left, images here and to come, US dollars.

    `missing` are images that calls bring. `batches` bring others, at a time that no limit and no speed tells; while
    there are any, or if `by_batch`, there is no estimate of the end.
    """

    name: str
    provider: str
    done: int
    failed: int
    left: int
    missing: int
    cost_usd: float | None
    expected_usd: float | None  # of the images to come
    rehearsal: bool
    ends_at: float | None = None
    batches: tuple[RecordedBatch, ...] = ()
    by_batch: bool = False
    members: tuple[str, ...] = ()  # of a route

    @property
    def out(self) -> BatchesOut:
        """Its living batches."""
        return BatchesOut.of(self.batches)

    @property
    def total(self) -> int:
        """Requests that are done or still to be."""
        return self.done + self.failed + self.left


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One provider: images per minute, the limit in the same unit, calls in flight, and the bottleneck."""

    name: str
    per_minute: float | None
    limit: float | None
    in_flight: int
    bottleneck: str = ""
    until: float | None = None  # of a pause
    down_since: float | None = None
    given_up_at: float | None = None  # of a provider that is down
    pauses: int = 0  # that it has asked for in this run
    outages: int = 0  # that are over
    expires_at: float | None = None  # the earliest expiry of a URL whose image is not downloaded yet
    out: BatchesOut = field(default_factory=BatchesOut)


@dataclass(frozen=True, slots=True)
class View:
    """Everything that is shown, at the moment `now`."""

    now: float
    jobs: Sequence[JobView]
    providers: Sequence[ProviderView]
    stopping: bool = False
    notes: Sequence[str] = ()  # whether a run is at work, and what stopped the last one
    thumbnails: str = ""  # how many are made, after the run

    @property
    def total(self) -> JobView:
        """All jobs added up."""
        jobs = self.jobs
        costs = [job.cost_usd for job in jobs if job.cost_usd is not None]
        expected = [job.expected_usd for job in jobs]
        known = [cost for cost in expected if cost is not None]
        ends = [job.ends_at for job in jobs if job.left]
        known_ends = [end for end in ends if end is not None]
        return JobView(
            name=f"{len(jobs)} jobs",
            provider="",
            done=sum(job.done for job in jobs),
            failed=sum(job.failed for job in jobs),
            left=sum(job.left for job in jobs),
            missing=sum(job.missing for job in jobs),
            cost_usd=sum(costs) if costs else None,
            expected_usd=sum(known) if len(known) == len(jobs) else None,
            rehearsal=bool(jobs) and all(job.rehearsal for job in jobs),
            ends_at=max(known_ends) if ends and len(ends) == len(known_ends) else None,
            batches=tuple(batch for job in jobs for batch in job.batches),
        )


def out_at(provider: str, jobs: Iterable[JobView]) -> BatchesOut:
    """Return the batches of these jobs that are out at a provider."""
    return BatchesOut.of(batch for job in jobs for batch in job.batches if batch.provider == provider)


def speed_of(limit: float | None, measured: float | None, bottleneck: str) -> float | None:
    """Return images per minute to estimate with: the limit if it or a pause is the bottleneck, else `measured`."""
    if limit is not None and (bottleneck in {"limit", "paused", "held"} or measured is None):
        return limit
    return measured if limit is None or measured is None else min(limit, measured)


def job_cells(job: JobView) -> list[str]:
    """Return how far a job is in columns: done, failed, left, in batch; one that is zero and not the first is empty."""
    failed, out = f"{job.failed:,} failed" if job.failed else "", job.out
    in_batch = f"in batch {out.completed:,}/{out.requests:,}" if out.batches else ""
    return [f"{job.done:,} done", failed, f"{job.left:,} left" if job.left else "", in_batch]


def job_facts(job: JobView) -> list[str]:
    """Return how far a job is."""
    return [cell for cell in job_cells(job) if cell]


def end_facts(job: JobView, now: float) -> list[str]:
    """Return what a job costs, and when it ends."""
    return [
        fact for fact in (_money(job), job.left and job.ends_at and f"done about {clock(job.ends_at, now)}") if fact
    ]


def _money(job: JobView) -> str:
    if job.cost_usd is None and not job.expected_usd:
        return ""
    spent = job.cost_usd or 0.0
    rehearsal = " (rehearsal, not charged)" if job.rehearsal else ""
    if not job.left:
        return f"{dollars(spent)}{rehearsal}"
    if job.expected_usd is None:
        return f"{dollars(spent)}{rehearsal}, to come unknown"
    return f"{dollars(spent)} of about {dollars(spent + job.expected_usd)}{rehearsal}"


def provider_facts(provider: ProviderView, now: float) -> list[str]:
    """Return how fast a provider is, against its limit, and its bottleneck."""
    has_calls = provider.bottleneck != "batch" or provider.in_flight or provider.per_minute is not None
    facts = [_speed(provider), f"{counted(provider.in_flight, 'call')} in flight"] if has_calls else []
    bottleneck = bottleneck_of(provider, now)
    expires_at = provider.expires_at
    expiry = [] if expires_at is None else [f"download before {clock(expires_at, now)} (when the next link expires)"]
    numbers = ((provider.pauses, "pause"), (provider.outages, "outage"))
    past = [str(counted(number, what)) for number, what in numbers if number]
    return [*facts, *([bottleneck] if bottleneck else []), *past, *expiry]


def _speed(provider: ProviderView) -> str:
    if provider.per_minute is not None:
        of = "" if provider.limit is None else f" of {rate(provider.limit)}"
        return f"{rate(provider.per_minute)}{of} images a minute"
    limit = "" if provider.limit is None else f" (limit {rate(provider.limit)} images a minute)"
    return f"{'measuring…' if provider.in_flight or provider.bottleneck else 'idle'}{limit}"


def bottleneck_of(provider: ProviderView, now: float) -> str:
    """Return a provider's bottleneck in words; empty if nothing is at work."""
    if provider.down_since is not None:
        end = "" if provider.given_up_at is None else f", tried again until {clock(provider.given_up_at, now)}"
        return f"provider down since {clock(provider.down_since, now)}{end}"
    if provider.bottleneck == "paused":
        until = provider.until
        return "paused" if until is None or until <= now else f"paused until {clock(until, now, seconds=True)}"
    if provider.bottleneck == "batch":
        return waits_words(provider.out, now)
    return _BOTTLENECKS.get(provider.bottleneck, "")


def _with_routes(
    jobs: Sequence[JobView], starts: Mapping[str, float], speeds: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return starts and speeds also of the jobs' routes: the first start, and the sum of the known speeds."""
    all_starts, all_speeds = dict(starts), dict(speeds)
    for job in jobs:
        known = [name for name in job.members if name in speeds and name in starts]
        if known:
            all_starts[job.provider] = min(starts[name] for name in known)
            all_speeds[job.provider] = sum(speeds[name] for name in known)
    return all_starts, all_speeds


def with_ends(
    jobs: Sequence[JobView],
    starts: Mapping[str, float],
    speeds: Mapping[str, float],
    windows: Mapping[str, OpeningHours],
) -> list[JobView]:
    """Return the jobs with their ends: a provider's jobs run in order, from `starts`, at images per minute, in its
    window if it has one.
    """
    ahead: dict[str, int] = {}
    ended = []
    starts, speeds = _with_routes(jobs, starts, speeds)
    for job in jobs:
        ahead[job.provider] = ahead.get(job.provider, 0) + (0 if job.by_batch else job.missing)
        speed = None if job.by_batch or job.batches else speeds.get(job.provider)
        end = None
        if speed and job.provider in starts:
            start, seconds, window = starts[job.provider], ahead[job.provider] / speed * 60, windows.get(job.provider)
            end = start + seconds if window is None else window.after(start, seconds)
        ended.append(replace(job, ends_at=end))
    return ended

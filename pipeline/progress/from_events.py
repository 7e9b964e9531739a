"""Makes a view from a run's events: what has happened since the ledger was last read is added to that reading."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pipeline.config.provider import RateLimit
from pipeline.engine import events
from pipeline.progress.view import (
    JobView,
    ProviderView,
    View,
    out_at,
    speed_of,
    thumbnails_made,
    with_ends,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.config.opening_hours import OpeningHours
    from pipeline.engine.events import Event, ProviderPace
    from pipeline.ledger.batch_queries import BatchesOut
    from pipeline.ledger.job_summary import JobSummary

_SHOWN_SECONDS = 60.0  # over which the images per minute that are shown are counted
_ESTIMATE_SECONDS = 300.0  # the same for the estimate of the end
_LEAST_SECONDS = 5.0  # before a speed is shown
_LEAST_IMAGES = 10  # before the end is estimated by it


class ImageRate:
    """Images per second as they arrive. The first starts the clock, since what came before it is unknown."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._seconds: deque[tuple[float, int]] = deque()

    def count(self, now: float) -> None:
        """Count one image."""
        if self._start is None:
            self._start = now
        elif self._seconds and now - self._seconds[-1][0] < 1.0:
            self._seconds[-1] = (self._seconds[-1][0], self._seconds[-1][1] + 1)
        else:
            self._seconds.append((now, 1))
        while self._seconds and self._seconds[0][0] < now - _ESTIMATE_SECONDS:
            self._seconds.popleft()

    def per_minute(self, now: float, seconds: float, least: int = 0) -> float | None:
        """Return the images per minute of the last `seconds`; None if there is too little to measure."""
        if self._start is None:
            return None
        since = max(self._start, now - seconds)
        images = sum(number for moment, number in self._seconds if moment > since)
        if now - since < _LEAST_SECONDS or images < least:
            return None
        return images / (now - since) * 60


@dataclass(slots=True)
class _JobNews:
    """What has happened to a job since the ledger was last read."""

    done: int = 0
    failed: int = 0
    images: int = 0
    cost_usd: float = 0.0


@dataclass(slots=True)
class _ProviderNews:
    in_flight: int = 0
    down_since: float | None = None
    given_up_at: float | None = None
    pauses: int = 0
    outages: int = 0
    pace: ProviderPace | None = None
    rate: ImageRate = field(default_factory=ImageRate)


class EventTotals:
    """Counts events in one thread while another takes views; `begun` is set by the run's first event.

    `windows` are those of providers that are called in some hours only.
    """

    def __init__(self, windows: Mapping[str, OpeningHours] | None = None) -> None:
        self._windows = windows or {}
        self.begun = False
        self._has_unknown_job = False
        self._stopping = False
        self._thumbnails = ""
        self._lock = threading.Lock()
        self._names: dict[str, None] = {}
        self._summaries: dict[str, JobSummary] = {}
        self._jobs: dict[str, _JobNews] = {}
        self._providers: dict[str, _ProviderNews] = {}
        self._served_by: dict[str, str] = {}
        self._in_batches: set[str] = set()  # jobs whose images say nothing of the speed of calls

    def count(self, event: Event, now: float) -> None:
        """Count one event; cheap, since a fast run emits thousands per second."""
        with self._lock:
            self._count(event, now)

    def _count(self, event: Event, now: float) -> None:
        match event:
            case events.CallSent(job, _, provider, _):
                self._served_by[job] = provider
                self._provider(provider).in_flight += 1
                self._job(job)
            case events.CallEnded(job, _, provider, _, cost, _):
                self._provider(provider).in_flight -= 1
                self._job(job).cost_usd += cost or 0.0
            case events.ImageStored(job, provider=provider):
                self._job(job).images += 1
                served_by = provider or self._served_by.get(job)
                if served_by is not None and job not in self._in_batches:
                    self._provider(served_by).rate.count(now)
            case events.RequestEnded(job, _, status):
                news = self._job(job)
                news.done += status == "succeeded"
                news.failed += status != "succeeded"
            case events.ProviderPace():
                self._take_pace(event)
            case events.ProviderDown(provider, given_up_at=given_up_at):
                down = self._provider(provider)
                down.down_since, down.given_up_at = now, given_up_at
            case events.ProviderUp(provider):
                up = self._provider(provider)
                up.down_since, up.rate = None, ImageRate()
                up.outages += 1
            case events.Paused(provider):
                self._provider(provider).pauses += 1
            case events.RunStarted(jobs):
                self.begun = True
                self._names.update(dict.fromkeys(jobs))
            case events.Stopping():
                self._stopping = True
            case events.ThumbnailsMade(_, made, total):
                self._thumbnails = thumbnails_made(made, total)

    def _take_pace(self, pace: ProviderPace) -> None:
        """Record the bottleneck; after a pause the speed is measured from the start."""
        provider = self._provider(pace.provider)
        if provider.pace is not None and provider.pace.bottleneck == "paused" != pace.bottleneck:
            provider.rate = ImageRate()
        provider.pace = pace

    def _job(self, name: str) -> _JobNews:
        if name not in self._names:
            self._names[name] = None
        self._has_unknown_job |= name not in self._summaries
        return self._jobs.setdefault(name, _JobNews())

    def _provider(self, name: str) -> _ProviderNews:
        return self._providers.setdefault(name, _ProviderNews())

    def has_unknown_job(self) -> bool:
        """Whether an event was about a job that the last reading of the ledger does not have."""
        return self._has_unknown_job

    def about_to_read(self) -> None:
        """Restart counting: what happens from now on is not in the reading that follows."""
        with self._lock:
            self._jobs, self._has_unknown_job = {}, False

    def read(self, summaries: Sequence[JobSummary]) -> None:
        """Take over a reading of the ledger."""
        with self._lock:
            self._summaries = {summary.name: summary for summary in summaries}
            self._served_by.update((summary.name, summary.provider) for summary in summaries)
            self._in_batches = {summary.name for summary in summaries if summary.out.batches}

    def view(self, now: float) -> View:
        """Return how far everything is."""
        with self._lock:
            summaries = [summary for summary in self._summaries.values() if summary.name in self._names]
            jobs = [_job_view(summary, self._jobs.get(summary.name, _JobNews())) for summary in summaries]
            for batch in (batch for job in jobs for batch in job.batches):
                self._provider(batch.provider)
            providers = [
                self._provider_view(name, news, out_at(name, jobs), now) for name, news in self._providers.items()
            ]
            starts, speeds = {}, {}
            for provider in providers:
                measured = self._providers[provider.name].rate.per_minute(now, _ESTIMATE_SECONDS, _LEAST_IMAGES)
                speed = speed_of(provider.limit, measured, provider.bottleneck)
                if speed is not None and provider.down_since is None:
                    starts[provider.name], speeds[provider.name] = max(now, provider.until or now), speed
        at_work = {name for job in jobs if job.left for name in job.members or (job.provider,)}
        shown = [provider for provider in providers if provider.in_flight or provider.name in at_work] or providers
        found = with_ends(jobs, starts, speeds, self._windows)
        return View(now, found, shown, self._stopping, thumbnails=self._thumbnails)

    def _provider_view(self, name: str, news: _ProviderNews, out: BatchesOut, now: float) -> ProviderView:
        view = ProviderView(
            name=name,
            per_minute=news.rate.per_minute(now, _SHOWN_SECONDS),
            limit=None,
            in_flight=news.in_flight,
            down_since=news.down_since,
            given_up_at=news.given_up_at,
            pauses=news.pauses,
            outages=news.outages,
            out=out,
            bottleneck="batch" if out.batches and not news.in_flight else "",
        )
        pace = news.pace
        if pace is None:
            return view
        limit = RateLimit(pace.images, pace.per_seconds).per_minute if pace.images and pace.per_seconds else None
        bottleneck = pace.bottleneck or view.bottleneck
        return replace(view, limit=limit, bottleneck=bottleneck, until=pace.until, expires_at=pace.expires_at)


def _job_view(summary: JobSummary, news: _JobNews) -> JobView:
    """Return a reading of the ledger plus what has happened since, but never more than was left to do."""
    ended = min(summary.unfinished, news.done + news.failed)
    failed = min(news.failed, ended)
    missing = max(0, summary.missing - news.images)
    expected = summary.expected_usd
    if expected is not None and summary.missing:
        expected *= missing / summary.missing
    left = summary.unfinished - ended
    cost = summary.cost_usd if not news.cost_usd else (summary.cost_usd or 0.0) + news.cost_usd
    return JobView(
        name=summary.name,
        provider=summary.provider,
        members=summary.members,
        done=summary.counts["succeeded"] + ended - failed,
        failed=summary.unsuccessful + failed,
        left=left,
        missing=max(0, missing - summary.in_batches.images) if left else 0,
        cost_usd=cost,
        expected_usd=expected,
        rehearsal=summary.rehearsal,
        batches=summary.living,
        by_batch=summary.mode == "batch",
    )

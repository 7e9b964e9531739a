"""Views → lines of text, said where something has changed: for a log file, cron's mail, or a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.progress.view import SEPARATOR, clock, end_facts, job_facts, provider_facts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.progress.view import JobView, ProviderView, View

MOST_JOBS = 5
"""Jobs that get a line of their own; with more, those that are at work, and a line for all."""


def view_lines(view: View) -> Iterator[str]:
    """Say everything, as it is now."""
    for _, _, line in _lines(view):
        yield line


class ChangedLines:
    """Says of one view after another what is new in it."""

    def __init__(self) -> None:
        self._said: dict[str, object] = {}

    def of(self, view: View) -> Iterator[str]:
        """Give the lines whose facts have changed since they were last given."""
        moment = clock(view.now, view.now, seconds=True)
        for name, facts, line in _lines(view):
            if self._said.get(name) != facts:
                self._said[name] = facts
                yield f"{moment} {line}"


def _lines(view: View) -> Iterator[tuple[str, object, str]]:
    """Give for each line whose it is, what makes it news, and its words. Times and speeds alone are none."""
    jobs = view.jobs
    if len(jobs) > MOST_JOBS:
        yield _job_line("all", view.total, view.now)
        jobs = [job for job in jobs if job.left][:MOST_JOBS]
    for job in jobs:
        yield _job_line(f"job {job.name}", job, view.now)
    for provider in view.providers:
        yield _provider_line(provider, view)


def _job_line(whose: str, job: JobView, now: float) -> tuple[str, object, str]:
    facts = SEPARATOR.join([*job_facts(job), *end_facts(job, now)])
    return whose, (job.done, job.failed, job.left, job.missing), f"{job.name}: {facts}"


def _provider_line(provider: ProviderView, view: View) -> tuple[str, object, str]:
    facts = provider_facts(provider, view.now)
    if view.stopping:
        facts.append("stopping")
    news = (provider.in_flight, provider.limit, provider.bottleneck, provider.until, provider.away_since, view.stopping)
    return f"provider {provider.name}", news, f"{provider.name}: {SEPARATOR.join(facts)}"

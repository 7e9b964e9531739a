"""Writes a view as lines of text, each only when it has changed: for a log file, cron's mail, or a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.progress.view import SEPARATOR, end_facts, job_facts, provider_facts
from pipeline.reports.facts import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.progress.view import JobView, ProviderView, View

MOST_JOBS = 5
"""Jobs that get a line of their own; with more, only those with something left, and a line for all."""


def view_lines(view: View) -> Iterator[str]:
    """Yield every line of a view."""
    yield from view.notes
    for _, _, line in _lines(view):
        yield line


class ChangedLines:
    """Compares one view after another with what was written before."""

    def __init__(self) -> None:
        self._written: dict[str, object] = {}

    def of(self, view: View) -> Iterator[str]:
        """Yield the lines whose facts have changed since they were last yielded."""
        moment = clock(view.now, view.now, seconds=True)
        for name, facts, line in _lines(view):
            if self._written.get(name) != facts:
                self._written[name] = facts
                yield f"{moment} {line}"


def _lines(view: View) -> Iterator[tuple[str, object, str]]:
    """Yield each line as (whose, what makes it a change, text). Times and speeds alone are no change."""
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
    return whose, (job.done, job.failed, job.left, job.missing, job.out), f"{job.name}: {facts}"


def _provider_line(provider: ProviderView, view: View) -> tuple[str, object, str]:
    facts = provider_facts(provider, view.now)
    if view.stopping:
        facts.append("stopping")
    news = (provider.in_flight, provider.limit, provider.bottleneck, provider.until, provider.down_since, view.stopping)
    return f"provider {provider.name}", news, f"{provider.name}: {SEPARATOR.join(facts)}"

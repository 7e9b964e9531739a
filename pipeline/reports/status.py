"""Reads how each job stands from the ledger, and writes it for people and as JSON: `pipeline status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import ledger
from pipeline.ledger.job_summary import JobSummary, read_job_summaries
from pipeline.ledger.submit import known_names
from pipeline.reports.facts import count_facts, counted, expected_facts, spent_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.reports.facts import Fact

NOTHING_SUBMITTED = "nothing has been submitted yet; start with `pipeline run JOB.yaml`"


def read_status(folder: Path, job: str | None) -> list[JobSummary]:
    """Return how a job stands, or all. Raises BadInput for an unknown one, and LedgerError."""
    with ledger.reading(folder, job) as connection:
        return read_job_summaries(connection, None if job is None else known_names(connection, [job]))


def status_json(summaries: Sequence[JobSummary]) -> dict[str, Any]:
    """Return the status as `status --json` shows it."""
    return {
        "jobs": [
            {
                "name": summary.name,
                "provider": summary.provider,
                "counts": dict(summary.counts),
                "images": summary.images,
                "cost_usd": None if summary.cost_usd is None else round(summary.cost_usd, 6),
                "expected_usd": None if summary.expected_usd is None else round(summary.expected_usd, 6),
                "maybe_paid": summary.maybe_paid,
                "paid_waiting": summary.paid_waiting,
                "rehearsal": summary.rehearsal,
            }
            for summary in summaries
        ]
    }


def status_lines(summaries: Sequence[JobSummary], providers: Mapping[str, Provider]) -> Iterator[str]:
    """Yield the status for people, three lines per job."""
    if not summaries:
        yield NOTHING_SUBMITTED
    for summary in summaries:
        yield f"{summary.name} ({summary.provider})"
        yield f"  {_joined(count_facts(summary)) or 'no requests'}"
        money = [*spent_facts(summary), *expected_facts(summary)]
        yield f"  {_joined([counted(summary.images, 'image'), *money, *_to_come(summary, providers)])}"


def _joined(facts: Iterable[Fact | str]) -> str:
    return " · ".join(map(str, facts))


def _to_come(summary: JobSummary, providers: Mapping[str, Provider]) -> list[str]:
    provider = providers.get(summary.provider)
    if not summary.missing or provider is None or provider.rate_limit is None:
        return []
    minutes = summary.missing / provider.rate_limit.per_minute
    return [f"{summary.missing:,} to come, {minutes:.1f} minutes at the limit"]

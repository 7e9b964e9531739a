"""The ledger → how far each job is, for `status`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadInput
from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.ledger.job_summary import JobSummary, read_job_summaries
from pipeline.ledger.submit import known_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider


def read_status(folder: Path, job: str | None) -> list[JobSummary]:
    """Read the standing of a job, or of all. Raises BadInput for an unknown one."""
    connection = open_for_reading(folder)
    if connection is None:
        if job is not None:
            raise BadInput(f"there is no job `{job}`; nothing has been submitted to {folder} yet")
        return []
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        return read_job_summaries(connection, None if job is None else known_names(connection, [job]))


def status_json(summaries: Sequence[JobSummary]) -> dict[str, Any]:
    """Give the standing as `status --json` shows it."""
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
                "rehearsal": summary.rehearsal,
            }
            for summary in summaries
        ]
    }


def status_lines(summaries: Sequence[JobSummary], providers: Mapping[str, Provider]) -> Iterator[str]:
    """Write the standing for people, a few lines a job."""
    if not summaries:
        yield "nothing has been submitted yet; `pipeline run JOB.yaml` begins"
    for summary in summaries:
        counts = " · ".join(f"{number} {status}" for status, number in summary.counts.items() if number)
        yield f"{summary.name} ({summary.provider})"
        yield f"  {counts or 'no requests'}"
        yield f"  {summary.images} images{_cost(summary)}{_left(summary, providers)}"


def _cost(summary: JobSummary) -> str:
    rehearsal = " in rehearsal" if summary.rehearsal else ""
    cost = "" if summary.cost_usd is None else f" · ${summary.cost_usd:.4f} spent{rehearsal}"
    if summary.missing:
        cost += (
            " · cost to come unknown" if summary.expected_usd is None else f" · ${summary.expected_usd:.4f} expected"
        )
    return cost + (f" · {summary.maybe_paid} calls may have been paid besides" if summary.maybe_paid else "")


def _left(summary: JobSummary, providers: Mapping[str, Provider]) -> str:
    provider = providers.get(summary.provider)
    if not summary.missing or provider is None or provider.rate_limit is None:
        return ""
    minutes = summary.missing / provider.rate_limit.images * provider.rate_limit.per_seconds / 60
    return f" · {summary.missing} to come, {minutes:.1f} minutes at the limit"

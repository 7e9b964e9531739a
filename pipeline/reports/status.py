"""The ledger → how far each job is, for `status`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadInput
from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.ledger.job_summary import Account, read_accounts
from pipeline.ledger.submit import known_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pipeline.config.load import Provider


def read_standing(folder: Path, job: str | None) -> list[Account]:
    """Read the standing of a job, or of all. Raises BadInput for an unknown one."""
    connection = open_for_reading(folder)
    if connection is None:
        if job is not None:
            raise BadInput(f"there is no job `{job}`; nothing has been submitted to {folder} yet")
        return []
    with contextlib.closing(connection), named_errors(folder / FILE_NAME):
        return read_accounts(connection, None if job is None else known_names(connection, [job]))


def standing_json(accounts: Sequence[Account]) -> dict[str, Any]:
    """Give the standing as `status --json` shows it."""
    return {
        "jobs": [
            {
                "name": account.name,
                "provider": account.provider,
                "counts": dict(account.counts),
                "images": account.images,
                "cost_usd": None if account.cost_usd is None else round(account.cost_usd, 6),
                "expected_usd": None if account.expected_usd is None else round(account.expected_usd, 6),
                "maybe_paid": account.maybe_paid,
                "rehearsal": account.rehearsal,
            }
            for account in accounts
        ]
    }


def standing_lines(accounts: Sequence[Account], providers: Mapping[str, Provider]) -> Iterator[str]:
    """Write the standing for people, a few lines a job."""
    if not accounts:
        yield "nothing has been submitted yet; `pipeline run JOB.yaml` begins"
    for account in accounts:
        counts = " · ".join(f"{number} {status}" for status, number in account.counts.items() if number)
        yield f"{account.name} ({account.provider})"
        yield f"  {counts or 'no requests'}"
        yield f"  {account.images} images{_cost(account)}{_left(account, providers)}"


def _cost(account: Account) -> str:
    rehearsal = " in rehearsal" if account.rehearsal else ""
    cost = "" if account.cost_usd is None else f" · ${account.cost_usd:.4f} spent{rehearsal}"
    if account.missing:
        cost += (
            " · cost to come unknown" if account.expected_usd is None else f" · ${account.expected_usd:.4f} expected"
        )
    return cost + (f" · {account.maybe_paid} calls may have been paid besides" if account.maybe_paid else "")


def _left(account: Account, providers: Mapping[str, Provider]) -> str:
    provider = providers.get(account.provider)
    if not account.missing or provider is None or provider.rate_limit is None:
        return ""
    minutes = account.missing / provider.rate_limit.images * provider.rate_limit.per_seconds / 60
    return f" · {account.missing} to come, {minutes:.1f} minutes at the limit"

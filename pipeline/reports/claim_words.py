"""Writes which requests leave a job by a plan, as a warning, and which are changed or replaced, as a note."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.reports.facts import counted, dollars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.ledger.job_name_claim import Claim


def claim_words(claim: Claim, costs: Mapping[str, float | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the warnings and the notes; `costs` are those of what is to be made, by key.

    That requests leave the job is a note if as many enter it.
    """
    leaving = claim.leaving - claim.edited
    left = f"{counted(leaving, 'request')} {'leaves' if leaving == 1 else 'leave'} the job: no longer made; "
    superseded = (f"{left}images that are here stay",) if leaving else ()
    changed = (_changed_words(claim, costs),) if claim.remade else ()
    return ((), (*changed, *superseded)) if claim.has_replacements else (superseded, changed)


def _changed_words(claim: Claim, costs: Mapping[str, float | None]) -> str:
    count = len(claim.remade)
    usd = [costs.get(request.key) for request in claim.remade]
    known = [cost for cost in usd if cost is not None]
    money = f" ({dollars(sum(known))})" if len(known) == count else ""
    return (
        f"{counted(count, 'request')} {'is' if count == 1 else 'are'} changed: made again{money}, the old images stay"
    )

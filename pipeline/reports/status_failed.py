"""Writes the requests that failed or came back partial, one by one: `pipeline status --failed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ledger.error_kind import kind_of
from pipeline.reports.manifest import shown_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.ledger.request_history import FailedRequest
    from pipeline.reports.forms import FailedForm
    from pipeline.reports.next_command import NextCommand


def failed_lines(failed: Sequence[FailedRequest], command: NextCommand) -> Iterator[str]:
    """Yield a line for each request that failed, then the commands that say more and that try them again."""
    for request in failed:
        error = request.error or {}
        came = f"{request.received:,} of {request.n:,} images" if request.status == "partial" else "no image"
        reason = " ".join(str(part) for part in (error.get("http_status"), error.get("message")) if part)
        yield f"{request.job} {request.id}: {request.status}, {came}, {kind_of(error)}{f': {reason}' if reason else ''}"
    if failed:
        first = failed[0]
        yield f"everything about one of them: {command.line('show', first.job, first.id)}"


def failed_json(failed: FailedRequest) -> FailedForm:
    """Return a failed request as `status --failed --json` shows it."""
    return {
        "job": failed.job,
        "id": failed.id,
        "status": failed.status,
        "images": failed.received,
        "n": failed.n,
        "attempts": failed.attempts,
        "error": None if failed.error is None else shown_error(failed.error),
    }

"""Verdicts on batches that the service refuses or fails: what its words mean for their requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.client.classify import error_class
from pipeline.client.error_body import ErrorBody
from pipeline.engine.batches.creation import cannot_find_file
from pipeline.errors import BatchRefused, Invalid, KeyRefused, ModelUnknown, QuotaSpent, RateLimited, WrongAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.client.batch_objects import BatchError
    from pipeline.errors import RequestError, Stop

Fate = Literal["wait for room", "check file", "fail lines", "upload anew", "stop", "refuse", "again"]
"""What follows: the batch waits for room in the service's queue; its file is looked for; the lines named fail alone;
files that the service has lost are uploaded anew; a stop; no batch of its group is taken; or the batch is sent once
more.
"""

_NO_ROOM = "token_limit_exceeded"
_LIMIT = re.compile(r"limit:?\s*([\d,]+)\s*enqueued", re.IGNORECASE)
_NOT_SUPPORTED = re.compile(r"not supported by the batch api", re.IGNORECASE)
_MOST_ERRORS = 5


@dataclass(frozen=True, slots=True)
class BatchFailure:
    """What follows from the failure of a batch, and the error that is the reason."""

    fate: Fate
    error: RequestError
    lines: tuple[tuple[int, Invalid], ...] = ()  # numbers from 1, as the service counts


def classify_errors(errors: Sequence[BatchError]) -> BatchFailure:
    """Return what follows from the errors of a batch that failed validation."""
    reasons = (
        "; ".join(dict.fromkeys(str(error.message or error.code) for error in errors[:_MOST_ERRORS]))
        or "without a reason"
    )
    message = f"the service failed a batch: {reasons}"
    code = errors[0].code if errors else None
    if any(error.code == _NO_ROOM for error in errors):
        return BatchFailure("wait for room", Invalid(message, code=_NO_ROOM))
    for error in errors:
        if error.code == "model_not_found" or _NOT_SUPPORTED.search(error.message or ""):
            return BatchFailure("refuse", ModelUnknown(message, code=error.code, param=error.param))
        if stop := _stop_of(error, message):
            return BatchFailure("stop", stop)
    if any(cannot_find_file(error.message or "") for error in errors):
        return BatchFailure("check file", BatchRefused(message, code=code))
    lines = [
        (error.line, error) for error in errors if error.line is not None and (error.param or "").startswith("body.")
    ]
    if lines:
        bad = ((line, Invalid(error.message or message, code=error.code, param=error.param)) for line, error in lines)
        return BatchFailure("fail lines", BatchRefused(message, code=code), tuple(bad))
    return BatchFailure("again", BatchRefused(message, code=code))


def classify_refusal(error: RequestError, provider: str) -> BatchFailure:
    """Return what follows from a create that the service refuses at once."""
    if error.code == _NO_ROOM or _LIMIT.search(error.message):
        return BatchFailure("wait for room", error)
    if isinstance(error, RateLimited):
        return BatchFailure("wait for room", error)
    if isinstance(error, WrongAddress):
        return BatchFailure("refuse", refusal(provider, error))
    if isinstance(error, ModelUnknown) or _NOT_SUPPORTED.search(error.message):
        return BatchFailure("refuse", error)
    if not isinstance(error, Invalid):
        return BatchFailure("stop", error)
    return BatchFailure("again", BatchRefused(f"the service refuses a batch: {error.message}", code=error.code))


def refusal(provider: str, error: RequestError) -> BatchRefused:
    """Return the error of a provider that does not serve the Files API or the Batch API, or refuses a file."""
    lacks = isinstance(error, WrongAddress)
    what = f"`{provider}` {'seems to have no Batch API' if lacks else 'refuses the files of batches'}: {error.message}"
    return BatchRefused(what, http_status=error.http_status, code=error.code)


def stated_limit(message: str) -> int | None:
    """Return the limit of enqueued tokens that a message states."""
    found = _LIMIT.search(message)
    return int(found[1].replace(",", "")[:15]) if found else None


def _stop_of(error: BatchError, message: str) -> Stop | None:
    """Return the stop that an error of money or of the key means, whatever batch it is about."""
    body = ErrorBody(message=error.message or "", type=None, code=error.code, param=error.param)
    kind = error_class(400, body, {})
    return kind(message, code=error.code) if issubclass(kind, QuotaSpent | KeyRefused) else None

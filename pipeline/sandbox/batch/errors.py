"""Build the API errors of files and batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.sandbox.api_errors import ORGANIZATION, ApiError, duration

if TYPE_CHECKING:
    from pipeline.sandbox.rate_window import RateLimit


def wrong_extension() -> ApiError:
    """400: the name of a batch's input does not end in `.jsonl` (litellm PR 37527)."""
    return ApiError("Invalid file format for Batch API. Must be .jsonl")


def file_too_large() -> ApiError:
    """400: the file is above the limit of its purpose (curator #111)."""
    return ApiError("File is too large.")


def no_such_file(file_id: str) -> ApiError:
    """404: there is no file with this id, or no longer."""
    return ApiError(f"No such File object: {file_id[:100]}", status=404, param="id")


def not_downloadable(purpose: str) -> ApiError:
    """400: files of this purpose may not be downloaded."""
    return ApiError(f"Not allowed to download files of purpose: {purpose}")


def cannot_find_file(file_id: str) -> ApiError:
    """400: a batch was asked for a file that is not there, or not visible yet (curator #116)."""
    message = f"Cannot find file {file_id[:100]}, or project proj-sandbox does not have access to it."
    return ApiError(message, param="file_id")


def spend_cap_message(file_id: str) -> str:
    """Return the sentence that a monthly spend cap hides behind (warmbly PR 240)."""
    return f"Cannot find file {file_id}, or organization {ORGANIZATION} does not have access to it."


def not_a_batch_file(purpose: str) -> ApiError:
    """400: the input of a batch has another purpose."""
    message = f"Invalid 'input_file_id': expected a file with purpose 'batch', but got '{purpose}' instead."
    return ApiError(message, param="input_file_id", code="invalid_value")


def no_such_batch(batch_id: str) -> ApiError:
    """404: there is no batch with this id."""
    return ApiError(f"No batch found with id '{batch_id[:100]}'.", status=404)


def cannot_cancel(status: str) -> ApiError:
    """409: the batch has ended, or is about to."""
    return ApiError(f"Cannot cancel a batch with status '{status}'.", status=409)


def too_many(what: str, limit: RateLimit, wait: float) -> ApiError:
    """429 that is retryable after `wait` seconds: more uploads or batches than an organization may create."""
    message = (
        f"Rate limit reached in organization {ORGANIZATION} on {what}: Limit {limit.images} in "
        f"{duration(limit.per_seconds)}. Please try again in {duration(wait)}."
    )
    headers = {"Retry-After": str(math.ceil(wait))}
    return ApiError(message, status=429, kind="requests", code="rate_limit_exceeded", headers=headers)

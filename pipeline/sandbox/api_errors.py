"""Build API errors with the service's statuses, codes and messages.

The envelope is `{"error": {"message", "type", "param", "code"}}`, all four always there (schema Error of OpenAI's
description). People and programs match the messages, so they are the service's own wherever a report quotes them.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.sandbox.rate_window import RateLimit

ORGANIZATION = "org-sandbox"
JSON_TYPE = "application/json"
Meter: TypeAlias = Literal["images", "input-images"]


class ApiError(Exception):
    """An error response: the status, the four fields of the envelope, and the headers."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.error = {"message": message, "type": kind, "param": param, "code": code, **(details or {})}

    def body(self) -> bytes:
        """Return the envelope as JSON; bytes that are not UTF-8 are replaced."""
        return json.dumps({"error": self.error}, ensure_ascii=False).encode("utf-8", "replace")


class BareError(ApiError):
    """An error whose body is `{"code", "message"}`, with the status as its code."""

    def body(self) -> bytes:
        """Return the body as JSON."""
        return json.dumps({"code": self.status, "message": self.error["message"]}).encode("utf-8", "replace")


def missing_key() -> ApiError:
    """401: there is no Authorization header, or nothing in it."""
    return ApiError(
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY).",
        status=401,
    )


def incorrect_key(key: str) -> ApiError:
    """401: the key is refused; the message shows no more of it than the service does."""
    return ApiError(
        f"Incorrect API key provided: {key[:4]}****. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        status=401,
        code="invalid_api_key",
    )


def missing_scope(scope: str) -> ApiError:
    """403: the key is valid, and not for this; such as a project's key at the admin API."""
    return ApiError(f"You have insufficient permissions for this operation. Missing scopes: {scope}.", status=403)


def project_not_found(project: str) -> ApiError:
    """404 of the admin API, whose documented body has no envelope around it."""
    return BareError(f"The project {project[:200]} was not found", status=404)


def rate_limit_not_found(after: str) -> ApiError:
    """400: the list of a project's rate limits has no such row."""
    return ApiError(f"No rate limit found with id '{after[:200]}'.", code="rate_limit_does_not_exist", param="after")


def spend_limit_not_found() -> ApiError:
    """404: no spend limit is set."""
    return ApiError("No spend limit is set.", status=404, code="spend_limit_not_found")


def invalid_url(method: str, path: str) -> ApiError:
    """404: no such path."""
    return ApiError(f"Invalid URL ({method} {path[:200]})", status=404, code="unknown_url")


def not_http(why: str) -> ApiError:
    """400: the bytes are not an HTTP request."""
    return ApiError(f"Could not parse the HTTP request: {why[:200]}.")


def too_slow(seconds: float) -> ApiError:
    """408: the rest of the body did not arrive in time."""
    return ApiError(f"Timed out: no byte of the body came for {seconds:g} seconds.", status=408, code="request_timeout")


def wrong_method(method: str, path: str, allowed: Iterable[str]) -> ApiError:
    """405: the path exists for another method."""
    message = f"Not allowed to {method} on {path}."
    return ApiError(message, status=405, code="method_not_supported", headers={"Allow": ", ".join(allowed)})


def wrong_content_type(got: str, expected: str) -> ApiError:
    """400: the endpoint does not accept this content type."""
    return ApiError(
        f"Invalid Content-Type header ({got}), expected {expected}. "
        f"(HINT: If you're using curl, you can pass -H 'Content-Type: {expected}')",
    )


def unreadable_json() -> ApiError:
    """400: the body is not a JSON object."""
    return ApiError(
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
        "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
    )


def unreadable_form(why: str) -> ApiError:
    """400: the body is not multipart/form-data as it claims to be."""
    return ApiError(f"Could not parse multipart form: {why}.")


def too_large(what: str, limit: int) -> ApiError:
    """413: more bytes than any limit allows, so the rest is not read."""
    return ApiError(f"Maximum content size limit ({limit}) exceeded by {what}.", status=413, code="content_too_large")


def key_of_another_call(key: str) -> ApiError:
    """422: an idempotency key came with another body than before."""
    message = f"The idempotency key '{key[:80]}' was used for another request. Use a new key for each request."
    return ApiError(message, status=422, kind="idempotency_error", code="idempotency_key_reused")


def missing_parameter(name: str) -> ApiError:
    """400: a required parameter is missing."""
    sentence = "You must provide a prompt." if name == "prompt" else f"Missing required parameter: '{name}'."
    return ApiError(sentence, code="missing_required_parameter", param=name)


def unknown_parameter(name: str) -> ApiError:
    """400: this model has no such parameter on this endpoint."""
    return ApiError(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def duplicate_parameter(name: str) -> ApiError:
    """400: a parameter with one value was given several times."""
    return ApiError(
        f"Duplicate parameter: '{name}'. You provided multiple values for this parameter, whereas only one is allowed.",
        code="duplicate_parameter",
        param=name,
    )


def invalid_type(name: str, expected: str, got: str) -> ApiError:
    """400: the value is of another JSON type."""
    sentence = f"Invalid type for '{name}': expected {expected}, but got {got} instead."
    return ApiError(sentence, code="invalid_type", param=name)


def invalid_value(name: str, got: str, supported: Iterable[str]) -> ApiError:
    """400: the value is not one of those that this model accepts."""
    values = [f"'{value}'" for value in supported]
    if not values:  # every model of the endpoint is shut down
        return ApiError(f"Invalid value: '{got}'.", code="invalid_value", param=name)
    words = f"{', '.join(values[:-1])}, and {values[-1]}" if len(values) > 1 else values[0]
    return ApiError(f"Invalid value: '{got}'. Supported values are: {words}.", code="invalid_value", param=name)


def unsupported(message: str, param: str, code: str = "invalid_value") -> ApiError:
    """400: the value is valid for other calls, not for this one."""
    return ApiError(message, code=code, param=param)


def model_not_found(model: str) -> ApiError:
    """404: no such model."""
    return ApiError(
        f"The model `{model}` does not exist or you do not have access to it.", status=404, code="model_not_found"
    )


def model_shut_down(model: str) -> ApiError:
    """404: a model whose shutdown date has come."""
    return ApiError(
        f"The model `{model}` has been deprecated, learn more here: https://platform.openai.com/docs/deprecations",
        status=404,
        code="model_not_found",
    )


def not_verified(model: str) -> ApiError:
    """403: GPT Image models are for verified organizations only; not retryable."""
    return ApiError(
        f"Your organization must be verified to use the model `{model}`. Please go to: "
        "https://platform.openai.com/settings/organization/general and click on Verify Organization. If you just "
        "verified, it can take up to 15 minutes for access to propagate.",
        status=403,
    )


def content_policy_violation() -> ApiError:
    """400: the content policy refuses a prompt, in the form of the dall-e family."""
    return ApiError(
        "Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed "
        "by our safety system.",
        code="content_policy_violation",
    )


def moderation_blocked() -> ApiError:
    """400: moderation refuses a prompt, in the form of GPT Image; `moderation_details` as in OpenAI's image guide."""
    return ApiError(
        "Your request was rejected by the safety system. If you believe this is an error, contact us at "
        "help.openai.com and include the request ID. safety_violations=[violence].",
        kind="image_generation_user_error",
        code="moderation_blocked",
        details={"moderation_details": {"moderation_stage": "input", "categories": ["violence"]}},
    )


def insufficient_quota() -> ApiError:
    """429 that is not retryable: the quota is spent."""
    return ApiError(
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        status=429,
        kind="insufficient_quota",
        code="insufficient_quota",
    )


def rate_limited(limit: RateLimit, *, used: int, asked: int, wait: float, meter: Meter) -> ApiError:
    """429 that is retryable after `wait` seconds. Edits have another message."""
    minute = limit.per_seconds == 60
    period = "1min" if minute else f"{limit.per_seconds:g}s"
    if meter == "images":
        sentence = (
            f"Rate limit exceeded for images per minute in organization {ORGANIZATION}. "
            f"Limit: {limit.images}/{period}. Current: {used + asked}/{period}. "
        )
    else:
        sentence = (
            f"Rate limit reached in organization {ORGANIZATION} on input-images per {'min' if minute else period}: "
            f"Limit {limit.images}, Used {used}, Requested {asked}. "
        )
    sentence += f"Please try again in {duration(wait)}. Visit https://platform.openai.com/account/rate-limits for more."
    return ApiError(
        sentence,
        status=429,
        kind="requests" if meter == "images" else "input-images",
        code="rate_limit_exceeded",
        headers={
            "Retry-After": str(math.ceil(wait)),
            "retry-after-ms": str(math.ceil(wait * 1000)),
            "x-ratelimit-limit-images": str(limit.images),
            "x-ratelimit-remaining-images": str(max(0, limit.images - used)),
            "x-ratelimit-reset-images": duration(wait),
        },
    )


def server_error() -> ApiError:
    """500: an internal error of the service."""
    return ApiError(
        "The server had an error while processing your request. Sorry about that! You can retry your request, or "
        "contact us through our help center at help.openai.com if the error persists.",
        status=500,
        kind="server_error",
    )


def overloaded(retry_after: int | None) -> ApiError:
    """503: no capacity at the moment; `retry_after` in seconds, or None if the header is not sent."""
    return ApiError(
        "The server is currently overloaded with other requests. Sorry about that! Please try again later.",
        status=503,
        kind="service_unavailable_error",
        code="server_is_overloaded",
        headers={} if retry_after is None else {"Retry-After": str(retry_after)},
    )


def busy() -> ApiError:
    """429: as many calls as are served at once are in progress; nothing is said of when to try again."""
    return ApiError(
        "Too many concurrent requests. Please try again later.",
        status=429,
        kind="requests",
        code="too_many_concurrent_requests",
    )


def duration(seconds: float) -> str:
    """Return seconds as the service writes them, rounded up: `120ms`, `1.2s`, `6m0s`, `1h0m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    longer = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{longer}{rest / 1000:g}s"

"""The table of errors: what the service and the servers like it are known to send, and which class of error it is.

A line has what is sent (status, type, code, message) and the class for three degrees of knowledge: `error_class` if
type and code arrive, `by_message` if only the message does, `by_status` if nothing but the status does. The lines are
those of the service's error guide and of what compatible servers document, not of the code under test. The tests of
the classifier read every line in every form of body; the tests of whole runs meet the lines in a server's responses.
"""

from __future__ import annotations

import contextlib
import gzip
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import (
    Invalid,
    KeyRefused,
    ModelUnknown,
    Moderated,
    OutcomeUnknown,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    WrongAddress,
    WrongPath,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ErrorClass = type[RequestError]


@dataclass(frozen=True)
class Line:
    status: int
    type: str | None
    code: str | None
    message: str
    error_class: ErrorClass
    by_message: ErrorClass
    by_status: ErrorClass

    def __str__(self) -> str:
        return f"{self.status} {self.code or self.type}"


def always(status: int, kind: str | None, code: str | None, message: str, error_class: ErrorClass) -> Line:
    """Return a line whose status decides alone."""
    return Line(status, kind, code, message, error_class, error_class, error_class)


REQUEST = "invalid_request_error"
TABLE = [
    # 400: the request is wrong, and stays so
    always(400, REQUEST, "unknown_parameter", "Unknown parameter: 'response_format'.", Invalid),
    always(400, REQUEST, "invalid_value", "Invalid value: 'huge'. Supported values are: 'low' and 'high'.", Invalid),
    always(400, REQUEST, "invalid_image", "Uploaded image must be a PNG and less than 4 MB.", Invalid),
    always(400, REQUEST, "invalid_size", "'1000x1000' is not divisible by 16.", Invalid),
    always(400, REQUEST, "missing_file_mimetype", "unsupported mimetype ('application/octet-stream')", Invalid),
    always(400, REQUEST, None, "Bad request.", Invalid),
    # 400: the policy refuses; never again, though the message of the first says that a retry may succeed
    Line(
        400,
        REQUEST,
        "content_policy_violation",
        "Your request was rejected. You may retry.",
        Moderated,
        Invalid,
        Invalid,
    ),
    Line(
        400,
        "image_generation_user_error",
        "moderation_blocked",
        "Your request was rejected by the safety system. safety_violations=[sexual].",
        *(Moderated, Moderated, Invalid),
    ),
    Line(
        400, None, "contentFilter", "Your task failed as a result of our safety system.", Moderated, Moderated, Invalid
    ),
    Line(400, None, "content_filter", "The response was filtered.", Moderated, Invalid, Invalid),
    Line(400, REQUEST, "contentFilter", "The task was filtered.", Moderated, Invalid, Invalid),
    # 400: money, though it is no 402 and no 429
    Line(
        *(400, REQUEST, "billing_hard_limit_reached", "Billing hard limit has been reached", QuotaSpent),
        *(QuotaSpent, Invalid),
    ),
    # 400: a model that has been shut down, as forum texts expect it
    Line(400, REQUEST, "model_not_found", "Dead models do not draw.", ModelUnknown, Invalid, Invalid),
    # 400: what gateways make of the above
    Line(
        *(400, None, "400"),
        "litellm.BadRequestError: Your request was rejected as a result of our safety system. Your prompt may contain",
        *(Moderated, Moderated, Invalid),
    ),
    Line(
        *(400, None, "400"),
        "400: {'error': '/image/generations: Invalid model name passed in model=no-such-model. Call `/v1/models`'}",
        *(ModelUnknown, ModelUnknown, Invalid),
    ),
    Line(400, "no_db_connection", "400", "No connected db.", KeyRefused, KeyRefused, Invalid),
    # 401, 402, 403: a person must act
    always(401, REQUEST, "invalid_api_key", "Incorrect API key provided: sk-a***z.", KeyRefused),
    always(401, REQUEST, None, "You must be a member of an organization to use the API", KeyRefused),
    always(401, REQUEST, None, "Your IP is not allowed.", KeyRefused),
    always(401, None, None, "Unauthorized", KeyRefused),
    always(402, None, None, "Payment required", QuotaSpent),
    always(402, None, "insufficient_balance", "Insufficient balance", QuotaSpent),
    always(
        403, None, "unsupported_country_region_territory", "Country, region, or territory not supported", KeyRefused
    ),
    always(403, REQUEST, None, "Your organization must be verified to use the model `gpt-image-2`.", KeyRefused),
    always(403, None, None, "Your resource has been temporarily blocked because we detected behavior", KeyRefused),
    Line(403, None, "insufficient_user_quota", "user quota is not enough", QuotaSpent, QuotaSpent, KeyRefused),
    Line(403, REQUEST, "insufficient_quota", "quota is not enough", QuotaSpent, QuotaSpent, KeyRefused),
    always(403, REQUEST, "unsupported_country_region_territory", "Country not supported", KeyRefused),
    # 404: the model, or the path
    Line(404, REQUEST, "model_not_found", "The model `x` does not exist.", ModelUnknown, ModelUnknown, WrongPath),
    Line(404, None, "DeploymentNotFound", "The API deployment is not here.", ModelUnknown, WrongPath, WrongPath),
    always(404, REQUEST, None, "Invalid URL (POST /v1/v1/images/generations)", WrongPath),
    always(404, None, None, "no such page", WrongPath),
    always(405, REQUEST, None, "Method Not Allowed", Invalid),
    always(405, None, None, "Method Not Allowed", Invalid),
    # 408, 409, 425: the moment was wrong
    always(408, None, None, "Request timed out.", ServerFault),
    always(409, None, None, "Conflict: the request was cancelled.", ServerFault),
    always(425, None, None, "Too early", ServerFault),
    # 408, 500: a gateway's, of a call that it had passed on, which may be paid
    Line(
        *(408, None, "408"),
        "litellm.Timeout: APITimeoutError - Request timed out. Error_str: Request timed out.",
        *(OutcomeUnknown, OutcomeUnknown, ServerFault),
    ),
    Line(
        *(408, "timeout_error", None),
        "Request exceeded the timeout sent in the request: 500ms",
        *(OutcomeUnknown, OutcomeUnknown, ServerFault),
    ),
    Line(
        *(500, None, "500"),
        "litellm.APIConnectionError: APIConnectionError: OpenAIException - Connection error..",
        *(OutcomeUnknown, OutcomeUnknown, ServerFault),
    ),
    # 413, 422 and what else is 4xx
    always(413, None, None, "Request Entity Too Large", Invalid),
    always(422, None, None, "Field required: image", Invalid),
    always(415, None, None, "Unsupported media type", Invalid),
    # 429: pace
    always(
        *(429, "requests", "rate_limit_exceeded"),
        "Rate limit reached for dall-e-3. Limit: 15/1min. Current: 16/1min",
        RateLimited,
    ),
    always(429, "tokens", "rate_limit_exceeded", "on tokens per min (TPM): Limit 250000, Used 249000.", RateLimited),
    always(
        *(429, "input-images", "rate_limit_exceeded"),
        "on input-images per min: Limit 4000, Used 4000, Requested 1. Please try again in 15ms",
        RateLimited,
    ),
    always(429, "requests", None, "Limit: 5/1min. Please try again after 51.84 seconds.", RateLimited),
    always(429, "rate_limit_error", "slow_down", "Your traffic rose too fast. Please slow down.", RateLimited),
    always(429, None, None, "Too many requests", RateLimited),
    always(
        *(429, None, "429"),
        "Requests have exceeded call rate limit. Please retry after 20 seconds. See https://aka.ms/oai/quotaincrease",
        RateLimited,
    ),
    # 429: money
    *(
        Line(429, "insufficient_quota", code, "Check your plan and billing.", QuotaSpent, RateLimited, RateLimited)
        for code in (
            *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
            *("project_spend_limit_exceeded", "organization_usage_limit_exceeded", None),
        )
    ),
    *(
        Line(429, REQUEST, code, "Spent.", QuotaSpent, RateLimited, RateLimited)
        for code in (
            *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
            *("project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
        )
    ),
    Line(
        *(429, "insufficient_quota", None),
        "You exceeded your current quota, please check your plan and billing details.",
        *(QuotaSpent, QuotaSpent, RateLimited),
    ),
    Line(429, None, "insufficient_quota", "Spent.", QuotaSpent, RateLimited, RateLimited),
    # 429: a limit of nothing, whatever it offers
    Line(
        *(429, "requests", "rate_limit_exceeded"),
        "Limit: 0/1min. Current: 1/1min. Please try again after 0.0 seconds.",
        *(QuotaSpent, QuotaSpent, RateLimited),
    ),
    # 5xx: refused and free, or lost behind a gateway and perhaps paid
    always(500, "server_error", None, "The server had an error while processing your request.", ServerFault),
    Line(500, REQUEST, "moderation_blocked", "The pictures were filtered.", Moderated, ServerFault, ServerFault),
    always(501, None, None, "This server does not edit.", Invalid),
    always(502, None, None, "Bad gateway", OutcomeUnknown),
    always(503, "service_unavailable_error", "server_is_overloaded", "Our servers are overloaded.", ServerFault),
    always(503, "rate_limit_error", "slow_down", "Slow down.", ServerFault),
    always(503, "new_api_error", "model_not_found", "no available channel for model x", ServerFault),
    always(504, None, None, "Gateway Time-out", OutcomeUnknown),
    *(always(status, None, None, f"Error {status}", OutcomeUnknown) for status in (*range(520, 525), 529)),
    # a redirect is not followed
    *(always(status, None, None, "Moved", WrongAddress) for status in (301, 304, 308)),
]


def inner(line: Line, **more: Any) -> dict[str, Any]:
    return {"message": line.message, "type": line.type, "param": None, "code": line.code, **more}


def bytes_of(body: Any, **how: Any) -> bytes:
    return json.dumps(body, **how).encode()


WHOLE: dict[str, Callable[[Line], bytes]] = {
    "vendor": lambda line: bytes_of({"error": inner(line)}),
    "pretty": lambda line: b"\n" + bytes_of({"error": inner(line)}, indent=4) + b"\r\n",
    "bom": lambda line: b"\xef\xbb\xbf" + bytes_of({"error": inner(line)}),
    "utf-16": lambda line: json.dumps({"error": inner(line)}).encode("utf-16"),
    "utf-16 without a mark": lambda line: json.dumps({"error": inner(line)}).encode("utf-16-le"),
    "a byte that is no UTF-8": lambda line: bytes_of({"error": inner(line, note="ä")}, ensure_ascii=False).replace(
        "ä".encode(), b"\xe4"
    ),
    "cut before its end": lambda line: bytes_of({"error": inner(line)})[:-2],
    "cut within its last field": lambda line: bytes_of({"error": inner(line, moderation_details={"stage": "in"})})[:-8],
    "flat": lambda line: bytes_of({"object": "error", **inner(line)}),
    "FastAPI's detail, an object": lambda line: bytes_of({"detail": inner(line)}),
    "FastAPI's detail, an envelope": lambda line: bytes_of({"detail": {"error": inner(line)}}),
    "Azure's, with an inner error": lambda line: bytes_of(
        {"error": inner(line, status=line.status, inner_error={"code": "Other", "content_filter_results": {}})}
    ),
}
BY_CODE: dict[str, Callable[[Line], bytes]] = {
    "new_api": lambda line: bytes_of({"error": {**inner(line), "type": "new_api_error", "param": ""}}),
    "shell_api": lambda line: bytes_of({"error": {**inner(line), "type": "shell_api_error"}, "created": 1}),
    "xAI": lambda line: bytes_of({"code": line.code, "error": line.message}),
    "capitals": lambda line: bytes_of({"error": {**inner(line), "type": None, "code": (line.code or "").upper()}}),
}
BY_MESSAGE: dict[str, Callable[[Line], bytes]] = {
    "FastAPI's detail, a sentence": lambda line: bytes_of({"detail": line.message}),
    "FastAPI's detail, a list": lambda line: bytes_of({"detail": [{"loc": ["body", "n"], "msg": line.message}]}),
    "a lone sentence": lambda line: bytes_of({"error": line.message}),
    "Google's": lambda line: bytes_of({"error": {"code": line.status, "message": line.message, "status": "SOME"}}),
    "Google's, in a list": lambda line: bytes_of([{"error": {"code": line.status, "message": line.message}}]),
    "Azure's gateway": lambda line: bytes_of({"statusCode": line.status, "message": line.message}),
    "cut behind its message": lambda line: bytes_of({"error": inner(line)}).partition(b', "type"')[0],
    "HTML": lambda line: f"<html><head><style>a{{}}</style></head><body><h1>{line.message}</h1></body></html>".encode(),
    "text": lambda line: line.message.encode(),
}
BY_STATUS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \r\n",
    "null": b"null",
    "an empty object": b"{}",
    "an empty list": b"[]",
    "cut at once": b'{"err',
    "HTML": b"<!DOCTYPE html><html><center>openresty</center></html>",
    "binary": bytes(range(256)),
    "broken gzip": gzip.compress(b'{"error": {}}')[:-9],
}


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Add to whatever fails inside what it failed for."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"for: {what}")
        raise

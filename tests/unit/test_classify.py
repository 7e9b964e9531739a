"""The table of fates: each error that the service and the servers like it are known to send, in every form of theirs.

A row says which status, type, code and message come, and the fate of the request for three degrees of knowledge: `fate`
where type and code arrive, `said` where only the message does, `bare` where nothing does but the status. The lines are
those of the service's error guide and of what compatible servers document, not of the code under test.
"""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from pipeline.client.classify import error_class
from pipeline.client.error_body import ErrorBody
from pipeline.client.response import HttpResponse, InlineImage, LinkedImage, read_response
from pipeline.errors import (
    Deferred,
    GiveUp,
    Invalid,
    KeyRefused,
    ModelUnknown,
    Moderated,
    OutcomeUnknown,
    PausedTooLong,
    QuotaSpent,
    RateLimited,
    RequestError,
    ServerFault,
    Stop,
    TryAgain,
    Unusable,
    WrongAddress,
    WrongPath,
)
from tests.unit.test_response import NOW, URL, read, refused

if TYPE_CHECKING:
    from collections.abc import Callable

Fate = type[RequestError]


@dataclass(frozen=True)
class Row:
    status: int
    type: str | None
    code: str | None
    message: str
    error_class: Fate
    said: Fate
    bare: Fate


def always(status: int, kind: str | None, code: str | None, message: str, error_class: Fate) -> Row:
    """Make a row whose status says all."""
    return Row(status, kind, code, message, error_class, error_class, error_class)


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
    Row(
        400,
        REQUEST,
        "content_policy_violation",
        "Your request was rejected. You may retry.",
        Moderated,
        Invalid,
        Invalid,
    ),
    Row(
        400,
        "image_generation_user_error",
        "moderation_blocked",
        "Your request was rejected by the safety system. safety_violations=[sexual].",
        *(Moderated, Moderated, Invalid),
    ),
    Row(400, None, "contentFilter", "Your task failed as a result of our safety system.", Moderated, Invalid, Invalid),
    Row(400, None, "content_filter", "The response was filtered.", Moderated, Invalid, Invalid),
    # 400: money, though it is no 402 and no 429
    Row(
        *(400, REQUEST, "billing_hard_limit_reached", "Billing hard limit has been reached", QuotaSpent),
        *(QuotaSpent, Invalid),
    ),
    # 400: a model that has been shut down, as forum texts expect it
    Row(400, REQUEST, "model_not_found", "Dead models do not draw.", ModelUnknown, Invalid, Invalid),
    # 400: what gateways make of the above
    Row(
        *(400, None, "400"),
        "litellm.BadRequestError: Your request was rejected as a result of our safety system. Your prompt may contain",
        *(Moderated, Moderated, Invalid),
    ),
    Row(
        *(400, None, "400"),
        "400: {'error': '/image/generations: Invalid model name passed in model=no-such-model. Call `/v1/models`'}",
        *(ModelUnknown, ModelUnknown, Invalid),
    ),
    Row(400, "no_db_connection", "400", "No connected db.", KeyRefused, KeyRefused, Invalid),
    # 401, 402, 403: a person must act
    always(401, REQUEST, "invalid_api_key", "Incorrect API key provided: sk-a***z.", KeyRefused),
    always(401, REQUEST, None, "You must be a member of an organization to use the API", KeyRefused),
    always(401, REQUEST, None, "Your IP is not allowed.", KeyRefused),
    always(402, None, None, "Payment required", QuotaSpent),
    always(402, None, "insufficient_balance", "Insufficient balance", QuotaSpent),
    always(
        403, None, "unsupported_country_region_territory", "Country, region, or territory not supported", KeyRefused
    ),
    always(403, REQUEST, None, "Your organization must be verified to use the model `gpt-image-2`.", KeyRefused),
    always(403, None, None, "Your resource has been temporarily blocked because we detected behavior", KeyRefused),
    Row(403, None, "insufficient_user_quota", "user quota is not enough", QuotaSpent, KeyRefused, KeyRefused),
    # 404: the model, or the path
    Row(404, REQUEST, "model_not_found", "The model `x` does not exist.", ModelUnknown, ModelUnknown, WrongPath),
    Row(404, None, "DeploymentNotFound", "The API deployment is not here.", ModelUnknown, WrongPath, WrongPath),
    always(404, REQUEST, None, "Invalid URL (POST /v1/v1/images/generations)", WrongPath),
    always(405, REQUEST, None, "Method Not Allowed", Invalid),
    # 408, 409, 425: the moment was wrong
    always(408, None, None, "Request timed out.", ServerFault),
    always(409, None, None, "Conflict: the request was cancelled.", ServerFault),
    always(425, None, None, "Too early", ServerFault),
    # 408, 500: a gateway's, of a call that it had passed on, which may be paid
    Row(
        *(408, None, "408"),
        "litellm.Timeout: APITimeoutError - Request timed out. Error_str: Request timed out.",
        *(OutcomeUnknown, OutcomeUnknown, ServerFault),
    ),
    Row(
        *(408, "timeout_error", None),
        "Request exceeded the timeout sent in the request: 500ms",
        *(OutcomeUnknown, OutcomeUnknown, ServerFault),
    ),
    Row(
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
    always(
        *(429, None, "429"),
        "Requests have exceeded call rate limit. Please retry after 20 seconds. See https://aka.ms/oai/quotaincrease",
        RateLimited,
    ),
    # 429: money
    *(
        Row(429, "insufficient_quota", code, "Check your plan and billing.", QuotaSpent, RateLimited, RateLimited)
        for code in (
            *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
            *("project_spend_limit_exceeded", "organization_usage_limit_exceeded", None),
        )
    ),
    *(
        Row(429, REQUEST, code, "Spent.", QuotaSpent, RateLimited, RateLimited)
        for code in (
            *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
            *("project_spend_limit_exceeded", "organization_usage_limit_exceeded"),
        )
    ),
    Row(
        *(429, "insufficient_quota", None),
        "You exceeded your current quota, please check your plan and billing details.",
        *(QuotaSpent, QuotaSpent, RateLimited),
    ),
    # 429: a limit of nothing, whatever it offers
    Row(
        *(429, "requests", "rate_limit_exceeded"),
        "Limit: 0/1min. Current: 1/1min. Please try again after 0.0 seconds.",
        *(QuotaSpent, QuotaSpent, RateLimited),
    ),
    # 5xx: refused and free, or lost behind a gateway and perhaps paid
    always(500, "server_error", None, "The server had an error while processing your request.", ServerFault),
    always(501, None, None, "This server does not edit.", Invalid),
    always(502, None, None, "Bad gateway", OutcomeUnknown),
    always(503, "service_unavailable_error", "server_is_overloaded", "Our servers are overloaded.", ServerFault),
    always(503, "rate_limit_error", "slow_down", "Slow down.", ServerFault),
    always(503, "new_api_error", "model_not_found", "no available channel for model x", ServerFault),
    always(504, None, None, "Gateway Time-out", OutcomeUnknown),
    *(always(status, None, None, f"Error {status}", OutcomeUnknown) for status in range(520, 525)),
]


def inner(row: Row, **more: Any) -> dict[str, Any]:
    return {"message": row.message, "type": row.type, "param": None, "code": row.code, **more}


def bytes_of(body: Any, **how: Any) -> bytes:
    return json.dumps(body, **how).encode()


WHOLE: dict[str, Callable[[Row], bytes]] = {
    "vendor": lambda row: bytes_of({"error": inner(row)}),
    "pretty": lambda row: b"\n" + bytes_of({"error": inner(row)}, indent=4) + b"\r\n",
    "bom": lambda row: b"\xef\xbb\xbf" + bytes_of({"error": inner(row)}),
    "utf-16": lambda row: json.dumps({"error": inner(row)}).encode("utf-16"),
    "utf-16 without a mark": lambda row: json.dumps({"error": inner(row)}).encode("utf-16-le"),
    "a byte that is no UTF-8": lambda row: bytes_of({"error": inner(row, note="ä")}, ensure_ascii=False).replace(
        "ä".encode(), b"\xe4"
    ),
    "cut before its end": lambda row: bytes_of({"error": inner(row)})[:-2],
    "cut within its last field": lambda row: bytes_of({"error": inner(row, moderation_details={"stage": "in"})})[:-8],
    "flat": lambda row: bytes_of({"object": "error", **inner(row)}),
    "FastAPI's detail, an object": lambda row: bytes_of({"detail": inner(row)}),
    "FastAPI's detail, an envelope": lambda row: bytes_of({"detail": {"error": inner(row)}}),
    "Azure's, with an inner error": lambda row: bytes_of(
        {"error": inner(row, status=row.status, inner_error={"code": "Other", "content_filter_results": {}})}
    ),
}
BY_CODE: dict[str, Callable[[Row], bytes]] = {
    "new_api": lambda row: bytes_of({"error": {**inner(row), "type": "new_api_error", "param": ""}}),
    "shell_api": lambda row: bytes_of({"error": {**inner(row), "type": "shell_api_error"}, "created": 1}),
    "xAI": lambda row: bytes_of({"code": row.code, "error": row.message}),
    "capitals": lambda row: bytes_of({"error": {**inner(row), "type": None, "code": (row.code or "").upper()}}),
}
SAID: dict[str, Callable[[Row], bytes]] = {
    "FastAPI's detail, a sentence": lambda row: bytes_of({"detail": row.message}),
    "FastAPI's detail, a list": lambda row: bytes_of({"detail": [{"loc": ["body", "n"], "msg": row.message}]}),
    "a lone sentence": lambda row: bytes_of({"error": row.message}),
    "Google's": lambda row: bytes_of({"error": {"code": row.status, "message": row.message, "status": "SOME"}}),
    "Google's, in a list": lambda row: bytes_of([{"error": {"code": row.status, "message": row.message}}]),
    "Azure's gateway": lambda row: bytes_of({"statusCode": row.status, "message": row.message}),
    "cut behind its message": lambda row: bytes_of({"error": inner(row)}).partition(b', "type"')[0],
    "HTML": lambda row: f"<html><head><style>a{{}}</style></head><body><h1>{row.message}</h1></body></html>".encode(),
    "text": lambda row: row.message.encode(),
}
BARE: dict[str, bytes] = {
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


def _cases(forms: dict[str, Any], rows: list[Row]) -> list[Any]:
    return [
        pytest.param(row, form, id=f"{row.status} {row.code or row.type} {name}")
        for row in rows
        for name, form in forms.items()
    ]


@pytest.mark.parametrize(("row", "form"), [*_cases(WHOLE, TABLE), *_cases(BY_CODE, [row for row in TABLE if row.code])])
def test_where_type_and_code_arrive_they_decide(row: Row, form: Callable[[Row], bytes]) -> None:
    error = refused(row.status, form(row))
    assert type(error) is row.error_class
    assert error.http_status == row.status
    assert (error.code or "").lower() == (row.code or "").lower()
    assert error.message.startswith(row.message.rstrip("."))


@pytest.mark.parametrize(("row", "form"), _cases(SAID, TABLE))
def test_where_only_the_message_arrives_it_counts_for_what_it_says(row: Row, form: Callable[[Row], bytes]) -> None:
    error = refused(row.status, form(row))
    assert type(error) is row.said
    assert row.message.rstrip(".") in error.message


@pytest.mark.parametrize("status", sorted({row.status for row in TABLE}))
@pytest.mark.parametrize("body", BARE.values(), ids=BARE.keys())
def test_where_nothing_arrives_but_the_status_it_decides(status: int, body: bytes) -> None:
    (bare,) = {row.bare for row in TABLE if row.status == status}
    assert type(refused(status, body)) is bare


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.code or row.type}")
def test_wherever_a_body_is_cut_its_fate_is_one_of_the_three_and_never_worse_informed_than_before(row: Row) -> None:
    body = bytes_of({"error": inner(row)})
    errors = [refused(row.status, body[:end]) for end in range(len(body) + 1)]
    assert {error.code for error in errors} <= {None, row.code}, "half a name is none"
    assert {error.type for error in errors} <= {None, row.type}
    fates = [type(error) for error in errors]
    assert set(fates) <= {row.error_class, row.said, row.bare}
    assert fates[0] is row.bare
    whole = fates.index(row.error_class)
    assert set(fates[whole:]) == {row.error_class}, "what is once known stays known"


@pytest.mark.parametrize("code", ["ResponsibleAIPolicyViolation", "content_policy_violation"])
@pytest.mark.parametrize("name", ["innererror", "inner_error"])
def test_azure_s_inner_code_tells_moderation_where_the_outer_one_does_not(name: str, code: str) -> None:
    body = {"error": {"message": "no", "type": None, "code": "BadRequest", name: {"code": code, "revised_prompt": "x"}}}
    error = refused(400, body)
    assert (type(error), error.code) == (Moderated, "BadRequest")


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided"}, KeyRefused),
        (400, {"code": "Client specified an invalid argument", "error": "Unknown size"}, Invalid),
        (
            429,
            {"code": "exhausted", "error": "Your team has either used all available credits or reached its limit"},
            QuotaSpent,
        ),
        (400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}], KeyRefused),
        (
            429,
            [{"error": {"code": 429, "message": "Quota exceeded. Please retry in 43.5s.", "status": "EXHAUSTED"}}],
            RateLimited,
        ),
        (429, [{"error": {"code": 429, "message": "Quota exceeded for metric: free_tier, limit: 0"}}], QuotaSpent),
        (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, ModelUnknown),
        (404, {"detail": "Not Found"}, WrongPath),
    ],
)
def test_plain_shapes_of_other_vendors_have_their_fates(status: int, body: Any, error_class: Fate) -> None:
    assert type(refused(status, body)) is error_class


def test_a_prompt_that_a_refusal_repeats_does_not_stop_the_run() -> None:
    prompt = "a sad man with insufficient funds and a rate limit sign"
    assert type(refused(400, {"error": {"message": f"Invalid prompt: {prompt}", "type": REQUEST}})) is Invalid
    assert type(refused(422, {"detail": [{"loc": ["prompt"], "msg": "long", "input": {"code": "insufficient_quota"}}]}))


# x-should-retry: the vendor's SDK lets it overrule the status


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.code or row.type}")
def test_x_should_retry_true_saves_what_would_be_called_invalid_and_nothing_else(row: Row) -> None:
    error = refused(row.status, {"error": inner(row)}, x_should_retry="True")
    assert type(error) is (ServerFault if row.error_class is Invalid else row.error_class)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.code or row.type}")
def test_x_should_retry_false_ends_nothing_that_may_pass(row: Row) -> None:
    assert type(refused(row.status, {"error": inner(row)}, x_should_retry="false")) is row.error_class


# Retry-After: what is asked → what is waited; None: our own backoff; a Stop where a person decides

ASKED: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after": "20"}, 20.0),
    ({"retry-after": "0.25"}, 0.25),
    ({"retry-after": " 7.5 "}, 7.5),
    ({"retry-after-ms": "1500"}, 1.5),
    ({"retry-after-ms": "250.5", "retry-after": "9"}, 0.2505),
    ({"retry-after-ms": "garbage", "retry-after": "9"}, 9.0),
    ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
    ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
    ({"retry-after": time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(NOW + 90))}, 90.0),  # RFC 850's
    ({"retry-after": time.asctime(time.gmtime(NOW + 90))}, 90.0),  # asctime's
    ({"retry-after": formatdate(NOW + 990, usegmt=True), "date": formatdate(NOW + 900, usegmt=True)}, 90.0),
    ({"retry-after": formatdate(NOW - 90, usegmt=True)}, None),
    ({"retry-after": formatdate(0, usegmt=True)}, None),
    *(({"retry-after": word}, None) for word in ("0", "0.0", "-0", "-5", "nan", "inf", "-inf", "infinity", "1e999")),
    *(({"retry-after": word}, None) for word in ("", "soon", "20 seconds", "0x10", "Mon, 99 Foo 2027 99:99:99 GMT")),
    ({"retry-after": "9" * 8000}, None),
    ({"retry-after-ms": "nan", "retry-after": "-3"}, None),
    ({"retry-after": "3600"}, 3600.0),
    ({"retry-after-ms": "3600000"}, 3600.0),
    ({"retry-after": formatdate(NOW + 3600, usegmt=True)}, 3600.0),
    ({"retry-after": "3600.5"}, 3600.5),
    ({"retry-after-ms": "3600001"}, 3600.001),
    ({"retry-after": formatdate(NOW + 3601, usegmt=True)}, 3601.0),
    ({"retry-after": "86400"}, 86400.0),
    ({"retry-after": "1e300"}, 1e300),
]


@pytest.mark.parametrize(("headers", "seconds"), ASKED, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 503])
def test_a_wait_is_obeyed_up_to_an_hour_and_a_longer_one_stops(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    error = refused(status, {"error": {"message": "later"}}, **named)
    stops = seconds is not None and seconds > 3600
    assert type(error) is (PausedTooLong if stops else RateLimited if status == 429 else ServerFault)
    assert error.retry_after == (None if seconds is None else pytest.approx(seconds))
    if stops:
        assert "run again in " in error.message


@pytest.mark.parametrize(("headers", "seconds"), ASKED, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("status", [502, 504, 520, 524])
def test_a_gateway_s_long_wait_does_not_hide_that_the_call_may_be_paid(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    error = refused(status, b"<html>", **{name.replace("-", "_"): value for name, value in headers.items()})
    obeyed = seconds is not None and seconds <= 3600
    assert type(error) is OutcomeUnknown
    assert error.retry_after == (pytest.approx(seconds) if obeyed else None)


@pytest.mark.parametrize(
    ("header", "message", "seconds"),
    [
        ("1", "try again in 30s", 30.0),
        ("30", "try again in 15ms", 30.0),
        ("0", "try again in 20s", 20.0),
        ("garbage", "try again in 20s", 20.0),
        ("20", "try again after 0.0 seconds", 20.0),
        ("0", "try again after 0.0 seconds", None),
        ("20", "try again in 2h", 7200.0),
        ("7200", "try again in 1s", 7200.0),
        ("3600", "try again in 1h", 3600.0),
        ("-1", "try again in 999999999999999 days", None),  # no number of days
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_of_header_and_message_the_longer_wins(status: int, header: str, message: str, seconds: float | None) -> None:
    error = refused(status, {"error": {"message": message}}, retry_after=header)
    assert error.retry_after == seconds
    assert (type(error) is PausedTooLong) == (seconds is not None and seconds > 3600)


def test_money_and_moderation_never_become_a_wait() -> None:
    for row in TABLE:
        if row.error_class in {QuotaSpent, Moderated, Invalid, KeyRefused, WrongPath, ModelUnknown}:
            assert type(refused(row.status, {"error": inner(row)}, retry_after="86400")) is row.error_class


# An error that comes as a success: what its words leave open may have been billed

HIDDEN: list[tuple[Any, Fate]] = [
    *(
        ({"error": inner(row)}, QuotaSpent)
        for row in TABLE
        if row.error_class is QuotaSpent and row.code and row.status != 402
    ),
    *(({"error": inner(row)}, Moderated) for row in TABLE if row.error_class is Moderated),
    *(({"error": inner(row)}, RateLimited) for row in TABLE if row.code == "slow_down"),
    ({"error": {"message": "Rate limit reached on input-images per min: Limit 4000", "type": "requests"}}, RateLimited),
    ({"error": {"message": "Rate limit reached", "type": "shell_api_error", "code": None}}, RateLimited),
    ({"error": {"message": "Limit: 0/1min", "type": "requests", "code": "rate_limit_exceeded"}}, QuotaSpent),
    ({"error": "Too many requests"}, RateLimited),
    ({"detail": "Rate limit exceeded: 5 per 1 minute"}, RateLimited),
    ({"code": 429, "message": "slow", "data": None}, RateLimited),
    ({"code": 401, "message": "who are you", "data": None}, KeyRefused),
    ({"error": {"message": "pay", "code": "402"}}, QuotaSpent),
    ({"error": {"message": "no", "code": 422}}, Invalid),
    ({"error": {"message": "no", "code": "model_not_found"}}, ModelUnknown),
    ({"error": {"message": "the rate limit must be a number", "type": REQUEST}}, Invalid),
    ({"error": {"message": "ouch", "code": 503}}, Unusable),
    ({"error": {"message": "ouch", "type": "server_error"}}, Unusable),
    ({"detail": [{"loc": ["body"], "msg": "odd"}]}, Unusable),
    ({"detail": {"reason": "odd"}}, Unusable),
    ({"message": "something went wrong"}, Unusable),
    ({"error": {"message": "something went wrong"}, "task_id": "t-1"}, Unusable),
]


@pytest.mark.parametrize(("body", "error_class"), HIDDEN, ids=str)
@pytest.mark.parametrize("data", [{}, {"data": []}, {"data": None}], ids=str)
def test_an_error_in_a_success_has_the_fate_of_its_words(body: Any, error_class: Fate, data: Any) -> None:
    error = refused(200, {**data, **body})
    assert type(error) is error_class
    assert error.http_status == 200
    assert error.message != "the server answered 200 without a picture"


@pytest.mark.parametrize("status", [200, 201, 203, 204, 205, 206])
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"[]", b'{"data": []}', b'{"data": [{}]}', b"<html>", b'{"da'])
def test_a_success_without_a_picture_may_have_been_billed(status: int, body: bytes) -> None:
    assert type(refused(status, body)) is Unusable


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_a_wrong_address(status: int) -> None:
    assert type(refused(status, b"", location="https://other.example/v1")) is WrongAddress
    assert type(refused(status)) is WrongAddress


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (202, b""),
        (202, b"accepted"),
        (202, {"id": "op_1", "status": "notRunning"}),
        (202, {"data": []}),
        (200, {"task_id": "t-1", "status": "submitted"}),
        (200, {"id": "t-1", "object": "image.generation.task", "status": "queued"}),
        (200, {"code": 200, "message": "success", "data": {"task_id": "t-1"}}),
        (200, {"code": 200, "data": [{"status": "Processing", "task_id": "t-1"}]}),
    ],
)
def test_a_task_in_place_of_pictures_stops_since_each_more_would_be_paid_and_never_come(status: int, body: Any) -> None:
    error = refused(status, body)
    assert type(error) is Deferred
    assert error.outcome == "unknown"
    assert error.message.startswith("the server accepts calls for later")


@pytest.mark.parametrize("status", [201, 202, 203, 206])
def test_pictures_count_under_any_status_of_success(status: int) -> None:
    answer = read(status, {"data": [{"b64_json": "QUJD"}], "status": "queued"})
    assert answer.images == (InlineImage("QUJD", None),)


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"data": [{"b64_json": "QUJD"}]}',
        '{"data": [{"b64_json": "QUJD"}]}'.encode("utf-16"),
        '{"data": [{"b64_json": "QUJD"}]}'.encode("utf-16-be"),
        '{"data": [{"b64_json": "QUJD"}]}'.encode("utf-32"),
        b'{"data": [{"b64_json": "QUJD"}], "note": "caf\xe9"}',
    ],
)
def test_a_paid_picture_is_read_however_its_letters_are_written(body: bytes) -> None:
    assert read(200, body).images == (InlineImage("QUJD", None),)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
def test_what_stands_beside_a_picture_never_harms_the_ledger(content_type: str) -> None:
    nested: Any = 1
    for _ in range(50):
        nested = {"a": [nested]}
    usage = {"output_tokens": 5, "big": 10**40, "deep": nested, "text": "a\ud800", "list": [1] * 5000, "b\udfff": 2.5}
    body = json.dumps({"data": [{"b64_json": "QUJD"}], "usage": usage, "size": "\ud800"})
    body = body.replace("2.5", "1e999").replace('"output_tokens"', '"nan": NaN, "output_tokens"')
    answer = read(200, ("data: " * content_type.startswith("text") + body).encode(), content_type=content_type)
    written = json.dumps([answer.usage, answer.settings], ensure_ascii=False, allow_nan=False)
    assert len(written.encode()) < 2000
    assert answer.usage is not None
    assert (answer.usage["output_tokens"], answer.usage["big"], answer.usage["b?"]) == (5, None, None)


# A stream that nobody asked for


def streamed(*events: tuple[str, Any], end: str = "\n\n") -> bytes:
    lines = "".join(
        f"event: {name}{end[:-1] if len(end) == 2 else end[:2]}data: {json.dumps(data)}{end}" for name, data in events
    )
    return lines.encode()


PARTIAL = ("image_generation.partial_image", {"type": "image_generation.partial_image", "b64_json": "UEFSVA=="})
COMPLETED = (
    "image_generation.completed",
    {"type": "image_generation.completed", "b64_json": "QUJD", "size": "1024x1024", "usage": {"output_tokens": 5}},
)
FAILED = ("error", {"type": "error", "error": {"message": "no", "type": REQUEST, "code": "content_policy_violation"}})


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("rest", [b"", b"data: [DONE]\n\n", b": ping\n\n", b'event: x\ndata: {"type": "im'])
def test_a_stream_s_finished_picture_is_kept_since_it_is_paid(end: str, rest: bytes) -> None:
    body = streamed(PARTIAL, PARTIAL, COMPLETED, end=end) + rest
    answer = read(200, body, content_type="text/event-stream; charset=utf-8")
    assert answer.images == (InlineImage("QUJD", None),)
    assert (answer.usage, answer.settings) == ({"output_tokens": 5}, {"size": "1024x1024"})


def test_a_stream_may_bring_several_pictures_or_a_whole_answer() -> None:
    assert len(read(200, streamed(COMPLETED, COMPLETED), content_type="text/event-stream").images) == 2
    whole = ("x", {"data": [{"url": "https://h/a"}]})
    assert read(200, streamed(whole), content_type="text/event-stream").images == (LinkedImage("https://h/a", None),)


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (streamed(FAILED), Moderated),
        (streamed(PARTIAL, FAILED), Moderated),
        (streamed(("error", {"error": {"message": "ouch", "type": "server_error"}})), Unusable),
        (streamed(PARTIAL), Unusable),
        (b"", Unusable),
        (b"data: [DONE]\n\n", Unusable),
        (b'{"data": []}', Unusable),
    ],
)
def test_a_stream_without_a_finished_picture_has_its_fate(body: bytes, error_class: Fate) -> None:
    assert type(refused(200, body, content_type="text/event-stream")) is error_class


# Whatever comes

PHRASES = [
    *("limit ", "limit: 0", "try again in ", "1.5 s, ", "images per 1s", "rate limit", "model ", "does not exist"),
    *("<style>", "<script", "</", "<", ">", " ", "\\", '"message":"', '{"error":', "[", "}", "1", "9,", "\ud800", "\0"),
]
hostile = st.lists(st.sampled_from(PHRASES), min_size=1, max_size=6).map("".join)
megabytes = hostile.map(lambda text: (text * (1_000_000 // len(text) + 1)).encode("utf-8", "replace"))
framed = st.one_of(
    megabytes,
    megabytes.map(
        lambda body: bytes_of({"error": {name: body.decode() for name in ("message", "type", "code", "param")}})
    ),
    megabytes.map(lambda body: bytes_of({"detail": body.decode()})),
    megabytes.map(lambda body: bytes_of({"error": {"message": body.decode()}})[:-9]),
    megabytes.map(lambda body: bytes_of({"data": [{"url": body.decode(), "revised_prompt": body.decode()}]})),
    megabytes.map(lambda body: b"data: " + bytes_of({"b64_json": body.decode()}) + b"\n\n" + body),
)
names = st.sampled_from(
    ["retry-after", "retry-after-ms", "date", "location", "content-type", "x-should-retry", "x-request-id"]
    + [f"x-ratelimit-{what}-{of}" for what in ("limit", "reset") for of in ("images", "requests")]
)
lines = st.one_of(
    hostile.map(lambda text: (text * (8000 // len(text)))[:8190]),
    st.sampled_from(["text/event-stream", "true", "1" * 8190, "1.1" * 2700, "1s" * 4000, "1 " * 4000, "Mon, " * 1600]),
    st.text(),
)


@settings(max_examples=120, deadline=2000, derandomize=True)
@given(st.sampled_from([200, 202, 301, 400, 404, 422, 429, 500, 503, 504]), st.dictionaries(names, lines), framed)
def test_a_hostile_answer_of_a_megabyte_costs_no_two_seconds(status: int, headers: dict[str, str], body: bytes) -> None:
    error: RequestError | None = None
    try:
        assert read_response(HttpResponse(status, CIMultiDict(headers), body, URL), NOW).images
    except RequestError as reason:
        error = reason
    if error is not None:
        assert sum(isinstance(error, error_class) for error_class in (TryAgain, GiveUp, Stop)) == 1
        assert len(error.message) < 1200
        assert error.message.isprintable()


@pytest.mark.parametrize("depth", [1, 400, 470, 485, 490, 495, 2000, 100_000])
@pytest.mark.parametrize(
    "frame", [b"[", b'{"error":', b'{"detail":[{"msg":[{"msg":', b'{"error":{"innererror":{"code":']
)
def test_a_body_of_any_depth_is_read_or_left(depth: int, frame: bytes) -> None:
    closing = bytes({ord("["): ord("]"), ord("{"): ord("}")}[letter] for letter in reversed(frame) if letter in b"[{")
    body = frame * depth + b"1" + closing * depth
    for status, headers in ((400, {}), (200, {}), (200, {"content_type": "text/event-stream"})):
        assert refused(status, body, **headers).message
    with_picture = b'{"data": [{"b64_json": "QUJD"}], "usage": {"a":' + body + b"}}"
    try:
        assert read(200, with_picture).images
    except Unusable:
        assert depth > 1, "such a body is left only where no parser of Python's reads it"


def test_a_status_alone_always_has_a_fate() -> None:
    for status in range(100, 1000):
        assert issubclass(error_class(status, ErrorBody("", None, None, None), {}), RequestError)

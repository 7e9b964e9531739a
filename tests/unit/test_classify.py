"""The classifier reads each line of the table of errors in every form, and every other body there may be."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

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
from tests.support.error_table import (
    BY_CODE,
    BY_MESSAGE,
    BY_STATUS,
    REQUEST,
    TABLE,
    WHOLE,
    ErrorClass,
    Line,
    bytes_of,
    inner,
    naming,
)
from tests.unit.test_response import NOW, URL, read, refused

each = pytest.mark.parametrize("line", TABLE, ids=str)


def behind_a_firewall(status: int, body: Any, kind: type[RequestError]) -> type[RequestError]:
    """Return the class of an error; a 403 that is a page for people is no word about the key."""
    is_page = isinstance(body, bytes) and body.lstrip().startswith(b"<")
    return WrongAddress if kind is KeyRefused and status == 403 and is_page else kind


@each
def test_if_type_and_code_arrive_they_decide(line: Line) -> None:
    for name, form in {**WHOLE, **(BY_CODE if line.code else {})}.items():
        with naming(name):
            error = refused(line.status, form(line))
            assert type(error) is line.error_class
            assert error.http_status == line.status
            assert (error.code or "").lower() == (line.code or "").lower()
            assert error.message.startswith(line.message.rstrip("."))


@each
def test_if_only_the_message_arrives_it_counts_for_what_it_says(line: Line) -> None:
    for name, form in BY_MESSAGE.items():
        with naming(name):
            error = refused(line.status, form(line))
            assert type(error) is behind_a_firewall(line.status, form(line), line.by_message)
            assert line.message.rstrip(".") in error.message


@pytest.mark.parametrize("status", sorted({line.status for line in TABLE}))
def test_if_nothing_arrives_but_the_status_it_decides(status: int) -> None:
    (by_status,) = {line.by_status for line in TABLE if line.status == status}
    for name, body in BY_STATUS.items():
        with naming(name):
            assert type(refused(status, body)) is behind_a_firewall(status, body, by_status)


@each
def test_type_code_parameter_and_request_id_are_kept(line: Line) -> None:
    error = refused(line.status, {"error": {**inner(line), "param": "size"}}, x_request_id="req_1")
    assert type(error) is line.error_class
    assert (error.http_status, error.type, error.code, error.param) == (line.status, line.type, line.code, "size")
    assert error.request_id == "req_1"
    assert error.message.startswith(line.message.rstrip("."))


@each
def test_wherever_a_body_is_cut_its_class_is_one_of_the_three_and_never_worse_informed_than_before(line: Line) -> None:
    body = bytes_of({"error": inner(line)})
    errors = [refused(line.status, body[:end]) for end in range(len(body) + 1)]
    assert {error.code for error in errors} <= {None, line.code}, "half a name is none"
    assert {error.type for error in errors} <= {None, line.type}
    classes = [type(error) for error in errors]
    assert set(classes) <= {line.error_class, line.by_message, line.by_status}
    assert classes[0] is line.by_status
    whole = classes.index(line.error_class)
    assert set(classes[whole:]) == {line.error_class}, "what is once known stays known"


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
def test_plain_shapes_of_other_vendors_have_their_fates(status: int, body: Any, error_class: ErrorClass) -> None:
    assert type(refused(status, body)) is error_class


def test_a_prompt_that_a_refusal_repeats_does_not_stop_the_run() -> None:
    prompt = "a sad man with insufficient funds and a rate limit sign"
    assert type(refused(400, {"error": {"message": f"Invalid prompt: {prompt}", "type": REQUEST}})) is Invalid
    detail = {"loc": ["prompt"], "msg": "long", "input": {"code": "insufficient_quota"}}
    assert type(refused(422, {"detail": [detail]})) is Invalid


# x-should-retry: the vendor's SDK lets it overrule the status


def test_x_should_retry_true_saves_what_would_be_called_invalid_and_nothing_else() -> None:
    for line in TABLE:
        with naming(line):
            error = refused(line.status, {"error": inner(line)}, x_should_retry="True")
            assert type(error) is (ServerFault if line.error_class is Invalid else line.error_class)


def test_x_should_retry_false_ends_nothing_that_may_pass() -> None:
    for line in TABLE:
        with naming(line):
            assert type(refused(line.status, {"error": inner(line)}, x_should_retry="false")) is line.error_class


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
    *(({"retry-after": str(whole)}, float(whole)) for whole in (7200, 36000, 54749, 86400, 90000, 604800, 2592000)),
    ({"retry-after": formatdate(NOW + 30 * 86400, usegmt=True)}, 30 * 86400.0),
    # no plausible number of seconds: our own backoff
    *(({"retry-after": str(odd)}, None) for odd in (1000, 2000, 15000, 30000, 60000, 120000, 500000, 1800000, 3600000)),
    *(({"retry-after": str(odd)}, None) for odd in (int(NOW), int(NOW) + 30, int(NOW * 1000), int(NOW * 1000) + 30000)),
    *(
        ({"retry-after": f"{NOW + 30:.6f}"}, None),
        ({"retry-after": "2700000"}, None),
        ({"retry-after": "1" * 40}, None),
    ),
    *(
        ({"retry-after": word}, None)
        for word in ("1e300", "1e3", "0x3c", "1_0", "+20", "20, 20", "20;q=1", "\u0665\u0665")
    ),
    ({"retry-after": formatdate(NOW + 3e9, usegmt=True)}, None),
    ({"retry-after-ms": str(int(NOW * 1000))}, None),
    ({"retry-after-ms": "30000"}, 30.0),
    ({"retry-after-ms": str(int(NOW * 1000)), "retry-after": "7"}, 7.0),
]


asked = pytest.mark.parametrize(("headers", "seconds"), ASKED, ids=lambda value: str(value)[:60])


@asked
def test_a_wait_is_obeyed_and_a_429_of_more_than_an_hour_stops(headers: dict[str, str], seconds: float | None) -> None:
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    for status in (408, 409, 425, 429, 500, 503):
        stops = status == 429 and seconds is not None and seconds > 3600
        with naming(status):
            error = refused(status, {"error": {"message": "later"}}, **named)
            assert type(error) is (PausedTooLong if stops else RateLimited if status == 429 else ServerFault)
            assert error.retry_after == (None if seconds is None else pytest.approx(seconds))
            if stops:
                assert "run again in " in error.message


@asked
def test_a_gateway_s_long_wait_does_not_hide_that_the_call_may_be_paid(
    headers: dict[str, str], seconds: float | None
) -> None:
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    obeyed = seconds is not None and seconds <= 3600
    for status in (502, 504, 520, 524):
        with naming(status):
            error = refused(status, b"<html>", **named)
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
def test_of_header_and_message_the_longer_wins(header: str, message: str, seconds: float | None) -> None:
    for status in (429, 503):
        with naming(status):
            error = refused(status, {"error": {"message": message}}, retry_after=header)
            assert error.retry_after == seconds
            assert (type(error) is PausedTooLong) == (status == 429 and seconds is not None and seconds > 3600)


def test_money_and_moderation_never_become_a_wait() -> None:
    for line in TABLE:
        if line.error_class in {QuotaSpent, Moderated, Invalid, KeyRefused, WrongPath, ModelUnknown}:
            with naming(line):
                assert type(refused(line.status, {"error": inner(line)}, retry_after="86400")) is line.error_class


# An error that comes as a success: what its words leave open may have been billed

HIDDEN: list[tuple[Any, ErrorClass]] = [
    *(
        ({"error": inner(line)}, QuotaSpent)
        for line in TABLE
        if line.error_class is QuotaSpent and line.code and line.status != 402
    ),
    *(({"error": inner(line)}, Moderated) for line in TABLE if line.error_class is Moderated),
    *(({"error": inner(line)}, RateLimited) for line in TABLE if line.code == "slow_down"),
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
def test_an_error_in_a_success_has_the_class_of_its_words(body: Any, error_class: ErrorClass) -> None:
    without: list[dict[str, Any]] = [{}, {"data": []}, {"data": None}]
    for data in without:
        with naming(data):
            error = refused(200, {**data, **body})
            assert type(error) is error_class
            assert error.http_status == 200
            assert error.message != "the server answered 200 without a picture"


@pytest.mark.parametrize("status", [200, 201, 203, 204, 205, 206])
def test_a_success_without_a_picture_may_have_been_billed(status: int) -> None:
    for body in (b"", b"null", b"{}", b"[]", b'{"data": []}', b'{"data": [{}]}', b"text", b'{"da'):
        with naming(body):
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
def test_a_stream_without_a_finished_picture_has_its_fate(body: bytes, error_class: ErrorClass) -> None:
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


@settings(max_examples=60, deadline=2000, derandomize=True)
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
def test_a_body_of_any_depth_is_read_or_left(depth: int) -> None:
    for frame in (b"[", b'{"error":', b'{"detail":[{"msg":[{"msg":', b'{"error":{"innererror":{"code":'):
        with naming(frame):
            _read_or_left(frame, depth)


def _read_or_left(frame: bytes, depth: int) -> None:
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

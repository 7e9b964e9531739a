"""Every answer that a server may give has its fate."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from pipeline.client.limits import MESSAGE_CHARACTERS, PROMPT_CHARACTERS, URL_CHARACTERS
from pipeline.client.rate_limit_hints import duration, pause, zero_limit
from pipeline.client.response import HttpResponse, ImagesResponse, InlineImage, LinkedImage, read_error, read_response
from pipeline.errors import (
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
from pipeline.reports.advice import stop_advice

NOW = 1_800_000_000.0
URL = "https://api.example/v1/images/generations"


def read(status: int, body: Any = b"", **headers: str) -> ImagesResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return read_response(HttpResponse(status, named, content, URL), NOW)


def refused(status: int, body: Any = b"", **headers: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(status, body, **headers)
    return caught.value


def error_body(message: Any = "no", type: str | None = None, code: Any = None, param: str | None = None) -> Any:  # noqa: A002 - the API's own word
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


@pytest.mark.parametrize(
    "message",
    [
        "Rate limit reached for dall-e-3. Limit: 0/1min. Current: 1/1min. Please try again after 0.0 seconds.",
        "Rate limit reached for gpt-image-2 on input-images per min: Limit 0, Used 0, Requested 1.",
        "Your limit is too low: limit 0",
        "You exceeded your current quota, please check your plan and billing details.",
    ],
)
def test_a_429_of_a_limit_of_nothing_or_of_quota_stops(message: str) -> None:
    assert type(refused(429, error_body(message, "requests"))) is QuotaSpent


def test_a_limit_of_nothing_in_the_headers_stops_too() -> None:
    assert type(refused(429, error_body("slow", "requests"), x_ratelimit_limit_images="0")) is QuotaSpent
    assert type(refused(500, error_body("slow", "requests"), x_ratelimit_limit_images="0")) is ServerFault


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        ("Rate limit exceeded for images per minute in organization o. Limit: 5/1min. Current: 6/1min.", (5, 60.0)),
        ("Rate limit reached for dall-e-3. Limit: 15/1min. Current: 16/1min", (15, 60.0)),
        ("Limit: 5/1min", (5, 60.0)),
        ("limit 20 images per minute", (20, 60.0)),
        ("Limit: 50/6s", (50, 6.0)),
        ("Limit: 3 / min. Please try again in 20s.", (3, 60.0)),
        ("Limit: 50 / 5 minutes", (50, 300.0)),
        ("Limit: 1,500/1h", (1500, 3600.0)),
        ("on input-images per min: Limit 4000, Used 4000, Requested 1. Please try again in 15ms", (4000, 60.0)),
        ("for gpt-image-1 in organization o on input-images per min (IPM): Limit 5, Used 5, Requested 1.", (5, 60.0)),
        ("on images per 10s: Limit 5.0, Used 5.0", (5, 10.0)),
        ("on tokens per min (TPM): Limit 250000, Used 249000, Requested 2000.", None),
        ("for gpt-image-1 on requests per min (RPM): Limit 5, Used 5, Requested 1.", None),
        ("on requests per min. Limit: 3 / min.", None),
        ("on tokens per min. Limit: 3/1min", None),
        ("Limit: 200/1day", None),
        ("on images per day: Limit 200, Used 200", None),
        ("Limit 10, Used 0, Requested 20", None),
        ("Limit: 2.5/1min", None),
        ("Limit: 5/24h", (5, 86400.0)),
        ("Limit: 5/25h", None),
        ("Limit: 1/999999999999h", None),
        ("on images per 999999999999 hours: Limit 1", None),
        ("Limit: 5/0min", (5, None)),
        ("Please try again in 12s.", None),
        ("", None),
    ],
)
def test_the_limit_of_images_that_a_429_states_is_read(message: str, limit: tuple[int, float] | None) -> None:
    error = refused(429, error_body(message, "requests", "rate_limit_exceeded"))
    assert isinstance(error, RateLimited)
    assert error.limit == limit
    by_tokens = refused(429, error_body(message, "tokens", "rate_limit_exceeded"))
    assert isinstance(by_tokens, RateLimited)
    assert by_tokens.limit is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_beyond_all_limits_is_no_wait(status: int) -> None:
    assert refused(status, error_body("Please retry after 30 days")).retry_after == 30 * 86400
    assert refused(status, error_body("Please retry after 999999999999 days")).retry_after is None


@pytest.mark.parametrize(
    ("said", "limit"),
    [("5", (5, None)), (" 50 ", (50, None)), ("1e3", None), ("-1", None), ("", None), ("9" * 99, None)],
)
def test_the_limit_of_images_in_the_headers_is_read(said: str, limit: tuple[int, None] | None) -> None:
    error = refused(429, error_body("on requests per min: Limit 3", "requests"), x_ratelimit_limit_images=said)
    assert isinstance(error, RateLimited)
    assert error.limit == limit


@pytest.mark.parametrize(
    "message",
    [
        "Limit: 15/1min. Current: 16/1min",
        "Limit 10, Used 0, Requested 20. Add a payment method at https://x.example/account/billing.",
        "Limit 0.5, Used 0",
        "exceeded the call rate limit of your tier. See https://aka.ms/oai/quotaincrease. Retry after 20 seconds",
        "You exceeded your current quota. Please retry in 43.5s.",
    ],
)
def test_a_429_of_pace_does_not_stop(message: str) -> None:
    assert type(refused(429, error_body(message, "requests"))) is RateLimited
    assert not zero_limit({}, message)


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (404, {"object": "error", "message": "The model `x` does not exist.", "code": 404}, ModelUnknown),
        (404, {"detail": "Not Found"}, WrongPath),
        (400, {"code": "Client error", "error": "Incorrect API key provided: xa***"}, KeyRefused),
    ],
)
def test_what_compatible_servers_say_in_words_counts(status: int, body: Any, error_class: type[RequestError]) -> None:
    assert type(refused(status, body)) is error_class


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 51.84s.", 51.84),
        ("Limit 4000, Used 4000, Requested 1. Please try again in 15ms. Visit", 0.015),
        ("Please try again in 6m0s.", 360.0),
        ("please try again after 51.84 seconds", 51.84),
        ("Please retry after 1 minute.", 60.0),
        ("try again in 1h2m3s", 3723.0),
        ("try again in 250 milliseconds", 0.25),
        ("try again in 2 days", 172800.0),
        ("try again in 5 mins, 2 secs", 302.0),
        ("Request was throttled. Expected available in 57 seconds.", 57.0),
        ("You have reached your hourly usage limit. Resets in 12 minutes.", 720.0),
        ("Please wait 30 seconds before retrying", 30.0),
        ("try again after 0.0 seconds", None),
        ("try again in a while", None),
        ("try again in 5 moons", None),
    ],
)
def test_a_message_may_say_how_long_to_wait(message: str, seconds: float | None) -> None:
    assert pause(429, {}, message, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0),
        ({"retry-after": formatdate(NOW + 90)}, 90.0),  # "-0000": no zone, so UTC
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, None),
        ({"retry-after": formatdate(NOW + 3600, usegmt=True)}, 3600.0),
        ({"retry-after": formatdate(NOW + 990, usegmt=True), "date": formatdate(NOW + 900, usegmt=True)}, 90.0),
        ({"x-ratelimit-reset-images": "1m2s"}, 62.0),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-images": "1s"}, 1.0),
        ({"x-ratelimit-reset-requests": "23h59m"}, None),
        ({"x-ratelimit-reset-requests": "1h", "retry-after": "2"}, 2.0),
        ({}, None),
    ],
)
def test_headers_say_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert pause(429, headers, "", NOW) == (None if seconds is None else pytest.approx(seconds))


def test_the_longer_of_header_and_message_wins() -> None:
    assert refused(429, error_body("try again in 30s"), retry_after="1").retry_after == 30
    assert refused(429, error_body("try again in 15ms"), retry_after="1").retry_after == 1


def test_a_fault_does_not_wait_for_the_reset_of_a_limit() -> None:
    assert refused(500, error_body(), x_ratelimit_reset_requests="12ms").retry_after is None


@pytest.mark.parametrize(
    ("status", "longer"), [(429, PausedTooLong), (500, ServerFault), (503, ServerFault), (408, ServerFault)]
)
def test_a_wait_of_an_hour_is_obeyed_and_a_longer_one_is_an_outage_or_stops(
    status: int, longer: type[RequestError]
) -> None:
    obeyed = refused(status, retry_after="3600")
    assert isinstance(obeyed, RateLimited | ServerFault)
    assert obeyed.retry_after == 3600
    stopped = refused(status, retry_after="3601")
    assert type(stopped) is longer
    assert stopped.retry_after == 3601


def test_a_gateway_that_asks_for_a_long_wait_still_leaves_the_outcome_unknown() -> None:
    error = refused(504, retry_after="999999")
    assert type(error) is OutcomeUnknown
    assert error.retry_after is None


@settings(max_examples=6, deadline=1000, derandomize=True)
@given(st.sampled_from(["1" * 8190, "1." * 4095, "1 " * 4095, "1.1" * 2730, "1s" * 4095, "1" * 8000 + "s"]))
def test_a_header_of_eight_kilobytes_is_read_at_once(text: str) -> None:
    pause(429, {"retry-after": text, "x-ratelimit-reset-images": text}, f"try again in {text}", NOW)


def test_durations_are_read_as_the_headers_write_them() -> None:
    assert [duration(text) for text in ("1s", "6m0s", "120ms", "0s", "", "soon")] == [1.0, 360.0, 0.12, 0.0, None, None]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": "Image is missing"}, "Image is missing"),
        ({"detail": [{"loc": ["body", "image", 0], "msg": "Field required"}]}, "body.image.0: Field required"),
        ({"detail": [{"loc": None, "msg": 5}]}, ": 5"),
        ({"detail": {"error": {"message": "deep"}}}, "deep"),
        ({"error": None, "message": "flat"}, "flat"),
        ({"error": "only text"}, "only text"),
        (error_body({"not": "text"}), '{"not": "text"}'),
        (error_body(17), "17"),
        ([1, 2], "[1, 2]"),
        (5, "5"),
        ("x", "x"),
        (None, "no reason given"),
        (b"", "no reason given"),
        (b"<html><style>a {}</style><h1>413</h1> Too\nlarge</html>", "413 Too large"),
        (b'{"error": {"message": "cut in the mid', "cut in the mid"),
        (b"\xff\xfe\x00", "�"),  # half a letter of UTF-16
        (b"\xc3\x28\xa0", "�(�"),
        (b'{"error": {"message": "a\\ud800b\\u001b[31mc"}}', "a b [31mc"),
    ],
)
def test_every_body_becomes_a_message(body: Any, message: str) -> None:
    error = refused(422, body)
    assert type(error) is Invalid
    assert error.message == message
    assert str(error) == message


def test_messages_are_kept_to_a_sane_length() -> None:
    error = refused(400, error_body("x" * 100_000, "t" * 100_000, "c" * 100_000))
    assert len(error.message) == MESSAGE_CHARACTERS
    assert len(error.type or "") == len(error.code or "") == 200
    assert len(refused(302, location="https://h.example/" + "x" * 5000).message) < 300


def test_a_redirect_is_named_without_its_query() -> None:
    error = refused(307, location="https://other.example/v1?sig=secret")
    assert error.message == "redirects to https://other.example/v1 (check `base_url`)"


def test_pictures_come_as_base64_data_urls_and_links() -> None:
    answer = read(
        200,
        {
            "data": [
                {"b64_json": "QUJD", "revised_prompt": "a cat"},
                {"b64_json": "data:image/png;base64,QUJD"},
                {"url": "data:image/png;base64,QUJD"},
                {"url": "https://h.example/a%2Fb?sig=x%3D", "b64_json": None},
                {"url": "/files/a.png?next=https://x"},
                {"url": "//cdn.example/a"},
                {"url": "//["},
                {"url": 5},
                None,
            ],
            "usage": {"output_tokens": 5},
        },
        date=formatdate(NOW + 100, usegmt=True),
        x_request_id="req_2",
    )
    assert answer.images == (
        InlineImage("QUJD", "a cat"),
        InlineImage("QUJD", None),
        InlineImage("QUJD", None),
        LinkedImage("https://h.example/a%2Fb?sig=x%3D", None),
        LinkedImage("https://api.example/files/a.png?next=https://x", None),
        LinkedImage("https://cdn.example/a", None),
        LinkedImage("//[", None),
    )
    assert answer.usage == {"output_tokens": 5}
    assert answer.skew == pytest.approx(100, abs=1)
    assert answer.request_id == "req_2"


def test_pictures_count_though_an_error_stands_beside_them() -> None:
    answer = read(200, {"error": {"message": "one of two failed"}, "data": [{"b64_json": "QUJD"}]})
    assert len(answer.images) == 1


def test_lone_surrogates_never_reach_the_ledger() -> None:
    answer = read(
        200, b'{"data": [{"url": "http://h/\\ud800", "revised_prompt": "a\\udfffb"}]}', x_request_id="r\udc80"
    )
    (link,) = answer.images
    assert isinstance(link, LinkedImage)
    assert f"{link.url} {link.revised_prompt} {answer.request_id}".encode()


def test_moderated_pictures_are_counted() -> None:
    item = {"respect_moderation": False, "url": None}
    answer = read(200, {"data": [item, {"url": "https://h/x", "respect_moderation": True}]})
    assert (answer.moderated, len(answer.images)) == (1, 1)
    assert read(200, {"data": [item]}).images == ()


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\xff\xfe", b'{"data": [{"b64_json": "QUJ', b"[" * 100_000, b"9" * 5000),
        *({}, [], 5, None, {"data": []}, {"data": None}, {"data": {}}, {"data": [None]}, {"data": [{}]}),
        {"data": [{"url": ""}]},
    ],
)
def test_a_success_without_a_picture_is_unusable(body: Any) -> None:
    error = refused(200, body)
    assert type(error) is Unusable
    assert error.http_status == 200


@pytest.mark.parametrize(
    ("body", "error_class"),
    [
        (error_body("slow", "requests", "rate_limit_exceeded"), RateLimited),
        (error_body("Rate limit reached for images"), RateLimited),
        (error_body("Too many", None, 429), RateLimited),
        (error_body("money", "insufficient_quota"), QuotaSpent),
        (error_body("no", None, "moderation_blocked"), Moderated),
        (error_body("no", None, "model_not_found"), ModelUnknown),
        (error_body("no", None, "invalid_api_key"), KeyRefused),
        (error_body("no", "invalid_request_error"), Invalid),
        (error_body("ouch", "server_error"), Unusable),
        (error_body("ouch", None, 500), Unusable),
        ({"error": "ouch"}, Unusable),
        ({"detail": "ouch"}, Unusable),
    ],
)
def test_an_error_that_comes_as_a_success_has_its_fate(body: Any, error_class: type[RequestError]) -> None:
    error = refused(200, {**body, "data": []})
    assert type(error) is error_class
    assert error.http_status == 200


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["insufficient_quota"])
names = st.sampled_from(
    ["error", "detail", "data", "message", "msg", "loc", "code", "type", "url", "b64_json", "usage"]
)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=12)
deep = st.integers(1, 6000).map(lambda depth: b'{"error":' + b"[" * depth + b"]" * depth + b"}")
deeper = st.integers(1, 6000).map(lambda depth: b'{"error":{"message":' + b"[" * depth + b"]" * depth + b"}}")
bodies = st.binary() | values.map(lambda value: json.dumps(value).encode()) | deep | deeper
header_names = st.sampled_from(
    ["retry-after", "retry-after-ms", "date", "location", "x-request-id", "x-ratelimit-reset-images"]
)
header_values = st.text() | st.integers().map(str) | st.floats().map(str) | st.datetimes().map(lambda day: day.ctime())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(100, 999) | st.sampled_from([200, 429, 503]), st.dictionaries(header_names, header_values), bodies)
def test_any_answer_at_all_is_pictures_or_an_error_with_one_fate(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    error: RequestError | None = None
    try:
        answer = read_response(HttpResponse(status, CIMultiDict(headers), body, URL))
        assert answer.images or answer.moderated
    except RequestError as reason:
        error = reason
    if error is not None:
        assert sum(isinstance(error, error_class) for error_class in (TryAgain, GiveUp, Stop)) == 1
        assert len(error.message) <= MESSAGE_CHARACTERS + 100
        assert error.message.isprintable()
        for said in (error.message, error.type, error.code, error.param, error.request_id):
            assert said is None or said.encode()
        assert error.retry_after is None or error.retry_after > 0


def test_the_settings_that_a_server_says_it_used_are_kept() -> None:
    body = {"data": [{"b64_json": "AAAA"}], "size": "1024x1024", "quality": "low", "created": 1, "background": 7}
    answer = read(200, body)
    assert answer.settings == {"size": "1024x1024", "quality": "low"}


def test_each_text_that_is_kept_has_an_end() -> None:
    many = {f"{number}{'k' * 200}": "v" * 500 for number in range(1000)}
    prompt = "a" * (PROMPT_CHARACTERS + 1)
    answer = read(200, {"data": [{"b64_json": "QUJD", "revised_prompt": prompt}], "usage": many, "size": "s" * 500})
    assert answer.images[0].revised_prompt == prompt[:-1]
    assert answer.usage is not None
    assert (len(answer.usage), max(map(len, answer.usage)), len(answer.settings["size"])) == (99, 80, 200)
    assert {len(value) for value in answer.usage.values()} == {200}


def test_an_image_url_of_any_length_is_not_kept() -> None:
    url = f"https://h.example/{'a' * URL_CHARACTERS}"
    error = refused(200, {"data": [{"url": url}]})
    assert (type(error), error.deterministic) == (Unusable, True)
    assert "an image URL of more than 16,384 characters" in error.message
    assert len(read(200, {"data": [{"url": url}, {"url": url[:URL_CHARACTERS]}]}).images) == 1


_FIELDS = {"type": "invalid_request_error", "param": "model", "code": None}


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (400, {"error": {"message": "The model `m` has been deprecated.", **_FIELDS}}, ModelUnknown),
        (400, {"error": {"message": "The model 'm' does not exist.", **_FIELDS}}, ModelUnknown),
        (400, {"error": {"message": "Model m is no longer available", "code": None}}, ModelUnknown),
        (410, {"error": {"message": "The model `m` has been shut down.", **_FIELDS}}, ModelUnknown),
        (410, {"error": {"message": "gone", "code": "ModelDeprecated"}}, ModelUnknown),
        (400, {"error": {"message": "`style` for the model m is no longer supported", "param": "style"}}, Invalid),
        (400, {"error": {"message": "style is no longer supported for the model m", "code": None}}, Invalid),
        (404, {"error": {"message": "The model has been deprecated."}}, ModelUnknown),
        (400, {"error": {"message": "Your prompt: this model is no longer available", "code": None}}, Invalid),
        (400, {"error": {"message": 'Prompt "the model was removed" is too long', "code": None}}, Invalid),
        (400, {"error": {"message": "Input image: the fashion model was removed", "code": None}}, Invalid),
        (429, {"error": {"message": "You have reached your specified API usage limits."}}, QuotaSpent),
        (429, {"error": {"message": "You have reached your usage limit. Please try again in 20s."}}, RateLimited),
        (403, {"error": {"message": "Key limit exceeded (total limit).", "code": 403}}, QuotaSpent),
        (403, {"error": {"message": "预扣费额度失败, 用户剩余额度: $0.02", "type": "new_api_error"}}, QuotaSpent),
        (400, {"error": {"message": "litellm.ContentPolicyViolationError: it was rejected", "code": "400"}}, Moderated),
        (
            429,
            {"error": {"message": "Request too large for m on TPM: Limit 100, Requested 416.", "type": "tokens"}},
            Invalid,
        ),
        *((status, b"", OutcomeUnknown) for status in (444, 460, 499)),
    ],
)
def test_more_words_of_gateways_have_their_classes(status: int, body: Any, error_class: type[RequestError]) -> None:
    assert type(refused(status, body)) is error_class


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ({"retry_after": 13.5}, 13.5),
        ({"retryAfter": "20"}, 20.0),
        ({"details": [{}, {"@type": "x/google.rpc.RetryInfo", "retryDelay": "38s"}]}, 38.0),
        *(({"retry_after": none}, None) for none in (0, -5, "soon", 30_000, 1_795_910_400, True, None, [7])),
    ],
)
def test_a_body_may_say_how_long_to_wait(stated: dict[str, Any], seconds: float | None) -> None:
    said = {"code": 429, "message": "Resource has been exhausted", "status": "RESOURCE_EXHAUSTED", **stated}
    assert refused(429, {"error": said}).retry_after == seconds
    assert refused(429, said).retry_after == seconds


@pytest.mark.parametrize(
    ("item", "error_class"),
    [
        ({"b64_json": None, "error": {"code": "contentFilter", "message": "no"}}, Moderated),
        ({"refusal": "I can not draw that."}, Moderated),
        ({"message": {"role": "assistant", "content": None, "refusal": "I can not draw that."}}, Moderated),
        ({"url": None, "error": {"code": "insufficient_quota", "message": "spent"}}, QuotaSpent),
        ({"url": None, "error": {"message": "ouch"}}, Unusable),
        ({"refusal": None}, Unusable),
    ],
)
def test_an_error_in_place_of_an_image_has_its_class(item: dict[str, Any], error_class: type[RequestError]) -> None:
    for place in ("data", "choices"):
        assert type(refused(200, {"created": 1, place: [None, item]})) is error_class, place


def test_an_image_that_is_called_unsafe_was_moderated() -> None:
    answer = read(200, {"data": [{"is_image_safe": False, "url": None}, {"is_image_safe": True, "url": "https://h/x"}]})
    assert (len(answer.images), answer.moderated) == (1, 1)


@pytest.mark.parametrize("nothing", ["None", "null", "undefined"])
def test_the_word_for_nothing_is_no_image(nothing: str) -> None:
    assert len(read(200, {"data": [{"b64_json": nothing, "url": "https://h/x"}]}).images) == 1
    assert type(refused(200, {"data": [{"url": nothing, "b64_json": nothing}]})) is Unusable


def test_a_refusal_beside_an_image_is_one_that_was_moderated() -> None:
    answer = read(200, {"data": [{"b64_json": "QUJD"}, {"refusal": "I can not draw that."}]})
    assert (len(answer.images), answer.moderated) == (1, 1)


@pytest.mark.parametrize("text", ["%s\n<!-- proxy -->", ")]}',\n%s", "while(1);%s", "%s\n%s "])
def test_what_stands_around_a_body_costs_no_image(text: str) -> None:
    body = json.dumps({"created": 1, "data": [{"b64_json": "QUJD"}]})
    assert len(read(200, text.replace("%s", body).encode()).images) == text.count("%s")


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (403, b"<!DOCTYPE html><html><title>Just a moment...</title></html>", {}),
        (403, b"", {"cf_mitigated": "challenge"}),
        (200, b"<html><title>Sign in</title></html>", {}),
    ],
)
def test_what_answers_in_place_of_the_server_is_no_error_of_the_key(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    error = refused(status, body, **headers)
    assert isinstance(error, WrongAddress)
    (advice,) = stop_advice([error])
    assert advice.startswith("fix what answers in the server's place, such as a login page or a firewall")


@pytest.mark.parametrize(("status", "proxy"), [(407, None), (403, "proxy:3128")])
def test_what_a_proxy_refuses_has_its_own_advice(status: int, proxy: str | None) -> None:
    error = read_error(HttpResponse(status, {}, b"<html>Denied</html>", URL, proxy))
    assert isinstance(error, WrongAddress)
    assert "(check HTTP_PROXY and NO_PROXY)" in error.message
    assert stop_advice([error]) == ["correct HTTP_PROXY or NO_PROXY, or what the proxy allows and whom"]


@pytest.mark.parametrize(
    "message",
    [
        "litellm.APIError: AzureException ContentPolicyViolationError - Your request was rejected by our safety system",
        "Your request was rejected as a result of our safety system. Your prompt may contain text that is not allowed.",
    ],
)
def test_a_moderation_with_the_status_of_a_fault_is_one(message: str) -> None:
    assert type(refused(500, {"error": {"message": message}})) is Moderated
    assert type(refused(500, {"error": {"message": f"worker died; prompt: {message}"}})) is ServerFault


def test_what_a_chat_answers_in_place_of_an_image_is_shown() -> None:
    choice = {"message": {"role": "assistant", "content": "I can't help with\nthat."}, "finish_reason": "stop"}
    error = refused(200, {"choices": [choice], "created": 1})
    assert type(error) is Unusable
    assert "with the text “I can't help with that.”: no image" in error.message

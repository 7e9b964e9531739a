"""API errors: envelopes, headers and durations in the service's form."""

from __future__ import annotations

import json

import pytest

from pipeline.sandbox import api_errors as errors
from pipeline.sandbox.rate_window import RateLimit


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0s"),
        (0.0141, "15ms"),
        (0.9991, "1s"),
        (1.2, "1.2s"),
        (49.5, "49.5s"),
        (59.9999, "1m0s"),
        (360.0, "6m0s"),
        (5400.25, "1h30m0.25s"),
    ],
)
def test_a_duration_is_written_as_the_service_does_and_never_too_short(seconds: float, written: str) -> None:
    assert errors.duration(seconds) == written


def test_an_envelope_has_all_four_fields_and_is_unicode_whatever_it_quotes() -> None:
    body = errors.unknown_parameter("a\udcff\x00\u732b").body()
    assert json.loads(body.decode())["error"] == {
        "message": "Unknown parameter: 'a?\x00\u732b'.",
        "type": "invalid_request_error",
        "param": "a?\x00\u732b",
        "code": "unknown_parameter",
    }


def test_rate_limit_errors_of_generations_and_edits_differ_in_message_and_not_in_headers() -> None:
    limit = RateLimit(5, 60)
    made = errors.rate_limited(limit, used=5, asked=2, wait=12.0, meter="images")
    edited = errors.rate_limited(limit, used=5, asked=2, wait=12.0, meter="input-images")
    assert "Limit: 5/1min. Current: 7/1min. Please try again in 12s." in str(made)
    assert "on input-images per min: Limit 5, Used 5, Requested 2. Please try again in 12s." in str(edited)
    assert (made.error["type"], edited.error["type"]) == ("requests", "input-images")
    assert made.headers == edited.headers
    assert made.headers == {
        "Retry-After": "12",
        "retry-after-ms": "12000",
        "x-ratelimit-limit-images": "5",
        "x-ratelimit-remaining-images": "0",
        "x-ratelimit-reset-images": "12s",
    }

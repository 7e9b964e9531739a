"""Parsing of settings."""

from __future__ import annotations

import pytest

from pipeline.sandbox.rate_window import RateLimit
from pipeline.sandbox.settings import SandboxSettings


def test_an_empty_mapping_is_the_default() -> None:
    assert SandboxSettings.from_mapping({}) == SandboxSettings()
    assert SandboxSettings().rate_limit == RateLimit(50, 60)


def test_null_means_no_limit_and_missing_keys_keep_their_defaults() -> None:
    assert SandboxSettings.from_mapping({"rate_limit": None}).rate_limit is None
    assert SandboxSettings.from_mapping({"rate_limit": {"images": 5}}).rate_limit == RateLimit(5, 60)


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"latency": [0, 1]}, "latency: unknown key; did you mean 'latency_seconds'?"),
        ({"faults": {"http_501": 0.1}}, "faults.http_501: unknown key; did you mean 'http_50"),
        ({"faults": {"slow": 1.5}}, "faults.slow: expected a number from 0 to 1, got 1.5"),
        ({"faults": {"slow": 0.6, "empty": 0.6}}, "faults: the probabilities for calls add up to 1.2, more than 1"),
        ({"faults": [1]}, r"faults: expected a mapping, got \[1\]"),
        ({"latency_seconds": [2, 1]}, "latency_seconds: the low end 2 is above the high end 1"),
        ({"latency_seconds": 2}, r"latency_seconds: expected two numbers, \[low, high\], got 2"),
        ({"rate_limit": {"image": 1}}, "rate_limit.image: unknown key; did you mean 'images'?"),
        ({"rate_limit": {"images": 1.5}}, "rate_limit.images: expected a whole number, got 1.5"),
        ({"rate_limit": {"per_seconds": float("nan")}}, "rate_limit.per_seconds: expected a number, got nan"),
        ({"require_key": "no"}, "require_key: expected true or false, got 'no'"),
        ({"quota_images": -1}, "quota_images: expected a whole number of at least 0, got -1"),
        ({"today": "2026-11-31"}, "today: expected a day as YYYY-MM-DD, got '2026-11-31'"),
        ({"today": 2026}, "today: expected a day as YYYY-MM-DD, got 2026"),
        ({"verified": 1}, "verified: expected true or false, got 1"),
        ({"seed": True}, "seed: expected a whole number, got True"),
        ({"zzz": 1}, "zzz: unknown key; the keys are rate_limit"),
    ],
)
def test_an_invalid_setting_is_named_in_the_message(mapping: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        SandboxSettings.from_mapping(mapping)

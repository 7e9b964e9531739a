"""Parsing of settings."""

from __future__ import annotations

import pytest

from pipeline.sandbox.batch_settings import BatchFaults, BatchSettings
from pipeline.sandbox.rate_window import RateLimit
from pipeline.sandbox.settings import SandboxSettings


def test_an_empty_mapping_is_the_default() -> None:
    assert SandboxSettings.from_mapping({}) == SandboxSettings()
    assert SandboxSettings().rate_limit == RateLimit(50, 60)


def test_settings_of_batches_are_read_and_missing_ones_keep_their_defaults() -> None:
    settings = SandboxSettings.from_mapping(
        {"batch": {"seconds": [5, 60], "enqueued_tokens": None, "faults": {"create_lost": 0.1}}}
    )
    expected = BatchSettings(seconds=(5.0, 60.0), enqueued_tokens=None, faults=BatchFaults(create_lost=0.1))
    assert settings.batch == expected
    assert BatchSettings() == BatchSettings((0.2, 1.0), 0.1, 86400.0, 1_000_000, BatchFaults())


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
        ({"slow_seconds": -1}, "slow_seconds: expected a number from 0 to 86400, got -1"),
        ({"quota_images": -1}, "quota_images: expected a whole number of at least 0, got -1"),
        ({"dialect": {"draws": "large"}}, "dialect.draws: expected a size like 512x512, got 'large'"),
        ({"shutdown_dates": {"m": "soon"}}, "shutdown_dates.m: expected a day as YYYY-MM-DD, got 'soon'"),
        ({"organization": {"denied_models": "m"}}, "organization.denied_models: expected a list of names, got 'm'"),
        ({"organization": {"rate_limits": {"m": -1}}}, "organization.rate_limits.m: expected a whole number of at"),
        ({"organization": {"spend_limit": 1}}, "organization.spend_limit: unknown key; did you mean 'spend_limit_usd'"),
        ({"today": "2026-11-31"}, "today: expected a day as YYYY-MM-DD, got '2026-11-31'"),
        ({"today": 2026}, "today: expected a day as YYYY-MM-DD, got 2026"),
        ({"verified": 1}, "verified: expected true or false, got 1"),
        ({"seed": True}, "seed: expected a whole number, got True"),
        ({"batch": 1}, "batch: expected a mapping, got 1"),
        ({"batch": {"second": [0, 1]}}, "batch.second: unknown key; did you mean 'seconds'?"),
        ({"batch": {"seconds": 1}}, r"batch.seconds: expected two numbers, \[low, high\], got 1"),
        ({"batch": {"seconds": [2, 1]}}, "batch.seconds: the low end 2 is above the high end 1"),
        ({"batch": {"finalizing_seconds": -1}}, "batch.finalizing_seconds: expected a number from 0 to 86400, got -1"),
        ({"batch": {"expires_seconds": 0}}, "batch.expires_seconds: expected a number from 0.001"),
        ({"batch": {"enqueued_tokens": 1.5}}, "batch.enqueued_tokens: expected a whole number, got 1.5"),
        ({"batch": {"faults": {"create_los": 1}}}, "batch.faults.create_los: unknown key; did you mean 'create_lost'?"),
        ({"batch": {"faults": {"cut_content": 2}}}, "batch.faults.cut_content: expected a number from 0 to 1, got 2"),
        (
            {"batch": {"faults": {"failed": 0.6, "expired": 0.6}}},
            "batch.faults: failed, expired, spend_cap add up to 1.2, more than 1",
        ),
        (
            {"batch": {"faults": {"lines_missing": 0.6, "duplicate_line": 0.6}}},
            "batch.faults: lines_missing, duplicate_line, malformed_line add up to 1.2, more than 1",
        ),
        ({"zzz": 1}, "zzz: unknown key; the keys are rate_limit"),
    ],
)
def test_an_invalid_setting_is_named_in_the_message(mapping: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        SandboxSettings.from_mapping(mapping)

"""Signed URLs, without a server."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sandbox.drawing.image_spec import ImageSpec, caption_of
from pipeline.sandbox.signed_urls import BlobError, SignedUrls

PARAMETERS = ["st", "se", "sp", "sv", "sr", "rscd", "rsct", "skoid", "sktid", "skt", "ske", "sks", "skv", "sig"]
NOW = 1_800_000_000.0
SPEC = ImageSpec("0123456789abcdef", "a cat", 256, 256)


def signed_urls(now: float = NOW, seed: int = 0, ttl: float = 3600.0) -> SignedUrls:
    return SignedUrls(seed, ttl, lambda: now)


def raw_path(url: str) -> str:
    return url.removeprefix("http://host")


def test_a_url_is_in_service_form_of_the_service_and_its_expiry() -> None:
    query = urlsplit(signed_urls().sign("http://host", SPEC)).query
    values = {name: value[0] for name, value in parse_qs(query).items()}
    assert list(values) == PARAMETERS
    assert (values["st"], values["se"]) == ("2027-01-15T07:00:00Z", "2027-01-15T09:00:00Z")
    assert values["ske"] > values["se"]
    assert "%3A" in query
    assert ":" not in query


@given(st.text(max_size=2000), st.sampled_from(["png", "jpeg", "webp"]), st.none() | st.just("0" * 64))
def test_a_url_of_any_prompt_decodes_to_its_spec_and_stays_short(prompt: str, kind: str, source: str | None) -> None:
    spec = ImageSpec("0" * 16, caption_of(prompt), 1024, 768, format=kind, source=source)
    url = signed_urls().sign("http://host", spec)
    assert signed_urls().verify(raw_path(url)) == spec
    assert len(url) < 2500


def test_another_seed_makes_another_signature() -> None:
    url = signed_urls(seed=1).sign("http://host", SPEC)
    with pytest.raises(BlobError) as caught:
        signed_urls(seed=2).verify(raw_path(url))
    assert (caught.value.status, caught.value.code) == (403, "AuthenticationFailed")


def test_a_short_validity_is_not_shortened_by_rounding() -> None:
    url = signed_urls(now=NOW + 0.9, ttl=0.5).sign("http://host", SPEC)
    assert signed_urls(now=NOW + 1.3).verify(raw_path(url)) == SPEC
    with pytest.raises(BlobError, match="authenticate"):
        signed_urls(now=NOW + 2).verify(raw_path(url))


def test_the_delegation_key_is_valid_as_long_as_the_url() -> None:
    query = parse_qs(urlsplit(signed_urls(ttl=200_000).sign("http://host", SPEC)).query)
    assert query["ske"] >= query["se"]

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
SKETCH = ImageSpec("0123456789abcdef", "a cat", 256, 256)


def links(now: float = NOW, seed: int = 0, ttl: float = 3600.0) -> SignedUrls:
    return SignedUrls(seed, ttl, lambda: now)


def raw_path(url: str) -> str:
    return url.removeprefix("http://host")


def test_a_url_has_the_form_of_the_service_and_tells_its_life() -> None:
    query = urlsplit(links().sign("http://host", SKETCH)).query
    values = {name: value[0] for name, value in parse_qs(query).items()}
    assert list(values) == PARAMETERS
    assert (values["st"], values["se"]) == ("2027-01-15T07:00:00Z", "2027-01-15T09:00:00Z")
    assert values["ske"] > values["se"]
    assert "%3A" in query
    assert ":" not in query


@given(st.text(max_size=2000), st.sampled_from(["png", "jpeg", "webp"]), st.none() | st.just("0" * 64))
def test_a_url_of_any_prompt_gives_its_sketch_again_and_stays_short(prompt: str, kind: str, source: str | None) -> None:
    spec = ImageSpec("0" * 16, caption_of(prompt), 1024, 768, format=kind, source=source)
    url = links().sign("http://host", spec)
    assert links().verify(raw_path(url)) == spec
    assert len(url) < 2500


def test_another_seed_signs_otherwise() -> None:
    url = links(seed=1).sign("http://host", SKETCH)
    with pytest.raises(BlobError) as caught:
        links(seed=2).verify(raw_path(url))
    assert (caught.value.status, caught.value.code) == (403, "AuthenticationFailed")


def test_a_short_life_is_not_made_shorter_by_whole_seconds() -> None:
    url = links(now=NOW + 0.9, ttl=0.5).sign("http://host", SKETCH)
    assert links(now=NOW + 1.3).verify(raw_path(url)) == SKETCH
    with pytest.raises(BlobError, match="authenticate"):
        links(now=NOW + 2).verify(raw_path(url))


def test_a_long_life_outlives_no_delegation_key() -> None:
    query = parse_qs(urlsplit(links(ttl=200_000).sign("http://host", SKETCH)).query)
    assert query["ske"] >= query["se"]

"""How many bytes the response to a call may have: by what it asks for, and not by the most that any call may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.client import limits
from pipeline.client.limits import RESPONSE_BYTES, response_bytes

MB = 2**20


@pytest.mark.parametrize(
    ("params", "images"),
    [
        ({}, 100 * MB),
        ({"n": 1, "size": "auto"}, 100 * MB),
        ({"n": 10}, 1000 * MB),
        ({"n": 1, "size": "1024x1024"}, 25 * MB),
        ({"n": 3, "size": "256x256"}, 75 * MB),
        ({"n": 1, "size": "2048x2048"}, 32 * MB),
        ({"n": 1, "size": "99999x99999"}, 100 * MB),
        ({"n": None, "size": None}, 100 * MB),
    ],
)
def test_a_response_may_hold_what_the_call_asks_for(params: dict[str, object], images: int) -> None:
    assert response_bytes(params, 100 * MB) == RESPONSE_BYTES + images * 4 // 3


def test_a_larger_option_allows_more_whatever_the_size() -> None:
    params = {"n": 1, "size": "1024x1024"}
    assert response_bytes(params, 400 * MB) == RESPONSE_BYTES + 100 * MB * 4 // 3


def test_the_readme_states_the_limits() -> None:
    text = (Path(limits.__file__).parents[1] / "config" / "README.md").read_text()
    assert limits.RESPONSE_BYTES == MB
    assert f"at most {limits.IMAGES} |" in text
    assert f"| {limits.HEADERS}, each up to {limits.HEADER_BYTES // 1024} KB" in text
    assert f"| {limits.URL_CHARACTERS:,} characters |" in text
    kept = f"{limits.PROMPT_CHARACTERS:,}; {limits.MESSAGE_CHARACTERS:,}; {limits.WORD_CHARACTERS} characters are kept"
    assert kept in text
    batches = f"{limits.OBJECT_BYTES // MB} MB; {limits.ID_CHARACTERS:,} characters; {limits.BATCH_ERRORS:,} are kept"
    assert batches in text

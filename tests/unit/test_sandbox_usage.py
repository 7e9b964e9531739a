"""Token counts, compared with OpenAI's image guide."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.sandbox.api_errors import duration
from pipeline.sandbox.rules.usage import output_tokens, usage


@pytest.mark.parametrize(
    ("generation", "quality", "size", "tokens"),
    [
        ("gpt-image-1", "low", (1024, 1024), 272),
        ("gpt-image-1", "high", (1024, 1536), 6240),
        ("gpt-image-2", "low", (1024, 1024), 196),
        ("gpt-image-2", "medium", (1536, 1024), 1372),
        ("gpt-image-2", "high", (3840, 2160), 13342),
        ("gpt-image-2.5", "medium", (1024, 1024), 439),
        ("gpt-image-2.5", "medium", (2048, 1152), 367),
        ("gpt-image-2.5", "xhigh", (2048, 2048), 6343),
        ("gpt-image-2.5", "max", (1024, 1536), 5488),
    ],
)
def test_the_tokens_of_an_image_are_those_of_the_guide(
    generation: Any, quality: str, size: tuple[int, int], tokens: int
) -> None:
    assert output_tokens(generation, quality, *size) == tokens


def test_usage_adds_up() -> None:
    bill = usage("a white cat!", [(1024, 1024)], 196)
    assert (bill["input_tokens"], bill["output_tokens"], bill["total_tokens"]) == (3 + 1024, 196, 3 + 1024 + 196)


def test_a_duration_is_written_as_the_service_does_and_never_too_short() -> None:
    assert [duration(seconds) for seconds in (0.1196, 1.2, 60, 360, 49.5001)] == [
        "120ms",
        "1.2s",
        "1m0s",
        "6m0s",
        "49.501s",
    ]

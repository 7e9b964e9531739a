"""Compute the tokens that the service would bill for a call.

Output tokens follow OpenAI's image guide: a table for gpt-image-1, and from gpt-image-2 on the closed formula of its
calculator (re-computed against about twenty published counts, all exact). For inputs no formula is published: prompts
count four bytes a token here, images one token for 1024 pixels; nor for what a GIF costs, which is one image here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.sandbox.rules.models import Generation

GPT_IMAGE_1_TOKENS: Final = {
    "low": {"1024x1024": 272, "1024x1536": 408, "1536x1024": 400},
    "medium": {"1024x1024": 1056, "1024x1536": 1584, "1536x1024": 1568},
    "high": {"1024x1024": 4160, "1024x1536": 6240, "1536x1024": 6208},
}
LONG_EDGE_TOKENS: Final = {
    "gpt-image-2": {"low": 16, "medium": 48, "high": 96},
    "gpt-image-2.5": {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96},
}
TOKENS_PER_PARTIAL: Final = 100
REASONING_TOKENS: Final = {
    "none": 0,
    "minimal": 50,
    "low": 200,
    "medium": 800,
    "high": 2000,
    "xhigh": 4000,
    "max": 8000,
}
"""Reasoning tokens of an SVG by effort; invented, in ascending order."""


def output_tokens(generation: Generation, quality: str, width: int, height: int) -> int:
    """Return the output tokens of one image; `quality` is not `auto`."""
    if generation not in LONG_EDGE_TOKENS:
        return GPT_IMAGE_1_TOKENS[quality][f"{width}x{height}"]
    short, long = sorted((width, height))
    edge = LONG_EDGE_TOKENS[generation][quality]
    side = (2 * edge * short + long) // (2 * long)  # edge * short / long, rounded half up
    return math.ceil(edge * side * (2_000_000 + width * height) / 4_000_000)


def usage(prompt: str, sizes: Iterable[tuple[int, int]], image_tokens: int) -> dict[str, object]:
    """Return the `usage` of a call from its prompt, the sizes of its uploads and its output tokens."""
    text_in = text_tokens(prompt)
    image_in = sum(math.ceil(width * height / 1024) for width, height in sizes)
    return {
        "input_tokens": text_in + image_in,
        "input_tokens_details": {"text_tokens": text_in, "image_tokens": image_in},
        "output_tokens": image_tokens,
        "output_tokens_details": {"text_tokens": 0, "image_tokens": image_tokens},
        "total_tokens": text_in + image_in + image_tokens,
    }


def svg_usage(model: str, effort: str, prompt: str, size: int) -> dict[str, object]:
    """Return the `svg_usage` of an SVG of `size` bytes, which is billed besides the images."""
    text_in, reasoning = text_tokens(prompt), REASONING_TOKENS[effort]
    out = reasoning + math.ceil(size / 4)
    return {
        "model": model,
        "input_tokens": text_in,
        "output_tokens": out,
        "reasoning_tokens": reasoning,
        "total_tokens": text_in + out,
    }


def text_tokens(prompt: str) -> int:
    """Return the tokens of a prompt."""
    return math.ceil(len(prompt.encode()) / 4)

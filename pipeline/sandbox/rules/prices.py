"""Compute what a call costs in USD.

Read from the price tables of the models' pages: tokens for GPT Image models, images for the dall-e family. No price is
published for the text model that writes an SVG, so its tokens cost nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.rules.validate import ImageCall

BATCH_SHARE: Final = 0.5
"""A line of a batch costs this share of what the same call costs at once."""


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD for a million tokens."""

    text_in: float
    image_in: float
    image_out: float


GPT_IMAGE: Final = TokenPrices(5.0, 8.0, 30.0)
OLDER_GPT_IMAGE: Final[dict[str, TokenPrices]] = {
    "gpt-image-1": TokenPrices(5.0, 10.0, 40.0),
    "gpt-image-1-mini": TokenPrices(2.0, 2.5, 8.0),
    "gpt-image-1.5": TokenPrices(5.0, 8.0, 32.0),
    "gpt-image-1.5-2025-12-16": TokenPrices(5.0, 8.0, 32.0),
    "chatgpt-image-latest": TokenPrices(5.0, 8.0, 32.0),
}
DALL_E: Final[dict[str, dict[str, float]]] = {
    "standard": {"256x256": 0.016, "512x512": 0.018, "1024x1024": 0.020},
    "dall-e-3 standard": {"1024x1024": 0.040, "1792x1024": 0.080, "1024x1792": 0.080},
    "dall-e-3 hd": {"1024x1024": 0.080, "1792x1024": 0.120, "1024x1792": 0.120},
}


def cost_usd(call: ImageCall, usage: Mapping[str, object]) -> float:
    """Return the cost of a call at once; `usage` is that of a GPT Image model, and not read for others."""
    if not call.family.is_gpt:
        kind = f"dall-e-3 {call.quality}" if call.model == "dall-e-3" else call.quality
        return call.n * DALL_E[kind][call.size]
    prices = OLDER_GPT_IMAGE.get(call.model, GPT_IMAGE)
    details, tokens_out = usage["input_tokens_details"], usage["output_tokens"]
    assert isinstance(details, dict)
    assert isinstance(tokens_out, int)
    text_in, image_in = details["text_tokens"], details["image_tokens"]
    return float(text_in * prices.text_in + image_in * prices.image_in + tokens_out * prices.image_out) / 1e6

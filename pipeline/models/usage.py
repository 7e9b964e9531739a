"""Compute the cost of a call in USD from token counts: prices per million tokens, and `usage` of a response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD per million tokens."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    text_in: float
    image_in: float
    image_out: float
    text_out: float | None = None

    @property
    def max_text_out(self) -> float:
        """The price of output text; if none is published, that of output images, so that a cost is never too low."""
        return self.image_out if self.text_out is None else self.text_out


def usage_cost(price: TokenPrices, operation: str, usage: Mapping[str, object]) -> float | None:
    """Return the cost of a response by its `usage`, or None if it counts nothing (some servers send zeros)."""
    output = _count(usage, "output_tokens")
    if not output:
        return None
    text, image = _details(usage, "input_tokens_details")
    rest = max(0, _count(usage, "input_tokens") - text - image)  # without details: the more expensive kind
    text_out, _ = _details(usage, "output_tokens_details")
    image_out = max(0, output - text_out)
    spent = text * price.text_in + image * price.image_in + image_out * price.image_out + text_out * price.max_text_out
    spent += rest * (price.text_in if operation == "generation" else max(price.text_in, price.image_in))
    return round(spent / MILLION, 8)


def _details(usage: Mapping[str, object], key: str) -> tuple[int, int]:
    details = usage.get(key)
    return (_count(details, "text_tokens"), _count(details, "image_tokens")) if isinstance(details, dict) else (0, 0)


def _count(usage: Mapping[str, object], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

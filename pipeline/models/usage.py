"""Compute the cost of a call in USD from token counts: prices per million tokens, and `usage` of a response."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

MILLION = 1_000_000
_INPUT = ("input_tokens", "prompt_tokens")  # the API's name, and that of chats, which some servers use here too
_OUTPUT = ("output_tokens", "completion_tokens")
_BEYOND = 1e15


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
    output = _count(usage, *_OUTPUT)
    if not output:
        return None
    text, image = _details(usage, _INPUT)
    rest = max(0, _count(usage, *_INPUT) - text - image)  # without details: the more expensive kind
    text_out, _ = _details(usage, _OUTPUT)
    image_out = max(0, output - text_out)
    spent = text * price.text_in + image * price.image_in + image_out * price.image_out + text_out * price.max_text_out
    spent += rest * (price.text_in if operation == "generation" else max(price.text_in, price.image_in))
    return round(spent / MILLION, 8)


def stated_cost(usage: Mapping[str, object]) -> float | None:
    """Return the cost in USD that a `usage` states itself, as routers do, or None."""
    cost = usage.get("cost")
    if not isinstance(cost, int | float) or isinstance(cost, bool) or not 0 < cost < math.inf:
        return None
    return round(float(cost), 8)


def _details(usage: Mapping[str, object], names: tuple[str, ...]) -> tuple[int, int]:
    details = next((found for name in names if isinstance(found := usage.get(f"{name}_details"), dict)), {})
    return _count(details, "text_tokens"), _count(details, "image_tokens")


def _count(usage: Mapping[str, object], *names: str) -> int:
    """Return the first count that is there and not zero; some servers write whole numbers as 12.0."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _BEYOND:
            return round(value)
    return 0

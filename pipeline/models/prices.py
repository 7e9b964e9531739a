"""Compute the expected, the maximum and the actual cost of a call in USD, from the prices of its model.

The actual cost comes from `usage` of the response if it has one; everything else is computed from tables (OpenAI image
guide) and from the formula of OpenAI's price calculator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.models.rules import parse_size, quoted
from pipeline.models.usage import MILLION, TokenPrices, stated_cost, usage_cost

_AUTO = (None, "auto")
_PLAUSIBLE = 0.1  # of the table's price: the least that a `usage` may amount to
_MOST_TIMES_TABLE = 100
_BYTES_PER_TOKEN = 4  # about right for English text
_TEXT_OVERHEAD = 64  # tokens around the prompt, and again for each image; users report 6 to 50 (OpenAI forum)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected cost of a call, None if no price is known; `assumed` lists the assumptions."""

    usd: float | None
    assumed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """The actual cost of a call in USD, None if it cannot be known.

    `ignored_usd` is what its `usage` amounts to, if that is too little to be true and the table counts instead.
    """

    usd: float | None
    ignored_usd: float | None = None


@dataclass(frozen=True, slots=True)
class TokenAssumption:
    """A number of tokens that is not published: the assumed value, and an upper bound."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    assumed: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class AutoValues:
    """The values that `auto` counts as, for quality and size."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    quality: str
    size: str


@dataclass(frozen=True, slots=True)
class Prices:
    """The prices of a model. Tables are by quality, then by size ("1024x1024")."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    per_million: TokenPrices | None = None
    per_image: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # USD; takes precedence over tokens
    output_tokens: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    output_grid: Mapping[str, int] = field(default_factory=dict)  # quality → tokens along the long edge
    partial_image_tokens: int = 0
    auto: AutoValues | None = None
    input_image_tokens: TokenAssumption = TokenAssumption()  # of one input image
    value_input_image_tokens: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # additional tokens, by a parameter
    output_text_tokens: TokenAssumption = TokenAssumption()
    unpriced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # parameter → values without a price
    note: str | None = None

    def estimate(self, prompt: str | None, params: Mapping[str, object], n: int, inputs: int) -> Estimate:
        """Return the expected cost of a call for `n` images with `inputs` input images.

        `params` include the model's defaults.
        """
        if unpriced := self._unpriced(params):
            return Estimate(None, (unpriced,))
        quality, size = self._without_auto(params)
        assumed = [
            f"{name} auto counted as {counted}"
            for name, counted in (("quality", quality), ("size", size))
            if params.get(name) in _AUTO and self.auto is not None
        ]
        per_image = self._image_cost(quality, size)
        if per_image is None:
            return Estimate(None, (f"the table has no price for quality {quality} at {size}",))
        if self.per_million is None:
            return Estimate(round(n * per_image, 8), tuple(assumed))
        text_in = text_tokens(prompt)
        image_in = inputs * (self.input_image_tokens.assumed + self._more_input_tokens(params))
        assumed.append(f"the prompt counted as one token per {_BYTES_PER_TOKEN} characters")
        if inputs:
            assumed.append(f"input images counted as {image_in // inputs:,} tokens each (no formula is published)")
        if self.note:
            assumed.append(self.note)
        usd = per_image + self._token_cost(params, text_in, image_in, self.output_text_tokens.assumed)
        return Estimate(round(n * usd, 8), tuple(assumed))

    def max_cost(
        self, prompt: str | None, params: Mapping[str, object], n: int, inputs: int, sizes: Sequence[str]
    ) -> float | None:
        """Return an upper bound of a call's cost: `auto` is the most expensive of `sizes`, a token one byte of text.

        None without a price. It does not hold for a server that bills otherwise than OpenAI publishes.
        """
        if self._unpriced(params):
            return None
        quality, size = params.get("quality"), params.get("size")
        qualities = self._qualities() if quality in _AUTO else (str(quality),)
        chosen = tuple(sizes) if size in _AUTO else (str(size),)
        costs = [self._image_cost(quality, size) for quality in qualities for size in chosen]
        known = [cost for cost in costs if cost is not None]
        if not known:
            return None
        text_in = len((prompt or "").encode()) + _TEXT_OVERHEAD * (1 + inputs)
        image_in = inputs * (self.input_image_tokens.most + self._more_input_tokens(params))
        return round(n * (max(known) + self._token_cost(params, text_in, image_in, self.output_text_tokens.most)), 8)

    def cost(self, operation: str, params: Mapping[str, object], received: int, usage: object) -> Cost:
        """Return the actual cost of a call that brought `received` images: from `usage`, else from the tables.

        A `usage` of less than a tenth of the least price in the table does not count: no server is that cheap.
        """
        if self._unpriced(params):
            return Cost(None)
        table = self.estimate(None, params, received, 0).usd
        counted = self._counted(operation, usage, table) if isinstance(usage, dict) else None
        if counted is None:
            return Cost(table)
        least = self.least_image_cost(params)
        if table is not None and least is not None and counted < received * least * _PLAUSIBLE:
            return Cost(table, ignored_usd=counted)
        return Cost(counted)

    def _counted(self, operation: str, usage: Mapping[str, object], table: float | None) -> float | None:
        """Return what a `usage` costs by its tokens, else what it states in USD; None if it says neither."""
        counted = usage_cost(self.per_million, operation, usage) if self.per_million else None
        if counted is not None:
            return counted
        stated = stated_cost(usage)
        is_dollars = table is None or stated is None or stated <= table * _MOST_TIMES_TABLE  # else another currency
        return stated if is_dollars else None

    def least_image_cost(self, params: Mapping[str, object]) -> float | None:
        """Return the least price of an image with these parameters, since a server may resolve `auto` to anything."""
        quality, size = params.get("quality"), params.get("size")
        qualities = self._qualities() if quality in _AUTO else (str(quality),)
        sizes: set[str | None] = {str(size)}
        if size in _AUTO:
            sizes = {name for table in (self.per_image or self.output_tokens).values() for name in table}
            sizes.add(self.auto.size if self.auto else None)
        costs = [self._image_cost(quality, size) for quality in qualities for size in sizes]
        return min((cost for cost in costs if cost is not None), default=None)

    def _without_auto(self, params: Mapping[str, object]) -> tuple[str | None, str | None]:
        """Return quality and size with `auto` replaced: by the table, or by the only quality that has a price."""
        quality, size = params.get("quality"), params.get("size")
        if quality in _AUTO:
            only = self._qualities()
            quality = self.auto.quality if self.auto else only[0] if len(only) == 1 else None
        if size in _AUTO:
            size = self.auto.size if self.auto else None
        return None if quality is None else str(quality), None if size is None else str(size)

    def _qualities(self) -> tuple[str, ...]:
        return tuple(self.per_image or self.output_grid or self.output_tokens)

    def _image_cost(self, quality: str | None, size: str | None) -> float | None:
        """USD of one output image, without its input."""
        if quality is None or size is None:
            return None
        if self.per_image:
            return self.per_image.get(quality, {}).get(size)
        tokens = self._output_tokens(quality, size)
        return None if tokens is None or self.per_million is None else tokens * self.per_million.image_out / MILLION

    def _output_tokens(self, quality: str, size: str) -> int | None:
        if quality not in self.output_grid:
            return self.output_tokens.get(quality, {}).get(size)
        edges = parse_size(size)
        return None if edges is None else grid_tokens(self.output_grid[quality], *edges)

    def _token_cost(self, params: Mapping[str, object], text_in: int, image_in: int, text_out: int) -> float:
        """USD of all tokens of one image except its own; n images are billed as n calls (users' reports)."""
        if self.per_million is None:
            return 0.0
        partial = params.get("partial_images")
        partials = self.partial_image_tokens * partial if isinstance(partial, int) else 0
        price = self.per_million
        spent = text_in * price.text_in + image_in * price.image_in + partials * price.image_out
        return (spent + text_out * price.max_text_out) / MILLION

    def _more_input_tokens(self, params: Mapping[str, object]) -> int:
        more = self.value_input_image_tokens.items()
        return sum(tokens.get(str(params.get(name)), 0) for name, tokens in more)

    def _unpriced(self, params: Mapping[str, object]) -> str | None:
        for name, values in self.unpriced.items():
            if params.get(name) in values:
                return f"no price is published for {name} {quoted(params[name])}"
        return None


def text_tokens(prompt: str | None) -> int:
    """Return the tokens that a prompt counts as."""
    return -(-len((prompt or "").encode()) // _BYTES_PER_TOKEN)


PriceKey = tuple[str, int, int, int, int]
"""What the estimate of a call depends on, besides the table of models."""


def price_key(operation: str, prompt: str | None, params: Mapping[str, object], n: int, inputs: int) -> PriceKey:
    """Return a key that is equal for calls that are estimated alike, while their parameters exist.

    Parameters count by their identity: the requests of a plan share them.
    """
    return operation, text_tokens(prompt), id(params), n, inputs


def grid_tokens(long_edge: int, width: int, height: int) -> int:
    """Return the output tokens of an image of `width` x `height` pixels with `long_edge` tokens along its long edge.

    OpenAI's calculator in integer arithmetic: the short edge's share is rounded half up, the product is rounded up.
    """
    short, long = sorted((width, height))
    short_edge = (2 * long_edge * short + long) // (2 * long)
    return -(-long_edge * short_edge * (2_000_000 + width * height) // 4_000_000)

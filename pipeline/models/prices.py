"""Prices of a model → what a call would cost, what it costs at most, and what it did cost, in USD.

`usage` of the answer is the truth where there is one; before that everything is counted from tables (OpenAI image
guide) and from the formula behind OpenAI's price calculator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.models.rules import parse_size, quoted

_AUTO = (None, "auto")
_MILLION = 1_000_000
_BYTES_PER_TOKEN = 4  # of English text, about
_TEXT_OVERHEAD = 64  # tokens around the prompt, and again for each picture; users report 6 to 50 (OpenAI forum)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would cost, None where nothing is known of a price; `assumed` says what was guessed."""

    usd: float | None
    assumed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """USD per million tokens."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    text_in: float
    image_in: float
    image_out: float
    text_out: float | None = None

    @property
    def dearest_out(self) -> float:
        """For output text of a model that publishes no price for it, so that a cost is never too low."""
        return self.image_out if self.text_out is None else self.text_out


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that nobody publishes: what is assumed, and what it may be at most."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    assumed: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class Auto:
    """What is counted where quality or size is `auto`."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    quality: str
    size: str


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model costs. Tables are by quality, then by size ("1024x1024")."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    per_million: TokenPrices | None = None
    per_image: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # USD; goes before tokens
    output_tokens: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    output_grid: Mapping[str, int] = field(default_factory=dict)  # quality → tokens along the long edge
    partial_image_tokens: int = 0
    auto: Auto | None = None
    input_image_tokens: Guess = Guess()  # of one input picture
    value_input_image_tokens: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # more, by a parameter
    output_text_tokens: Guess = Guess()
    unpriced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # parameter → values without a price
    note: str | None = None

    def estimate(self, prompt: str | None, params: Mapping[str, object], n: int, inputs: int) -> Estimate:
        """Estimate a call for `n` pictures with `inputs` input pictures; `params` include the model's defaults."""
        if unpriced := self._unpriced(params):
            return Estimate(None, (unpriced,))
        quality, size = self._counted(params)
        assumed = [
            f"{name} auto counted as {counted}"
            for name, counted in (("quality", quality), ("size", size))
            if params.get(name) in _AUTO and self.auto is not None
        ]
        picture = self._picture(quality, size)
        if picture is None:
            return Estimate(None, (f"the table has no price for quality {quality} at {size}",))
        if self.per_million is None:
            return Estimate(round(n * picture, 8), tuple(assumed))
        text = -(-len((prompt or "").encode()) // _BYTES_PER_TOKEN)
        image = inputs * (self.input_image_tokens.assumed + self._more_input_tokens(params))
        assumed.append(f"the prompt counted as one token per {_BYTES_PER_TOKEN} characters")
        if inputs:
            assumed.append(f"input pictures counted as {image // inputs:,} tokens each (no formula is published)")
        if self.note:
            assumed.append(self.note)
        usd = picture + self._tokens(params, text, image, self.output_text_tokens.assumed)
        return Estimate(round(n * usd, 8), tuple(assumed))

    def most(
        self, prompt: str | None, params: Mapping[str, object], n: int, inputs: int, sizes: Sequence[str]
    ) -> float | None:
        """Bound a call's cost from above: `auto` is the dearest there is among `sizes`, a token is one byte of text.

        None where there is no price. Not bounded: a server that bills otherwise than OpenAI publishes.
        """
        if self._unpriced(params):
            return None
        quality, size = params.get("quality"), params.get("size")
        qualities = self._qualities() if quality in _AUTO else (str(quality),)
        chosen = tuple(sizes) if size in _AUTO else (str(size),)
        pictures = [self._picture(quality, size) for quality in qualities for size in chosen]
        known = [picture for picture in pictures if picture is not None]
        if not known:
            return None
        text = len((prompt or "").encode()) + _TEXT_OVERHEAD * (1 + inputs)
        image = inputs * (self.input_image_tokens.most + self._more_input_tokens(params))
        return round(n * (max(known) + self._tokens(params, text, image, self.output_text_tokens.most)), 8)

    def cost(self, operation: str, params: Mapping[str, object], received: int, usage: object) -> float | None:
        """Count what a call for which `received` pictures came did cost; None where nobody can know."""
        if self._unpriced(params):
            return None
        if self.per_million is not None and isinstance(usage, dict):
            counted = _from_usage(self.per_million, operation, usage)
            if counted is not None:
                return counted
        return self.estimate(None, params, received, 0).usd

    def _counted(self, params: Mapping[str, object]) -> tuple[str | None, str | None]:
        """Give quality and size as they are counted: `auto` by the table, a quality that has no other by that one."""
        quality, size = params.get("quality"), params.get("size")
        if quality in _AUTO:
            only = self._qualities()
            quality = self.auto.quality if self.auto else only[0] if len(only) == 1 else None
        if size in _AUTO:
            size = self.auto.size if self.auto else None
        return None if quality is None else str(quality), None if size is None else str(size)

    def _qualities(self) -> tuple[str, ...]:
        return tuple(self.per_image or self.output_grid or self.output_tokens)

    def _picture(self, quality: str | None, size: str | None) -> float | None:
        """USD of one output picture, without what goes in."""
        if quality is None or size is None:
            return None
        if self.per_image:
            return self.per_image.get(quality, {}).get(size)
        tokens = self._output_tokens(quality, size)
        return None if tokens is None or self.per_million is None else tokens * self.per_million.image_out / _MILLION

    def _output_tokens(self, quality: str, size: str) -> int | None:
        if quality not in self.output_grid:
            return self.output_tokens.get(quality, {}).get(size)
        edges = parse_size(size)
        return None if edges is None else grid_tokens(self.output_grid[quality], *edges)

    def _tokens(self, params: Mapping[str, object], text: int, image: int, text_out: int) -> float:
        """USD of all tokens of one picture but its own; n pictures are billed as n calls (users' reports)."""
        if self.per_million is None:
            return 0.0
        partial = params.get("partial_images")
        partials = self.partial_image_tokens * partial if isinstance(partial, int) else 0
        price = self.per_million
        spent = text * price.text_in + image * price.image_in + partials * price.image_out
        return (spent + text_out * price.dearest_out) / _MILLION

    def _more_input_tokens(self, params: Mapping[str, object]) -> int:
        more = self.value_input_image_tokens.items()
        return sum(tokens.get(str(params.get(name)), 0) for name, tokens in more)

    def _unpriced(self, params: Mapping[str, object]) -> str | None:
        for name, values in self.unpriced.items():
            if params.get(name) in values:
                return f"no price is published for {name} {quoted(params[name])}"
        return None


def grid_tokens(long_edge: int, width: int, height: int) -> int:
    """Count the output tokens of a picture of `width` x `height` pixels with so many tokens along its long edge.

    OpenAI's calculator in whole numbers: the short edge's share is rounded half up, the product is rounded up.
    """
    short, long = sorted((width, height))
    short_edge = (2 * long_edge * short + long) // (2 * long)
    return -(-long_edge * short_edge * (2_000_000 + width * height) // 4_000_000)


def _from_usage(price: TokenPrices, operation: str, usage: Mapping[str, object]) -> float | None:
    """USD of an answer's `usage`; None where it counts nothing (servers that do not meter send zeros)."""
    output = _count(usage, "output_tokens")
    if not output:
        return None
    text, image = _details(usage, "input_tokens_details")
    rest = max(0, _count(usage, "input_tokens") - text - image)  # without details: the dearer that can be
    text_out, _ = _details(usage, "output_tokens_details")
    image_out = max(0, output - text_out)
    spent = text * price.text_in + image * price.image_in + image_out * price.image_out + text_out * price.dearest_out
    spent += rest * (price.text_in if operation == "generation" else max(price.text_in, price.image_in))
    return round(spent / _MILLION, 8)


def _details(usage: Mapping[str, object], key: str) -> tuple[int, int]:
    details = usage.get(key)
    return (_count(details, "text_tokens"), _count(details, "image_tokens")) if isinstance(details, dict) else (0, 0)


def _count(usage: Mapping[str, object], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

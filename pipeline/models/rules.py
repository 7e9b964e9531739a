"""Check the value of one parameter by its rule in models.yaml, and convert text cells to the type it needs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pipeline.config.yaml_document import nearest

Operation = Literal["generation", "edit", "variation"]

_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")

_TIMES = re.compile(r"\s*[x\u00d7*]\s*", re.IGNORECASE)  # of a size


@dataclass(frozen=True, slots=True)
class FreeSize:
    """Any WIDTHxHEIGHT within bounds of pixels (OpenAI image guide, gpt-image-2)."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    step: int  # both edges are multiples of it
    longest: int
    ratio: float  # longer edge : shorter edge, at most
    pixels: tuple[int, int]  # width x height, at least and at most

    def __str__(self) -> str:
        least, most = self.pixels
        return (
            f"WIDTHxHEIGHT with both edges multiples of {self.step} and at most {self.longest}, "
            f"not longer than {self.ratio:g}:1, {least:,} to {most:,} pixels"
        )

    def violation(self, size: tuple[int, int]) -> str | None:
        """Return what is wrong with (width, height), or None."""
        short, long = sorted(size)
        least, most = self.pixels
        violations = []
        if short % self.step or long % self.step:
            violations.append(f"an edge is not a multiple of {self.step}")
        if long > self.longest:
            violations.append(f"an edge is longer than {self.longest}")
        if long > self.ratio * short:
            violations.append(f"it is longer than {self.ratio:g}:1")
        if not least <= short * long <= most:
            violations.append(f"it has {short * long:,} pixels")
        return " and ".join(violations) or None

    def largest(self) -> str:
        """Return the largest square: no other size has more pixels or more tokens."""
        edge = min(self.longest, math.isqrt(self.pixels[1])) // self.step * self.step
        return f"{edge}x{edge}"


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """The accepted values of one parameter; the fields are explained at the top of models.yaml."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    values: tuple[str, ...] = ()
    takes: Literal["text", "whole", "flag", "mapping"] | None = None
    range: tuple[int, int] | None = None
    longest: int | None = None
    free_size: FreeSize | None = None
    default: str | int | None = None
    only: tuple[Operation, ...] = ()
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    value_needs: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    value_n: Mapping[str, int] = field(default_factory=dict)
    refused: str | None = None

    def is_for(self, operation: str) -> bool:
        """Whether the operation accepts the parameter."""
        return not self.refused and (not self.only or operation in self.only)

    def allowed(self) -> str:
        """Describe the accepted values: "low, medium or high", "a whole number from 0 to 100"."""
        kinds = list(self.values)
        if self.takes == "whole":
            kinds.append("a whole number" + (f" from {self.range[0]:,} to {self.range[1]:,}" if self.range else ""))
        elif self.takes == "text":
            kinds.append("text" + (f" of at most {self.longest:,} characters" if self.longest else ""))
        elif self.takes is not None:
            kinds.append({"flag": "true or false", "mapping": "a mapping"}[self.takes])
        if self.free_size is not None:
            kinds.append(str(self.free_size))
        return join_or(kinds)

    def violation(self, value: object) -> str | None:
        """Return what is wrong with a value ("is `hd`"), or None; `allowed` describes the accepted values."""
        if isinstance(value, str) and value in self.values:
            return None
        size = parse_size(value)
        if self.free_size is not None and size is not None:
            reason = self.free_size.violation(size)
            return f"is {quoted(value)}: {reason}" if reason else None
        if self.takes is not None and self._has_type(value):
            return None
        close = (self._size_meant(value) or nearest(value, self.values)) if isinstance(value, str) else None
        return f"is {quoted(value)}" + (f" (did you mean `{close}`?)" if close else "")

    def _size_meant(self, value: str) -> str | None:
        """Return the size that a text states in another form, such as `1024 x 1024`, if it is accepted."""
        meant = _TIMES.sub("x", value)
        return meant if meant != value and parse_size(meant) and self.violation(meant) is None else None

    def _has_type(self, value: object) -> bool:
        match self.takes:
            case "text":
                return isinstance(value, str) and (self.longest is None or len(value) <= self.longest)
            case "whole":
                is_whole = isinstance(value, int) and not isinstance(value, bool)
                return is_whole and (self.range is None or self.range[0] <= int(str(value)) <= self.range[1])
            case "flag":
                return isinstance(value, bool)
            case _:
                return isinstance(value, dict)

    def convert(self, text: str) -> object:
        """Convert a text cell to the type that the parameter needs; text that does not fit stays text."""
        if self.takes == "whole" and _WHOLE.fullmatch(text.strip()):
            return int(text)
        if self.takes == "flag" and text.strip().lower() in {"true", "false"}:
            return text.strip().lower() == "true"
        return text


def parse_size(value: object) -> tuple[int, int] | None:
    """Parse "WIDTHxHEIGHT" in pixels; return None for anything else."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    return (int(match[1]), int(match[2])) if match else None


def join_or(words: list[str] | tuple[str, ...]) -> str:
    """Join words into an alternative: "png, jpeg or webp"."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def quoted(value: object) -> str:
    """Format a value for a message: in backticks, as written in YAML, cut after 80 characters."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return f"`{text[:80]}…`" if len(text) > 80 else f"`{text}`"

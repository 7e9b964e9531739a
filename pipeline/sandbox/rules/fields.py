"""Check and convert the value of one field.

A value comes from JSON, where types are strict, or as the text of a form field, where `3` and `true` are strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from pipeline.sandbox import api_errors as errors

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,300}")
FREE_SIZE: Final = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
EDGE_STEP: Final = 16
LONGEST_EDGE: Final = 3840
FEWEST_PIXELS: Final = 655_360
MOST_PIXELS: Final = 8_294_400
WIDEST_RATIO: Final = 3
JSON_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
}


def json_type(value: object) -> str:
    """Return the name of a value's JSON type with its article, as in the service's messages."""
    return JSON_TYPES.get(type(value), "an object")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise errors.invalid_type(name, "a string", json_type(value))
    return value


@dataclass(frozen=True, slots=True)
class Text:
    """A string of `shortest` to `longest` characters."""

    longest: int
    shortest: int = 0

    def parse(self, name: str, value: object, *, from_text: bool) -> str:  # noqa: ARG002 - strings are the same in both
        """Return a valid string. Raises ApiError."""
        text = _text(name, value)
        if len(text) > self.longest:
            raise errors.unsupported(
                f"Invalid '{name}': string too long. Expected a string with maximum length {self.longest}, but got a "
                f"string with length {len(text)} instead.",
                name,
                "string_above_max_length",
            )
        if len(text) < self.shortest:
            raise errors.unsupported(
                f"Invalid '{name}': string too short. Expected a string with minimum length {self.shortest}, but got "
                "an empty string instead.",
                name,
                "string_below_min_length",
            )
        return text


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few strings."""

    values: tuple[str, ...]

    def parse(self, name: str, value: object, *, from_text: bool) -> str:  # noqa: ARG002 - strings are the same in both
        """Return a valid choice. Raises ApiError."""
        text = _text(name, value)
        if text not in self.values:
            raise errors.invalid_value(name, text[:100], self.values)
        return text


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number from `low` to `high`; in JSON a number, in a form its digits."""

    low: int
    high: int

    def parse(self, name: str, value: object, *, from_text: bool) -> int:
        """Return a valid number. Raises ApiError."""
        if from_text and isinstance(value, str) and WHOLE_NUMBER.fullmatch(value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise errors.invalid_type(name, "an integer", json_type(value))
        if value < self.low:
            raise self._outside(name, "below minimum", f">= {self.low}", value, "integer_below_min_value")
        if value > self.high:
            raise self._outside(name, "above maximum", f"<= {self.high}", value, "integer_above_max_value")
        return value

    @staticmethod
    def _outside(name: str, where: str, expected: str, got: int, code: str) -> errors.ApiError:
        shown = str(got) if abs(got) < 10**20 else "a number beyond 64 bits"
        message = f"Invalid '{name}': integer {where} value. Expected a value {expected}, but got {shown} instead."
        return errors.unsupported(message, name, code)


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false."""

    def parse(self, name: str, value: object, *, from_text: bool) -> bool:
        """Return a boolean. Raises ApiError."""
        if from_text and isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), value)
        if not isinstance(value, bool):
            raise errors.invalid_type(name, "a boolean", json_type(value))
        return value


@dataclass(frozen=True, slots=True)
class Size:
    """A size by name, and for models with free sizes any `WIDTHxHEIGHT` within the limits of the image guide."""

    named: tuple[str, ...]
    free: bool = False

    def parse(self, name: str, value: object, *, from_text: bool) -> str:  # noqa: ARG002 - strings are the same in both
        """Return a valid size. Raises ApiError."""
        text = _text(name, value)
        if text in self.named:
            return text
        numbers = FREE_SIZE.fullmatch(text)
        if not self.free or numbers is None:
            raise errors.invalid_value(name, text[:100], self.named)
        broken_rule = _broken_size_rule(int(numbers[1]), int(numbers[2]))
        if broken_rule:
            raise errors.unsupported(f"Invalid size '{text}'. {broken_rule}", name)
        return text


def _broken_size_rule(width: int, height: int) -> str | None:
    """Return the rule of the image guide (free sizes) that a size breaks, or None."""
    short, long = sorted((width, height))
    if width % EDGE_STEP or height % EDGE_STEP:
        return f"Width and height must both be divisible by {EDGE_STEP}."
    if long > LONGEST_EDGE:
        return f"The longest edge must be at most {LONGEST_EDGE} pixels."
    if long > WIDEST_RATIO * short:
        return f"The aspect ratio must be between 1:{WIDEST_RATIO} and {WIDEST_RATIO}:1."
    if not FEWEST_PIXELS <= width * height <= MOST_PIXELS:
        return f"The total number of pixels must be between {FEWEST_PIXELS:,} and {MOST_PIXELS:,}."
    return None


@dataclass(frozen=True, slots=True)
class Fields:
    """An object with known fields; in a form it is `name[key]` and `name[key][key]`."""

    fields: Mapping[str, Check]
    required: tuple[str, ...] = ()

    def parse(self, name: str, value: object, *, from_text: bool) -> dict[str, Value]:
        """Return the checked fields of an object. Raises ApiError."""
        if not isinstance(value, dict):
            raise errors.invalid_type(name, "an object", json_type(value))
        values: dict[str, Value] = {}
        for key, inner in value.items():
            if key not in self.fields:
                raise errors.unknown_parameter(f"{name}.{key[:100]}")
            if inner is not None:
                values[key] = self.fields[key].parse(f"{name}.{key}", inner, from_text=from_text)
        for key in self.required:
            if key not in values:
                raise errors.missing_parameter(f"{name}.{key}")
        return values


Check: TypeAlias = Text | Choice | Integer | Boolean | Size | Fields
Value: TypeAlias = "str | int | bool | dict[str, Value]"

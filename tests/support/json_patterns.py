"""Regular expressions for schemas: plain ones that Python, JavaScript and Rust read alike."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.models.rules import FreeSize

_NEAR = 0.75  # as in `yaml_document.nearest`


def in_any_case(pattern: str) -> str:
    """Return a pattern for the same letters in upper and lower case."""
    return re.sub(r"(?<!\\)[a-z](?![^\[]*\])", lambda found: f"[{found[0].upper()}{found[0]}]", pattern)


def near(words: Iterable[str]) -> str:
    """Return a pattern for the words with one letter missing, too many, wrong or swapped, if that is near enough."""
    return "|".join(sorted({one for word in words for one in _near(word)}))


def _near(word: str) -> Iterator[str]:
    length, letter = len(word), "[A-Za-z_]"
    pairs = [(word[:place], word[place:]) for place in range(length + 1)]
    if 2 * length / (2 * length + 1) >= _NEAR:
        yield from (f"{before}{letter}{after}" for before, after in pairs)
    if length > 1 and 2 * (length - 1) / (2 * length - 1) >= _NEAR:
        yield from (before + after[1:] for before, after in pairs if after)
    if (length - 1) / length >= _NEAR:
        yield from (f"{before}{letter}{after[1:]}" for before, after in pairs if after)
        yield from (before + after[1] + after[0] + after[2:] for before, after in pairs if len(after) > 1)
        yield from (word.title(), word.upper())


def free_size(rule: FreeSize) -> str:
    """Return a pattern for exactly the sizes that a rule allows."""
    edges = range(rule.step, rule.longest + 1, rule.step)
    least, most = rule.pixels
    sizes = []
    for width in edges:
        low = max(math.ceil(least / width), math.ceil(width / rule.ratio))
        high = min(most // width, math.floor(width * rule.ratio), rule.longest)
        if any(low <= height <= high for height in edges):
            sizes.append(f"{width}x(?:{between(low, high)})")
    multiples = "|".join(map(str, edges))
    return rf"^(?=[0-9]+x(?:{multiples})$)(?:{'|'.join(sizes)})$"


def between(low: int, high: int) -> str:
    """Return a pattern for the whole numbers of a range."""
    return "|".join(_ranges(low, high))


def _ranges(low: int, high: int) -> Iterator[str]:
    """Yield patterns for the whole numbers of a range: each for those that begin alike."""
    while low <= high:
        span = 1
        while low % (span * 10) == 0 and low + span * 10 - 1 <= high and len(str(low)) > len(str(span)):
            span *= 10
        count = 1
        while (low // span % 10) + count < 10 and low + span * (count + 1) - 1 <= high:
            count += 1
        first = low // span
        last = first % 10 + count - 1
        digits = f"[{first % 10}-{last}]" if count > 1 else str(first % 10)
        yield f"{first // 10 or ''}{digits}{'[0-9]' * (len(str(span)) - 1)}"
        low += span * count

"""What was measured → the table of the README."""

from __future__ import annotations

import os
import platform
import statistics
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PACKAGES = ("aiohttp", "uvloop", "pillow", "openai", "httpx2", "aiolimiter")


def machine() -> str:
    """Say what it was measured on."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {system}; {versions}"


def medians(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Give each contender's median."""
    seconds: dict[str, list[float]] = {}
    for name, value in rows:
        seconds.setdefault(name, []).append(value)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def megabytes(size: float) -> str:
    """Write bytes as people do."""
    return f"{size / 2**20:,.0f} MB"


def verdict(value: float, bound: float, *, least: bool) -> str:
    """Return the bound of a target, and whether it is met."""
    met = value >= bound if least else value <= bound
    return f"{'≥' if least else '≤'} {bound:g}: {'met' if met else 'missed'}"

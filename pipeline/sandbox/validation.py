"""Check single values of the mapping under `sandbox:`.

Every function raises ValueError with a message that names the key.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence


def refuse_unknown_keys(mapping: Mapping[str, object], known: Sequence[str], prefix: str) -> None:
    """Refuse an unknown key; the message suggests the nearest known spelling."""
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
            raise ValueError(f"{prefix}{key}: unknown key; {hint}")


def mapping_of(key: str, value: object) -> Mapping[str, object]:
    """Return a mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: expected a mapping, got {value!r}")  # noqa: TRY004 - one kind of error for users
    return value


def number(key: str, value: object, *, low: float, high: float) -> float:
    """Return a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key}: expected a number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{key}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def check_total(shares: Mapping[str, float], names: Sequence[str], what: str) -> None:
    """Refuse probabilities of what excludes each other if they add up to more than 1; `what` names them."""
    total = sum(shares[name] for name in names)
    if total > 1 + 1e-9:
        raise ValueError(f"{what} add up to {total:g}, more than 1")


def range_of(key: str, value: object) -> tuple[float, float]:
    """Return the two ends of a range of seconds, up to a day."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{key}: expected two numbers, [low, high], got {value!r}")
    low, high = (number(key, part, low=0, high=86400) for part in value)
    if low > high:
        raise ValueError(f"{key}: the low end {low:g} is above the high end {high:g}")
    return low, high


def integer(key: str, value: object, *, low: int | None) -> int:
    """Return a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key}: expected a whole number, got {value!r}")  # noqa: TRY004 - as above
    if low is not None and value < low:
        raise ValueError(f"{key}: expected a whole number of at least {low}, got {value!r}")
    return value


def boolean(key: str, value: object) -> bool:
    """Return a boolean."""
    if not isinstance(value, bool):
        raise ValueError(f"{key}: expected true or false, got {value!r}")  # noqa: TRY004 - as above
    return value


def text(key: str, value: object) -> str:
    """Return a string that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected text, got {value!r}")
    return value


def texts(key: str, value: object) -> tuple[str, ...]:
    """Return a list of strings, none of them empty."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{key}: expected a list of names, got {value!r}")  # noqa: TRY004 - as above
    return tuple(text(key, item) for item in value)


def choice(key: str, value: object, known: Sequence[str]) -> str:
    """Return one of the known values."""
    if value not in known:
        raise ValueError(f"{key}: expected one of {', '.join(known)}, got {value!r}")
    return str(value)

"""Rate-limit hints in headers and messages: seconds to wait, the limit in force, and the server's clock."""

from __future__ import annotations

import functools
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_PAUSE = 3600.0
"""Seconds that a server may ask to wait; a longer wait stops the provider."""

_LONGEST_PLAUSIBLE = 31 * 86400.0  # a limit of a month; beyond it are moments, and numbers that mean nothing
_LONGEST_PERIOD = 86400.0  # of a limit: a slower one would hold the run for as long as the server likes
_LONGEST_OF_HOURS = 7 * 86400.0  # above it a server speaks of days: 1800000 is half an hour in milliseconds
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT = r"(ms|milliseconds?|s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?|d|days?)(?![a-z])"
_AMOUNT = r"\d{1,12}(?:\.\d{1,12})?"  # bounded, since 8 KB of digits in a header took seconds
_DURATION = re.compile(rf"({_AMOUNT})\s*{_UNIT}", re.IGNORECASE)
_HINT = re.compile(
    r"(?:(?:try again|retry|resets?|available)\s+(?:in|after)|wait(?:\s+(?:for|at least))?)\s+"
    r"((?:\d{1,12}(?:\.\d{1,12})?\s*" + _UNIT.replace("(ms", "(?:ms") + r"[\s,]*)+)",
    re.IGNORECASE,
)
_DIGITS = 10
_NUMBER = rf"(?P<images>\d[\d,]{{0,{_DIGITS}}})(?:\.0+)?(?!\.?\d)"
_PERIOD = r"(?:(?P<count>\d+(?:\.\d+)?)\s*)?(?P<unit>s|sec(?:ond)?s?|m|min(?:ute)?s?|h|hours?)(?![a-z])"
_LIMIT_PER = re.compile(rf"\blimit\s*[:=]?\s*{_NUMBER}\s*(?:images?\s*)?(?:/|per\b)\s*{_PERIOD}", re.IGNORECASE)
_IMAGES_PER = re.compile(rf"\bimages?\s*(?:/|per\b)\s*{_PERIOD}.{{0,80}}?\blimit\s*[:=]?\s*{_NUMBER}", re.IGNORECASE)
_OTHER_METER = re.compile(r"\b(?:tokens?|requests?)\s*(?:/|per\b)|\b[TR]P[MD]\b", re.IGNORECASE)
_IMAGES = "x-ratelimit-limit-images"
_REMAINING = "x-ratelimit-remaining-images"
_RESETS = ("x-ratelimit-reset-images", "x-ratelimit-reset-requests")


def pause(
    status: int, headers: Mapping[str, str], message: str, now: float, in_body: str | None = None
) -> float | None:
    """Return the seconds that the server asks to wait, or None; the longest of header, message and body.

    A wait of zero is ignored: accounts with a limit of 0 are told one for ever.
    """
    stated = [retry_after(headers, now), _in_words(message), _plausible((in_body or "").removesuffix("s"))]
    if status == 429 and not any(stated):  # other responses have these headers too, without that meaning
        stated = [duration(headers.get(name, "")) for name in _RESETS]
        stated = [reset for reset in stated if reset is not None and reset <= LONGEST_PAUSE]  # until all is there again
    return max((wait for wait in stated if wait), default=None)


def zero_limit(headers: Mapping[str, str], message: str) -> bool:
    """Return whether a 429 states a limit of zero, as in "Limit: 0/1min" or "Limit 0, Used 0"."""
    stated = re.search(r"\blimit\s*[:=]?\s*0(?:\.0+)?(?![.,]?\d)", message, re.IGNORECASE)
    return bool(stated) or headers.get(_IMAGES, "").strip() == "0"


def image_limit(headers: Mapping[str, str], message: str) -> tuple[int, float | None] | None:
    """Return the limit that a 429 states: images, and in how many seconds (None if only the number is stated).

    Limits of tokens or requests are ignored; a limit per day is left to the pause that comes with it.
    """
    if not _OTHER_METER.search(message) and (found := _LIMIT_PER.search(message) or _IMAGES_PER.search(message)):
        period = duration(f"{found['count'] or 1}{found['unit']}") or None
        return None if period is not None and period > _LONGEST_PERIOD else (_whole(found["images"]), period)
    stated = headers.get(_IMAGES, "").strip()
    return (int(stated), None) if stated.isdecimal() and len(stated) < _DIGITS else None


def remaining_images(headers: Mapping[str, str]) -> int | None:
    """Return how many images are left in the window of the rate limit, as the server states it; None if it does not."""
    stated = headers.get(_REMAINING, "").strip()
    return int(stated) if stated.isdecimal() and len(stated) < _DIGITS else None


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def duration(text: str) -> float | None:
    """Parse a duration as the rate-limit headers write it (1s, 6m0s, 120ms) into seconds; None if it is none."""
    parts = [(float(number), unit.lower()) for number, unit in _DURATION.findall(text)]
    return sum(number * _SECONDS["ms" if unit.startswith(("ms", "mil")) else unit[0]] for number, unit in parts) or (
        0.0 if parts else None
    )


def skew(headers: Mapping[str, str], now: float) -> float:
    """Return the server's clock minus the local one; below two seconds it is the header's resolution, not skew."""
    date = _date(headers.get("date"))
    ahead = 0.0 if date is None else date - now
    return ahead if abs(ahead) > 2 else 0.0


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Parse `retry-after-ms`, then `Retry-After` as seconds or as an HTTP date (compared with the server's clock).

    What is no plausible number of seconds is ignored, so that our own backoff applies.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (seconds := _plausible(headers.get(name, ""), unit)) is not None:
            return seconds
    date, today = _date(headers.get("retry-after")), _date(headers.get("date"))
    if date is None:
        return None
    wait = date - (now if today is None else today)
    return wait if 0 < wait <= _LONGEST_PLAUSIBLE else None


def _plausible(stated: str, unit: float = 1.0) -> float | None:
    """Parse a number of units into plausible seconds."""
    if not re.fullmatch(r"\d{1,12}(?:\.\d{1,12})?", stated.strip(), re.ASCII):
        return None
    seconds = float(stated) * unit
    is_plausible = 0 < seconds <= _LONGEST_PLAUSIBLE and not (unit == 1.0 and _looks_like_milliseconds(seconds))
    return seconds if is_plausible else None


def _looks_like_milliseconds(seconds: float) -> bool:
    """Return whether a number of seconds is rather one of milliseconds: whole thousands, and no whole hours or days."""
    whole = 3600 if seconds <= _LONGEST_OF_HOURS else 86400
    return seconds >= 1000 and seconds % 1000 == 0 and seconds % whole != 0


def _in_words(message: str) -> float | None:
    found = _HINT.search(message)
    wait = duration(found[1]) if found else None
    return wait if wait is not None and wait <= _LONGEST_PLAUSIBLE else None


@functools.lru_cache(maxsize=64)  # the responses of one second all have the same
def _date(text: str | None) -> float | None:
    """Parse an HTTP date into seconds since 1970; one without a zone is in UTC."""
    try:
        date = parsedate_to_datetime(text or "")
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None

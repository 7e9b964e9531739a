"""URLs of images: byte for byte as they were signed, and when they expire."""

from __future__ import annotations

import functools
import re
import time
from datetime import UTC, datetime
from urllib.parse import quote

from yarl import URL


def expiry(url: str, default: float, *, skew: float = 0.0, now: float | None = None) -> float:
    """Return when a URL expires, in seconds since 1970: as its signature states, else `default` seconds from now.

    `skew` is how many seconds the server's clock is ahead of the local one.
    """
    stated = stated_expiry(url)
    return stated - skew if stated is not None else (time.time() if now is None else now) + default


@functools.lru_cache(maxsize=1024)  # asked when a URL arrives and again when it is downloaded
def stated_expiry(url: str) -> float | None:
    """Return the expiry that the signature of a URL states, in seconds since 1970 by the server's clock.

    Signatures are Azure's (`se`, or `ske` if that is earlier), Amazon's and Google's; None for any other.
    """
    if "?" not in url:
        return None
    try:
        query = {name.lower(): value for name, value in URL(url, encoded=True).query.items()}
    except ValueError:
        return None
    stated = [_moment(query.get("se")), _moment(query.get("ske")), _number(query.get("expires"), 10)]
    for vendor in ("x-amz", "x-goog"):
        signed, life = _moment(query.get(f"{vendor}-date")), _number(query.get(f"{vendor}-expires"), 1)
        stated.append(signed + life if signed is not None and life is not None else None)
    return min((moment for moment in stated if moment is not None), default=None)


def host_of(url: str) -> str:
    """Return the host of a URL, empty if it has none."""
    try:
        return (exact_url(url).host or "").lower()
    except ValueError:
        return ""


def _moment(text: str | None) -> float | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str | None, digits: int) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,12}", text) and len(text) >= digits else None


@functools.lru_cache(maxsize=1024)
def exact_url(url: str) -> URL:
    """Return a URL byte for byte, as signatures cover it; only what no request line can carry is encoded."""
    return URL(re.sub(r"[^!-~]+", lambda found: quote(found[0], errors="replace"), url.strip()), encoded=True)


def is_past(expiry_text: str, current_text: str) -> bool:
    """Compare the two moments that the storage states, so that the local clock does not matter."""
    try:
        ends, current = (datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT") for text in (expiry_text, current_text))  # noqa: DTZ007 - both GMT
    except ValueError:
        return False
    return current >= ends

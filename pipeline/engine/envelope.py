"""An error's body → what it says: the vendor's envelope, or what other servers send in its place."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

LONGEST_MESSAGE = 1000
"""Characters of what a server says that are kept."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An error's own words, cleaned."""

    message: str
    type: str | None
    code: str | None
    param: str | None

    @property
    def words(self) -> set[str]:
        """Type and code, the stable discriminators, in small letters."""
        return {name.lower() for name in (self.type, self.code) if name}


def read_envelope(body: bytes) -> Envelope:
    """Read a body of any kind, HTML too."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:4000].decode("utf-8", "replace")
        text = re.sub(r"(?is)<(style|script)\b.*?(?:</\1>|$)|<[^>]*>", " ", text)
        return Envelope(plain(text, 300), None, None, None)
    return envelope_of(value)


def envelope_of(value: Any) -> Envelope:
    """Find the error in the vendor's envelope, FastAPI's {"detail"}, or what stands in for them."""
    outer = value if isinstance(value, dict) else {}
    error = outer.get("error") or outer.get("detail") or value
    if isinstance(error, dict) and isinstance(error.get("error"), dict):  # {"detail": {"error": …}}
        error = error["error"]
    if not isinstance(error, dict):
        return Envelope(_message(error), word(outer.get("type")), word(outer.get("code")), None)
    said = error.get("message") or error.get("detail") or error.get("msg") or error
    return Envelope(_message(said), word(error.get("type")), word(error.get("code")), word(error.get("param")))


def _message(said: Any) -> str:
    """Write what a server says as one line; FastAPI's list of {"loc", "msg"} as "body.image: field required; …"."""
    if said is None:
        return ""
    if isinstance(said, str):
        return plain(said, LONGEST_MESSAGE)
    if isinstance(said, list) and said and all(isinstance(item, dict) and "msg" in item for item in said):
        places = [item.get("loc") if isinstance(item.get("loc"), list) else [] for item in said]
        said = [
            f"{'.'.join(str(step)[:80] for step in place[:9] if isinstance(step, str | int))}: {_message(item['msg'])}"
            for place, item in zip(places, said[:9], strict=False)
        ]
        return plain("; ".join(said), LONGEST_MESSAGE)
    try:
        return plain(json.dumps(said), LONGEST_MESSAGE)
    except RecursionError:
        return ""


def plain(text: str, most: int) -> str:
    """Keep what may stand in a terminal, a log and a ledger: no escapes, no lone surrogates, white space in one."""
    text = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * most])
    return " ".join(text.split())[:most]


def word(value: Any) -> str | None:
    """Read a short name or number; None where it is neither."""
    return plain(str(value), 200) or None if isinstance(value, str | int) and not isinstance(value, bool) else None


def encodable(text: str) -> str:
    """Replace lone surrogates, which JSON can write and neither UTF-8 nor the ledger can."""
    return text.encode("utf-8", "replace").decode()

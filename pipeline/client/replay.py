"""Replays: whether a response says that it is the one to an earlier call with the same idempotency key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARK = re.compile(r"(?i)idempoten.*repla[yi]|repla[yi].*idempoten")
"""Idempotent-Replayed (Stripe), Idempotency-Replay, X-Idempotency-Key-Replayed: no standard names the header."""
_FALSE = frozenset({"", "0", "false", "no", "none"})


def is_replay(headers: Mapping[str, str]) -> bool:
    """Return whether the headers of a response mark it as a replay."""
    if not _MARK.search("\n".join(headers)):  # no match spans two lines: one search tells of all names
        return False
    return any(_MARK.search(name) and value.strip().lower() not in _FALSE for name, value in headers.items())

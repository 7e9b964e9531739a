"""Failed requests → their causes: what the service said, how often, and what a person can do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MODERATED = {"content_policy_violation", "moderation_blocked"}
_CHANGING = re.compile(r"\b(?:req|img|org|proj)[-_][A-Za-z0-9-_]+|\b[0-9a-f]{12,}\b|\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Cause:
    """Requests that failed for one reason: `requests` are their places in what was given, in that order."""

    title: str
    message: str  # of the first of them
    advice: str
    requests: tuple[int, ...]


def find_causes(errors: Iterable[tuple[int, Mapping[str, Any] | None]]) -> list[Cause]:
    """Group (place, error) by what the service said, numbers and names of calls left out; the most frequent first."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    firsts: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for place, error in errors:
        said = error or {}
        message = said.get("message") or ""
        same = (said.get("http_status"), said.get("code") or said.get("type"), _CHANGING.sub("#", message))
        groups.setdefault(same, []).append(place)
        firsts.setdefault(same, said)
    found = [_cause(firsts[same], places) for same, places in groups.items()]
    return sorted(found, key=lambda cause: -len(cause.requests))


def _cause(error: Mapping[str, Any], places: list[int]) -> Cause:
    status, name = error.get("http_status"), error.get("code") or error.get("type")
    title = " · ".join(str(word) for word in (status, name) if word) or "Not all pictures came"
    return Cause(title, error.get("message") or "", _advice(status, error.get("code")), tuple(places))


def _advice(status: int | None, code: str | None) -> str:
    """Say what helps, in the words of the three fates: change the request, or ask again."""
    if code in _MODERATED:
        return "The content policy refuses these words or pictures: change them in the job file, then run it again."
    if status is not None and 400 <= status < 500 and status not in {408, 409, 429}:
        return "The service calls these requests wrong: change what its message names in the job file, then run it."
    return "Nothing is wrong with these requests: ask again."

"""Failed requests → their causes: what the service said, how often, and what a person can do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ADVICE = {
    "Moderated": "change the prompt or the picture, since what the policy refused it refuses again",
    "Invalid": "correct in the job file what the message names",
    "DownloadRefused": "its picture is paid and waits at the server: try again while its URL lives, for nothing",
    "UrlLost": "its picture was paid and did not come in time: see that its host can be reached, then try again",
    "OutcomeUnknown": "calls were cut off: see to the network and to `timeout_seconds`, then try again",
    "Unusable": "the server said success and sent no whole picture: try again",
    "ServerFault": "the server blames itself: try again later",
}
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
        same = (
            kind_of(said),
            said.get("http_status"),
            said.get("code") or said.get("type"),
            _CHANGING.sub("#", message),
        )
        groups.setdefault(same, []).append(place)
        firsts.setdefault(same, said)
    found = [_cause(firsts[same], places) for same, places in groups.items()]
    return sorted(found, key=lambda cause: -len(cause.requests))


def _cause(error: Mapping[str, Any], places: list[int]) -> Cause:
    status, name = error.get("http_status"), error.get("code") or error.get("type")
    title = " · ".join(str(word) for word in (status, name) if word) or "Not all pictures came"
    advice = advice_on(kind_of(error))
    return Cause(title, error.get("message") or "", f"{advice[0].upper()}{advice[1:]}.", tuple(places))


def kind_of(error: Mapping[str, Any]) -> str:
    """Name the class of an error; guessed, for one that was written down before classes were."""
    if kind := error.get("kind"):
        return str(kind)
    if error.get("code") in {"content_policy_violation", "moderation_blocked"}:
        return "Moderated"
    status = error.get("http_status")
    is_refusal = status is not None and 400 <= status < 500 and status not in {408, 409, 429}
    return "Invalid" if is_refusal else "ServerFault"


def advice_on(kind: str) -> str:
    """Say what a person can do about errors of this class."""
    return ADVICE.get(kind, "the request is as good as any other: try it again")

"""Bodies that are more or less than one JSON value: event streams, lines of JSON, JSON in a text, JSON that was cut.

The client never asks for a stream, but `extra: {stream: true}` and some servers do, and its images are paid.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json

from pipeline.client.error_body import text_of
from pipeline.client.response_forms import find_images

_FIELD = re.compile(r"(?:event|data|id|retry)?:(?!image/)")  # not a data: URL
_PREFIX = 20  # characters before an object
_OF_IMAGES = frozenset({"type", "data", "images", "b64_json", "url"})


def is_stream(text: str) -> bool:
    """Return whether a text is a stream of events, whatever its content type says."""
    return _FIELD.match(text.lstrip("\ufeff\r\n ")) is not None


def merge_events(text: str) -> dict[str, Any]:
    """Return the body that a stream stands for; partial images are left out."""
    body: dict[str, Any] = {}
    items: list[Any] = []
    for event in _events(text):
        if event.get("error"):
            body["error"] = event["error"]
        elif event.get("type") == "error":
            body["error"] = event
        elif _is_partial(event):
            continue
        else:
            body |= {name: value for name, value in event.items() if name not in _OF_IMAGES}
            if isinstance(event.get("data"), list):  # a complete response in one event
                items += event["data"]
            elif find_images(event, ""):
                items.append(event)
    return {**body, "data": items}


def merge_lines(text: str) -> dict[str, Any] | None:
    """Return the body that lines of JSON objects stand for; None if the text is not that."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not all(_object(line) for line in lines):
        return None
    return merge_events("\n\n".join(f"data:{line}" for line in lines))


def embedded_object(text: str) -> dict[str, Any] | None:
    """Return the object at the beginning of a text if it holds images, whatever stands around it: a prefix against
    cross-site inclusion, or what a proxy adds at the end.
    """
    start = text.find("{", 0, _PREFIX)
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and find_images(value, "") else None


def cut_object(body: bytes, images: int) -> Any:
    """Return what a body that was cut says, if all `images` that were asked for are in it; else None.

    With fewer the call may be repeated with its idempotency key, and a server that honours it charges nothing again.
    """
    if not images:
        return None
    if is_stream(text := text_of(body)):
        parsed = merge_events(text)
    else:
        try:
            parsed = from_json(body, allow_partial=True)
        except ValueError:
            return None
        if isinstance(parsed, dict) and _is_partial(parsed):
            return None
    return parsed if len(find_images(parsed, "").images) >= images else None


def _events(text: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for event in text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
        whole = _object("\n".join(lines))
        events += [whole] if whole else filter(None, map(_object, lines))  # some separate events by one line end
    return events


def _is_partial(event: dict[str, Any]) -> bool:
    return "partial" in str(event.get("type")) or "partial_image_index" in event


def _object(text: str) -> dict[str, Any]:
    """Return the data of an event; empty if it is not an object, as [DONE] is not."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

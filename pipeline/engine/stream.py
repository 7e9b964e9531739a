"""A stream of server-sent events → the one answer that it stands for.

Nobody here asks for a stream, but `extra: {stream: true}` and servers of their own mind do, and its pictures are paid.
"""

from __future__ import annotations

import json
from typing import Any


def answer_of(text: str) -> dict[str, Any]:
    """Gather the finished pictures, and what stands beside them, as one answer. Partial pictures are left out."""
    answer: dict[str, Any] = {}
    items: list[Any] = []
    for event in text.replace("\r\n", "\n").replace("\r", "\n").split("\n\n"):
        said = _data(event)
        if said.get("error"):
            answer["error"] = said["error"]
        elif isinstance(said.get("data"), list):  # a whole answer in one event
            answer |= said
            items += said["data"]
        elif "partial" not in str(said.get("type")) and (said.get("b64_json") or said.get("url")):
            answer |= {name: value for name, value in said.items() if name not in {"type", "b64_json", "url"}}
            items.append(said)
    return {**answer, "data": items}


def _data(event: str) -> dict[str, Any]:
    """Read an event's data; nothing where it is no object, as [DONE] is none."""
    lines = [line[5:].removeprefix(" ") for line in event.split("\n") if line.startswith("data:")]
    try:
        said = json.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}

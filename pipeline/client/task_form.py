"""Task form: whether a success response names a task whose image will be made later, in place of the image."""

from __future__ import annotations

from typing import Any

_LATER = frozenset(
    {
        *("queued", "pending", "submitted", "processing", "in_progress", "in_queue", "starting", "waiting", "running"),
        *("not_started", "notstarted", "not_start", "scheduled"),
    }
)
_TASKS = ("data", "output", "result")  # where a task may be described


def is_a_task(said: Any, depth: int = 2) -> bool:
    """Return whether this is the id of a task whose image will be made later, as some gateways return it."""
    if isinstance(said, list):
        return any(is_a_task(one, depth) for one in said[:9])
    if not isinstance(said, dict):
        return False
    stated = (said.get("status"), said.get("task_status"), said.get("state"))
    is_task = said.get("task_id") or any(isinstance(one, str) and one.lower() in _LATER for one in stated)
    return bool(is_task) or (depth > 0 and any(is_a_task(said.get(name), depth - 1) for name in _TASKS))

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


def is_a_task(value: Any, depth: int = 2) -> bool:
    """Return whether this is the id of a task whose image will be made later, as some gateways return it."""
    if isinstance(value, list):
        return any(is_a_task(item, depth) for item in value[:9])
    if not isinstance(value, dict):
        return False
    stated = (value.get("status"), value.get("task_status"), value.get("state"))
    is_task = value.get("task_id") or any(isinstance(status, str) and status.lower() in _LATER for status in stated)
    return bool(is_task) or (depth > 0 and any(is_a_task(value.get(name), depth - 1) for name in _TASKS))

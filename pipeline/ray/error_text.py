"""What Ray says of a failure, in one line for people: its own texts have many, with colours."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def error_text(reason: BaseException) -> str:
    """Return a failure in a few words: of code that Ray ran, its own error; of a process, that it died or is silent."""
    from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

    if isinstance(reason, RayTaskError):
        cause = reason.cause
        return f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else _line(str(reason), -1)
    if isinstance(reason, ActorUnavailableError):
        return "it cannot be reached"
    if isinstance(reason, ActorDiedError):
        return "its process died"
    if isinstance(reason, TimeoutError):
        return "it does not answer"
    return _line(str(reason), 0) or type(reason).__name__


def _line(text: str, place: int) -> str:
    """Return the first or the last line of a text that is not empty, without colours."""
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    return lines[place] if lines else ""

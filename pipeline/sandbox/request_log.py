"""Append one JSON line for each call and download to a file.

Each line is flushed at once; tests compare the file with the client's ledger.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


@dataclass(slots=True)
class CallEntry:
    """One call; filled in while it is served, written at its end (`status` null: no complete response was sent)."""

    at: float  # unix seconds of the arrival
    mono: float  # monotonic seconds of the arrival, as the rate limit counts
    path: str
    operation: str | None
    request_id: str
    model: str | None = None
    prompt: str | None = None
    n: int = 1
    status: int | None = None
    charged: int = 0
    fault: str | None = None
    type: Literal["call"] = "call"


@dataclass(slots=True)
class DownloadEntry:
    """One request for an image URL."""

    at: float
    path: str
    status: int | None = None
    fault: str | None = None
    type: Literal["download"] = "download"


class RequestLog:
    """A file that entries are appended to; does nothing if the path is None."""

    def __init__(self, path: Path | None) -> None:
        """Open the file for appending. Raises OSError."""
        self._file = path.open("a", encoding="utf-8") if path else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def write(self, entry: CallEntry | DownloadEntry) -> None:
        """Append an entry as one line."""
        if self._file and not self._file.closed:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()

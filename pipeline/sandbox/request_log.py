"""Append one JSON line for each call, download, upload, batch and line of a batch to a file.

Each line is flushed at once; tests compare the file with the client's ledger.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeAlias

from pipeline.sandbox.rules.prices import BATCH_SHARE

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    cost_usd: float = 0.0
    fault: str | None = None
    idempotency_key: str | None = None
    client_request_id: str | None = None
    is_replay: bool = False  # answered with what is kept for its key: nothing was made or charged
    type: Literal["call"] = "call"
    api_key_id: str | None = None
    price_share: ClassVar[float] = 1.0


@dataclass(slots=True)
class DownloadEntry:
    """One request for an image URL."""

    at: float
    path: str
    status: int | None = None
    fault: str | None = None
    type: Literal["download"] = "download"


@dataclass(slots=True)
class UploadEntry:
    """One file that was uploaded."""

    at: float
    file: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    type: Literal["upload"] = "upload"


@dataclass(slots=True)
class BatchEntry:
    """One batch that was created, whether or not its answer arrived."""

    at: float
    batch: str
    input_file: str
    endpoint: str
    metadata: Mapping[str, str] | None
    type: Literal["batch"] = "batch"


@dataclass(slots=True)
class BatchLineEntry:
    """One line of a batch that was worked, whether it is delivered or not; written once, with what it cost."""

    at: float
    batch: str
    custom_id: str
    operation: str
    model: str
    prompt: str | None
    n: int
    status: int | None = None
    charged: int = 0
    cost_usd: float = 0.0
    fault: str | None = None
    type: Literal["batch_line"] = "batch_line"
    api_key_id: ClassVar[str | None] = None
    price_share: ClassVar[float] = BATCH_SHARE


ChargedEntry: TypeAlias = CallEntry | BatchLineEntry
Entry: TypeAlias = CallEntry | DownloadEntry | UploadEntry | BatchEntry | BatchLineEntry


class RequestLog:
    """A file that entries are appended to; does nothing if the path is None."""

    def __init__(self, path: Path | None) -> None:
        """Open the file for appending. Raises OSError."""
        self._path = path
        self._file = path.open("a", encoding="utf-8") if path else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._file:
            self._file.close()

    def lines_of(self, batch: str) -> set[str]:
        """Return the `custom_id`s of a batch's lines that the file has, also from before a restart. Raises OSError."""
        if self._path is None:
            return set()
        whole, _, _ = self._path.read_text().rpartition("\n")
        entries = (json.loads(line) for line in whole.splitlines() if batch in line)
        return {entry["custom_id"] for entry in entries if entry["type"] == "batch_line" and entry["batch"] == batch}

    def write(self, entry: Entry) -> None:
        """Append an entry as one line."""
        if self._file and not self._file.closed:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()

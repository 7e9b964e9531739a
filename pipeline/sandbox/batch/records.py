"""The record of a batch, as it is kept in the spool and as the API shows it; and the folder of all records."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pipeline.sandbox.batch.faults import BatchPlan
from pipeline.sandbox.file_store import PART, RECORD, new_file_id, read_record, write_record

if TYPE_CHECKING:
    from pathlib import Path

Status: TypeAlias = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
FINAL: Final = ("failed", "completed", "expired", "cancelled")
ENQUEUED: Final = ("in_progress", "finalizing", "cancelling")
"""The states in which the tokens of a batch count; one that is cancelled while it is validated has none yet."""
MOMENTS: Final = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


@dataclass(slots=True)
class Batch:
    """A batch and how far it is; `number` counts all batches of the spool.

    What was decided about it and the seed of its order stay, whatever the settings of a later sandbox are.
    """

    number: int
    seed: int
    plan: BatchPlan
    endpoint: str
    input_file_id: str
    created_at: float
    expires_at: float
    metadata: dict[str, str] | None
    output_seconds: int  # how long its files are kept
    id: str = field(default_factory=lambda: f"batch_{secrets.token_hex(16)}")
    status: Status = "validating"
    moments: dict[str, float] = field(default_factory=dict)  # when each state began
    model: str | None = None
    tokens: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    worked: int = 0  # lines of the shuffled order that are written
    output_bytes: int = 0  # sizes of the two files after these lines
    error_bytes: int = 0
    errors: list[dict[str, object]] = field(default_factory=list)
    file_ids: dict[str, str] = field(default_factory=lambda: {"output": new_file_id(), "error": new_file_id()})
    ends_as: Status | None = None  # decided; its files may have been published already

    @property
    def is_final(self) -> bool:
        """Whether the batch has ended."""
        return self.status in FINAL

    def enter(self, status: Status, moment: float) -> None:
        """Enter a state."""
        self.status = status
        self.moments[status] = moment

    def as_object(self) -> dict[str, object]:
        """Return the batch object of the API."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self._file_id("output", self.output_bytes),
            "error_file_id": self._file_id("error", self.error_bytes),
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            **{f"{name}_at": int(self.moments[name]) if name in self.moments else None for name in MOMENTS},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": None,
            "metadata": self.metadata,
        }

    def _file_id(self, kind: str, size: int) -> str | None:
        if not self.is_final or self.status == "failed":
            return None
        return self.file_ids[kind] if size else "" if self.plan.empty_ids else None


class BatchStore:
    """A folder with the records, the inputs and the unfinished outputs of batches; the records are in memory, too."""

    def __init__(self, folder: Path) -> None:
        """Create the folder or read what is in it. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        read = [batch for path in folder.glob(f"*{RECORD}") if (batch := _read(path)) is not None]
        self._batches = {batch.id: batch for batch in sorted(read, key=lambda batch: batch.number)}
        for path in folder.iterdir():
            batch = self._batches.get(path.name.partition(".")[0])
            if batch is None or (batch.is_final and path.suffix != RECORD):  # of a create or an end that was cut off
                path.unlink()
        self._last = max((batch.number for batch in self._batches.values()), default=0)

    def next_number(self) -> int:
        """Return the number of the next batch."""
        self._last += 1
        return self._last

    def add(self, batch: Batch, content: Path) -> None:
        """Record a new batch; it keeps its input, even if the file is deleted meanwhile. Raises OSError."""
        try:
            os.link(content, self.input(batch))
        except OSError:  # a file system without hard links
            shutil.copyfile(content, self.input(batch))
        self.save(batch)
        self._batches[batch.id] = batch

    def save(self, batch: Batch) -> None:
        """Record how far a batch is. Raises OSError."""
        write_record(self._folder / f"{batch.id}{RECORD}", asdict(batch))

    def get(self, batch_id: str) -> Batch:
        """Return a batch. Raises LookupError if there is none."""
        return self._batches[batch_id]

    def all(self) -> list[Batch]:
        """Return all batches, the oldest first."""
        return list(self._batches.values())

    def enqueued_tokens(self, model: str) -> int:
        """Return the tokens of a model's living batches."""
        return sum(batch.tokens for batch in self.all() if batch.model == model and batch.status in ENQUEUED)

    def input(self, batch: Batch) -> Path:
        """Return where the input of a batch is."""
        return self._folder / f"{batch.id}.input"

    def part(self, batch: Batch, kind: str) -> Path:
        """Return where the unfinished output or error file of a batch is."""
        return self._folder / f"{batch.id}.{kind}{PART}"

    def clear(self, batch: Batch) -> None:
        """Remove what a batch that has ended needs no more. Raises OSError."""
        for path in (self.input(batch), self.part(batch, "output"), self.part(batch, "error")):
            path.unlink(missing_ok=True)


def _read(path: Path) -> Batch | None:
    """Read a batch; None if its record cannot be understood, as one of another version of this program."""
    record = read_record(path)
    try:
        return Batch(**{**record, "plan": BatchPlan(**record["plan"])})
    except (KeyError, TypeError):
        return None

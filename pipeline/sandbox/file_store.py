"""Store the files of the Files API in a folder, so that the next sandbox has them again.

A file is its content under its id, and a record beside it in JSON. Both are written whole, the record first. One
without the other is left over from a process that was killed in between, and is removed at the next start.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import string
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LETTERS: Final = string.ascii_letters + string.digits
RECORD: Final = ".json"
PART: Final = ".part"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file and what was said of it when it was created; `number` counts all files of the store."""

    id: str
    number: int
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    content_type: str | None = None

    def as_object(self) -> dict[str, object]:
        """Return the file object of the API."""
        return {
            "object": "file",
            "id": self.id,
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def new_file_id() -> str:
    """Return an id as the service makes them."""
    return "file-" + "".join(secrets.choice(LETTERS) for _ in range(22))


def write_record(path: Path, record: Mapping[str, object]) -> None:
    """Write a record whole or not at all. Raises OSError."""
    part = path.with_name(f"{path.name}{PART}")
    part.write_text(json.dumps(record))
    part.replace(path)


def read_record(path: Path) -> dict[str, Any]:
    """Return a record; empty if it cannot be understood, as one of another version of this program."""
    try:
        record = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


class FileStore:
    """A folder of files with their records, which are all kept in memory, too."""

    def __init__(self, folder: Path) -> None:
        """Create the folder or read what is in it, and remove what a killed process left. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, StoredFile] = {}
        for path in folder.glob(f"*{RECORD}"):
            record = read_record(path)
            if path.with_suffix("").exists() and record.keys() == {field.name for field in fields(StoredFile)}:
                stored = StoredFile(**record)
                self._files[stored.id] = stored
        for path in folder.iterdir():
            if path.name.removesuffix(RECORD) not in self._files:
                path.unlink()
        self._last = max((stored.number for stored in self._files.values()), default=0)

    def part(self) -> Path:
        """Return a new path to write a content to, before it is added."""
        return self._folder / f"{secrets.token_hex(8)}{PART}"

    def path(self, file_id: str) -> Path:
        """Return the path of a content."""
        return self._folder / file_id

    def add(
        self,
        content: Path,
        *,
        created_at: int,
        expires_at: int | None,
        filename: str,
        purpose: str,
        content_type: str | None = None,
        file_id: str | None = None,
    ) -> StoredFile:
        """Move a content into the store and record it; one with an id that is there already is left. Raises OSError."""
        if file_id in self._files:
            return self._files[file_id]
        self._last += 1
        stored = StoredFile(
            id=file_id or new_file_id(),
            number=self._last,
            bytes=content.stat().st_size,
            created_at=created_at,
            expires_at=expires_at,
            filename=filename,
            purpose=purpose,
            content_type=content_type,
        )
        write_record(self._record(stored.id), asdict(stored))
        content.replace(self.path(stored.id))
        self._files[stored.id] = stored
        return stored

    def get(self, file_id: str, now: float) -> StoredFile:
        """Return a file. Raises LookupError if there is none, or if it has expired."""
        stored = self._files[file_id]
        if stored.expires_at is not None and stored.expires_at <= now:
            self.delete(file_id)
            raise LookupError(file_id)
        return stored

    def all(self, now: float) -> list[StoredFile]:
        """Return all files that have not expired, the oldest first."""
        for file_id in list(self._files):
            with contextlib.suppress(LookupError):
                self.get(file_id, now)
        return sorted(self._files.values(), key=lambda stored: stored.number)

    def delete(self, file_id: str) -> None:
        """Remove a file. Raises LookupError if there is none, and OSError."""
        del self._files[file_id]
        self._record(file_id).unlink(missing_ok=True)
        self.path(file_id).unlink(missing_ok=True)

    def _record(self, file_id: str) -> Path:
        return self._folder / f"{file_id}{RECORD}"

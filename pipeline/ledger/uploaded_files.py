"""Files that were uploaded to a provider for its batches: input images, whose ids are known later, and input files.

Functions run inside a transaction of the caller, such as `Writer.do`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class InputAtService:
    """An input image at the service, or on its way to it. `expires_at` is in seconds since 1970."""

    name: str
    id: str | None
    expires_at: float | None

    def is_good_until(self, moment: float) -> bool:
        """Return whether the service keeps the file until this moment."""
        return self.expires_at is not None and self.expires_at > moment


def find(connection: sqlite3.Connection, provider: str, sha256: str) -> InputAtService | None:
    """Return what is known of an image at a provider; None if its upload was never begun."""
    row = connection.execute(
        "SELECT name, id, expires_at FROM uploaded_file WHERE provider = ? AND sha256 = ?", (provider, sha256)
    ).fetchone()
    return None if row is None else InputAtService(*row)


def begin(connection: sqlite3.Connection, provider: str, sha256: str, name: str, now: float) -> None:
    """Record an upload before it is sent, under a name by which it can be found if its answer is lost."""
    connection.execute(
        "INSERT INTO uploaded_file (provider, sha256, name, created_at) VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (provider, sha256) DO UPDATE SET name = ?3, id = NULL, expires_at = NULL, created_at = ?4",
        (provider, sha256, name, now),
    )


def withdraw(connection: sqlite3.Connection, provider: str, sha256: str) -> None:
    """Forget an upload that was begun and never sent."""
    connection.execute("DELETE FROM uploaded_file WHERE provider = ? AND sha256 = ? AND id IS NULL", (provider, sha256))


def record(connection: sqlite3.Connection, provider: str, sha256: str, file_id: str, expires_at: float) -> None:
    """Record the id that the service has given to an upload."""
    connection.execute(
        "UPDATE uploaded_file SET id = ?, expires_at = ? WHERE provider = ? AND sha256 = ?",
        (file_id, expires_at, provider, sha256),
    )


def forget(connection: sqlite3.Connection, provider: str, file_ids: Sequence[str]) -> None:
    """Forget files that the service no longer knows."""
    connection.execute(
        "DELETE FROM uploaded_file WHERE provider = ? AND id IN (SELECT value FROM json_each(?))",
        (provider, json.dumps(file_ids)),
    )


def forget_unneeded(connection: sqlite3.Connection, provider: str) -> dict[str, str | None]:
    """Forget the files that no pending or running request needs; return their ids by name, None for an unknown one."""
    rows = connection.execute(
        "DELETE FROM uploaded_file WHERE provider = ?1 AND sha256 NOT IN (SELECT json_extract(i.value, '$.sha256')"
        " FROM job j JOIN request r ON r.job = j.pk JOIN json_each(r.inputs) i"
        " WHERE (j.provider = ?1 OR ?1 IN (SELECT value FROM json_each(j.members)))"
        " AND (r.status = 'running' OR (r.status = 'pending' AND r.stated = j.revision)))"
        " RETURNING name, id",
        (provider,),
    )
    return {row[0]: row[1] for row in rows}


def ended_inputs(connection: sqlite3.Connection, provider: str, since: float) -> list[tuple[int, str]]:
    """Return the batches since a moment that have ended and whose input files are still at the service: (pk, id)."""
    rows = connection.execute(
        "SELECT pk, input_file_id FROM batch WHERE provider = ? AND ended_at IS NOT NULL AND input_file_id IS NOT NULL"
        " AND created_at > ?",
        (provider, since),
    )
    return [(row[0], row[1]) for row in rows]


@dataclass(frozen=True, slots=True)
class LostInput:
    """The input file of a batch that was never created, whose upload had no answer. `sent_at` is since 1970."""

    batch_pk: int
    name: str
    sent_at: float


def lost_inputs(connection: sqlite3.Connection, provider: str, since: float) -> list[LostInput]:
    """Return the input files that were sent after a moment, are used by no batch, and whose ids nobody knows."""
    rows = connection.execute(
        "SELECT pk, token, input_sent_at FROM batch WHERE provider = ? AND ended_at IS NOT NULL"
        " AND input_file_id IS NULL AND input_sent_at > ?",
        (provider, since),
    )
    return [LostInput(row[0], input_name(row[1]), row[2]) for row in rows]


def input_name(token: str) -> str:
    """Return the unique name of the input file of the batch with this token."""
    return f"{token}.jsonl"


def record_input_sent(connection: sqlite3.Connection, batch_pk: int, now: float) -> None:
    """Record, before it is sent, the upload of a batch's input file."""
    connection.execute("UPDATE batch SET input_sent_at = ? WHERE pk = ?", (now, batch_pk))


def forget_input_file(connection: sqlite3.Connection, batch_pk: int) -> None:
    """Record that the service does not have the input file of a batch that has ended."""
    connection.execute("UPDATE batch SET input_file_id = NULL, input_sent_at = NULL WHERE pk = ?", (batch_pk,))

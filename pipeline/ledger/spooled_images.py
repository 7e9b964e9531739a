"""Images that are paid and wait on the local disk until an object store has them, and where all images are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.ledger.queries import RecordedImage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

_SPOOLED = (
    "SELECT i.pk, j.name, i.file, i.sha256, i.bytes, i.format, i.root, i.spooled"
    " FROM image i JOIN job j ON j.pk = i.job WHERE i.spooled = 1 ORDER BY i.pk"
)


def read_spooled(connection: sqlite3.Connection, most: int, taken: Collection[int] = ()) -> list[RecordedImage]:
    """Return the oldest images that wait for their store, at most so many, without those that are taken."""
    rows = connection.execute(f"{_SPOOLED} LIMIT ?", (most + len(taken),))
    return [image for row in rows if (image := RecordedImage(*row)).image_pk not in taken][:most]


def read_state(connection: sqlite3.Connection, on_disk: Mapping[str, str]) -> tuple[int, int, list[str]]:
    """Return how many images wait for their store and their bytes, and which names on disk are there needlessly.

    `on_disk` are names in the spool with their hashes. Such a file is left by a kill between the record of its upload
    and its removal.
    """
    images, size = connection.execute("SELECT count(*), total(bytes) FROM image WHERE spooled = 1").fetchone()
    waiting = {f"{row['name']}/{row['file']}" for row in connection.execute(_SPOOLED)}
    uploaded = {
        row[0]
        for row in connection.execute(
            "SELECT sha256 FROM image WHERE state = 'stored' AND spooled = 0 AND root IS NOT NULL"
            " AND sha256 IN (SELECT value FROM json_each(?))",
            (json.dumps(list(on_disk.values())),),
        )
    }
    return images, int(size), [name for name, sha256 in on_disk.items() if name not in waiting and sha256 in uploaded]


def record_upload(connection: sqlite3.Connection, image_pk: int, file: str) -> None:
    """Record that the store has an image; `file` is its name there, relative to the job's folder."""
    connection.execute("UPDATE image SET spooled = 0, file = ? WHERE pk = ? AND state = 'stored'", (file, image_pk))


def known_roots(connection: sqlite3.Connection, job: str) -> list[str]:
    """Return the roots of a job's images that are not in the output folder."""
    rows = connection.execute(
        "SELECT DISTINCT root FROM image WHERE root IS NOT NULL AND job = (SELECT pk FROM job WHERE name = ?)", (job,)
    )
    return [row[0] for row in rows]


def ledger_id(connection: sqlite3.Connection) -> str:
    """Return the id of this ledger, which its copies share."""
    return str(connection.execute("SELECT id FROM identity").fetchone()[0])

"""Images in whose place others were made: recorded in the transaction that records the new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


def replace_images(connection: sqlite3.Connection, request_pk: int, images: int) -> None:
    """Record that so many new images are here: those that were asked for again are replaced, the lowest number first.

    Runs inside a transaction of the caller.
    """
    connection.execute(
        "UPDATE image SET redo = 'replaced' WHERE pk IN"
        " (SELECT pk FROM image WHERE request = ? AND redo = 'asked' ORDER BY number LIMIT ?)",
        (request_pk, images),
    )

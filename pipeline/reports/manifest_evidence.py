"""Keeps what a manifest proves of images that the ledger does not know, when the manifest is written again.

The ledger may be an older copy, or a job was forgotten: `adopt` records such images once their requests are queued.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import TYPE_CHECKING

from pipeline.files import write_whole
from pipeline.ledger.database import file_mode
from pipeline.ledger.unrecorded_images import known_files
from pipeline.ordinary_file import open_ordinary
from pipeline.storage import LocalStore
from pipeline.stores import local_folder

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.stores import Addresses

KEPT_NAME = "manifest.unknown.jsonl"

_FILES = re.compile(rb'"file": "(images/[^"\\/]+)"')


def keep_evidence(
    connection: sqlite3.Connection, name: str, folder: Path, manifest: Path, addresses: Addresses
) -> None:
    """Keep the lines of a job's manifest that name images on disk that no row has, beside it; others that were kept go.

    Raises OSError.
    """
    elsewhere = None if addresses.root is None else local_folder(addresses.root)
    stores = [LocalStore(folder), LocalStore(folder, is_spool=True)]
    stores += [] if elsewhere is None else [LocalStore(elsewhere)]
    known = known_files(connection, name)
    kept = manifest.with_name(KEPT_NAME)
    before, lines = b"".join(_read_lines(kept)), dict[bytes, None]()
    for line in itertools.chain(_read_lines(kept), _read_lines(manifest)):
        unknown = {found.decode("utf-8", "replace") for found in _FILES.findall(line)} - known
        if any(store.size(f"{name}/{file}") is not None for file in unknown for store in stores):
            lines[line] = None
    if content := b"".join(lines):
        if content != before:
            write_whole(kept, content, file_mode(folder))
    else:
        kept.unlink(missing_ok=True)


def _read_lines(path: Path) -> Iterator[bytes]:
    """Yield the whole lines of a file; none if it cannot be read."""
    with contextlib.suppress(OSError), open_ordinary(path) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line

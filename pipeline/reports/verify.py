"""The ledger and the disk → which images are not as recorded; with repair, they are put aside and queued again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage
from pipeline.images import inspect
from pipeline.ledger.database import transaction
from pipeline.storage import disk_error, make_folder, sync_folder

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what the ledger says. `file` is relative to the output folder; an input has no `image`."""

    image: int | None
    job: str
    file: str
    what: str


def count_images(connection: sqlite3.Connection, job: str | None) -> int:
    """Count the images that the ledger says are there."""
    row = connection.execute(
        "SELECT count(*) FROM image i JOIN job j ON j.pk = i.job WHERE i.state = 'stored'"
        " AND (?1 IS NULL OR j.name = ?1)",
        (job,),
    ).fetchone()
    return int(row[0])


def find_damage(connection: sqlite3.Connection, folder: Path, job: str | None) -> Iterator[Damage]:
    """Read every recorded file again, of a job or of all, and yield what is missing or damaged. Touches nothing."""
    rows = connection.execute(
        "SELECT i.pk, j.name, i.file, i.sha256, i.bytes, i.format FROM image i JOIN job j ON j.pk = i.job"
        " WHERE i.state = 'stored' AND (?1 IS NULL OR j.name = ?1) ORDER BY i.pk",
        (job,),
    ).fetchall()
    for pk, name, file, sha256, size, kind in rows:
        what = _fault(folder / name / file, sha256, size, kind)
        if what:
            yield Damage(pk, name, f"{name}/{file}", what)
    yield from _find_damaged_inputs(connection, folder, job)


def _find_damaged_inputs(connection: sqlite3.Connection, folder: Path, job: str | None) -> Iterator[Damage]:
    """Read the pictures that are uploaded: each is called by its own hash."""
    rows = connection.execute(
        "SELECT DISTINCT j.name, json_extract(i.value, '$.file') AS file FROM request r JOIN job j ON j.pk = r.job,"
        " json_each(r.inputs) i WHERE ?1 IS NULL OR j.name = ?1 ORDER BY j.pk, file",
        (job,),
    ).fetchall()
    for name, file in rows:
        path = folder / name / file
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            yield Damage(None, name, f"{name}/{file}", "is missing; submit the job again")
        except OSError as reason:
            yield Damage(None, name, f"{name}/{file}", f"cannot be read: {reason.strerror or reason}")
        else:
            if sha256 != path.stem:
                yield Damage(None, name, f"{name}/{file}", "has another hash than its name; submit the job again")


def _fault(path: Path, sha256: str, size: int, kind: str) -> str | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return "is missing"
    except OSError as reason:
        return f"cannot be read: {reason.strerror or reason}"
    if len(content) != size:
        return f"has {len(content)} bytes, recorded are {size}"
    if hashlib.sha256(content).hexdigest() != sha256:
        return "has another hash than recorded"
    try:
        inspect.inspect_svg(content) if kind == "svg" else inspect.inspect(content)
    except BrokenImage as reason:
        return f"is no whole picture: {reason}"
    return None


def repair(connection: sqlite3.Connection, folder: Path, damages: list[Damage]) -> None:
    """Move what is damaged to quarantine/ and queue what is missing. Raises DiskFull."""
    try:
        for damage in damages:
            _put_aside(folder / damage.file, folder / damage.job / QUARANTINE)
    except OSError as reason:
        raise disk_error(reason, folder) from None
    with transaction(connection):
        for damage in damages:
            is_new = connection.execute(
                "UPDATE image SET state = 'lost', file = NULL WHERE pk = ? AND state = 'stored'", (damage.image,)
            ).rowcount
            if not is_new:  # somebody else has repaired it meanwhile
                continue
            connection.execute(
                "UPDATE request SET received = received - 1, finished_at = NULL, status = CASE"
                " WHEN received - 1 < n AND status IN ('succeeded', 'partial') THEN 'pending' ELSE status END"
                " WHERE pk = (SELECT request FROM image WHERE pk = ?)",
                (damage.image,),
            )


def _put_aside(source: Path, quarantine: Path) -> None:
    if not source.exists():
        return
    make_folder(quarantine)
    target = quarantine / source.name
    while target.exists():
        target = target.with_name(f"{target.stem}+{target.suffix}")
    source.replace(target)
    sync_folder(quarantine)
    sync_folder(source.parent)

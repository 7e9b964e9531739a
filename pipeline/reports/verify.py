"""Compares the files on disk with the ledger; a repair quarantines damaged images and queues their requests again."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage
from pipeline.files import disk_error, move_aside
from pipeline.images.limits import MAX_PIXELS
from pipeline.images.provenance import has_c2pa_mark
from pipeline.ledger import queries
from pipeline.ledger.job_changes import finish_folder_changes
from pipeline.ledger.job_summary import read_job_summaries
from pipeline.ledger.lock import exclusive
from pipeline.ledger.recovery import requeue_lost_images
from pipeline.ledger.submit import known_names
from pipeline.reports.manifest import write_manifest
from pipeline.storage import QUARANTINE_FOLDER, SUBMIT_LOCK_FILE
from pipeline.stores import Addresses

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.ledger.queries import RecordedImage
    from pipeline.storage import StoredImage
    from pipeline.stores import Stores

    CountImages = Callable[[int, int], object]
    NameImage = Callable[[str], object]
    FindFault = Callable[[RecordedImage], tuple[str | None, bool]]


FORBIDDEN = "may not be read by this user; change its permissions, or those of its folder"
"""What is wrong with an image that may be whole: it is paid, and is not bought again."""

_AT_ONCE = 16  # images of an object store: what takes time is its answer


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not as recorded. `file` is `<job>/<folder>/<file>`; `image` is None for an input file.

    `image_pk` is that of an image that a repair makes again: not of one that may be whole, and may not be read.
    """

    image_pk: int | None
    job: str
    file: str
    what: str
    image: RecordedImage | None = None


class Damages(list[Damage]):
    """The damaged files that were found; `c2pa_marks` says how many of the images that were read have one."""

    c2pa_marks = 0


def verify_images(
    connection: sqlite3.Connection,
    config: Config,
    stores: Stores,
    job: str | None,
    count: CountImages | None = None,
    *,
    mend: bool = False,
    deep: bool = False,
) -> tuple[int, Damages]:
    """Do what `Batch.verify` does, with the ledger open; `mend` is its `repair`."""
    if job is not None:
        (job,) = known_names(connection, [job])
    folder, limit = config.output, config.download.max_pixels
    marked: list[str] = []
    damages = Damages(find_damage(connection, folder, stores, job, limit, count, marked.append, deep=deep))
    damages.c2pa_marks = len(marked)
    if mend and damages:
        with exclusive(folder / SUBMIT_LOCK_FILE):  # meanwhile no job is renamed or forgotten
            finish_folder_changes(connection, stores)
            damages[:] = _confirmed(connection, functools.partial(_fault, stores, limit, deep), [*damages])
            repair(connection, folder, stores, damages)
            for name in sorted({damage.job for damage in damages}):
                write_manifest(connection, name, folder, Addresses.of(config))
    repaired = sum(damage.image_pk is not None for damage in damages) if mend else 0  # now in state `lost`
    return queries.count_images(connection, job) + repaired, damages


def find_damage(
    connection: sqlite3.Connection,
    folder: Path,
    stores: Stores,
    job: str | None,
    max_pixels: int = MAX_PIXELS,
    count: CountImages | None = None,
    marked: NameImage | None = None,
    *,
    deep: bool = False,
) -> Iterator[Damage]:
    """Read every recorded file again, of a job or of all, and yield what is missing or damaged. Changes nothing.

    `max_pixels` is the limit above which a result is not decoded. `count` is called with how many images are read, of
    how many, and `marked` with the name of each image that has a C2PA mark. Images in an object store are compared by
    size and checksum, and read only if `deep`. Raises ConfigError.
    """
    recorded = queries.read_recorded_images(connection, job)
    find = functools.partial(_fault, stores, max_pixels, deep)
    with contextlib.ExitStack() as stack:
        is_remote = any(stores.local(image) is None for image in recorded)
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE, "verify")) if is_remote else None
        faults = map(find, recorded) if pool is None else pool.map(find, recorded)
        for number, image in enumerate(recorded):
            if count is not None:
                count(number, len(recorded))
            fault, is_marked = next(faults)
            if fault:
                if (damage := _confirm(connection, find, image, fault)) is not None:
                    yield damage
            elif is_marked and marked is not None:
                marked(image.name)
    yield from _find_damaged_inputs(connection, folder, job)


def _confirm(connection: sqlite3.Connection, find: FindFault, image: RecordedImage, fault: str) -> Damage | None:
    """Return the damage of an image, None if there is none: another command may have moved it while it was read."""
    read: RecordedImage | None = image
    found: str | None = fault
    while found and (now := queries.find_image(connection, image.image_pk)) != read:
        read, found = now, None if now is None else find(now)[0]
    if read is None or not found:
        return None
    return Damage(None if found == FORBIDDEN else read.image_pk, read.job, read.name, found, read)


def _confirmed(connection: sqlite3.Connection, find: FindFault, damages: Iterable[Damage]) -> Iterator[Damage]:
    """Yield those of the damages that are still there, as the ledger has them now."""
    jobs = {summary.name for summary in read_job_summaries(connection)}
    for damage in damages:
        if damage.image is None:
            yield from [damage] if damage.job in jobs else []
        elif (fault := find(damage.image)[0]) and (now := _confirm(connection, find, damage.image, fault)):
            yield now


def _find_damaged_inputs(connection: sqlite3.Connection, folder: Path, job: str | None) -> Iterator[Damage]:
    """Read the uploaded input files: each is named by its own hash."""
    for upload in queries.read_uploaded_files(connection, job):
        name = f"{upload.job}/{upload.file}"
        path = folder / name
        try:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            yield Damage(None, upload.job, name, "is missing; submit the job again")
        except OSError as reason:
            yield Damage(None, upload.job, name, f"cannot be read: {reason.strerror or reason}")
        else:
            if sha256 != path.stem:
                yield Damage(None, upload.job, name, "has another hash than its name; submit the job again")


def _fault(stores: Stores, max_pixels: int, deep: bool, image: RecordedImage) -> tuple[str | None, bool]:
    """Return what is wrong with an image, and whether it has a C2PA mark, as far as it was read."""
    from pipeline.images import inspect

    if stores.local(image) is None and not deep:
        return stores.remote_at(image.root or "").find_fault(image.name, image.bytes, image.sha256), False
    try:
        content = read_recorded(stores, image.name, image)
    except BrokenImage as reason:
        return str(reason), False
    try:
        inspect.inspect_svg(content) if image.format == "svg" else inspect.inspect(content, max_pixels)
    except BrokenImage as reason:
        return f"is not a whole image: {reason}", False
    return None, has_c2pa_mark(content, image.format)


def read_recorded(stores: Stores, name: str, image: RecordedImage | StoredImage) -> bytes:
    """Return the content of an image that is as recorded. Raises BrokenImage that says what is wrong, and ConfigError.

    `name` is the image's in an ImageStore.
    """
    try:
        content = stores.of_image(image).read(name)
    except FileNotFoundError:
        raise BrokenImage("is missing") from None
    except PermissionError:
        raise BrokenImage(FORBIDDEN) from None
    except OSError as reason:
        raise BrokenImage(f"cannot be read: {reason.strerror or reason}") from None
    if len(content) != image.bytes:
        raise BrokenImage(f"has {len(content)} bytes, recorded are {image.bytes}")
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise BrokenImage("has changed since it was stored: another hash than recorded")
    return content


def repair(connection: sqlite3.Connection, folder: Path, stores: Stores, damages: list[Damage]) -> None:
    """Move what is damaged to quarantine/ and queue what is missing. Raises DiskFull."""
    try:
        for damage in damages:
            if damage.image is None:
                move_aside(folder / damage.file, folder / damage.job / QUARANTINE_FOLDER)
            elif damage.image_pk is not None:
                stores.of_image(damage.image).quarantine(damage.file)
    except OSError as reason:
        raise disk_error(reason, folder) from None
    requeue_lost_images(connection, [damage.image_pk for damage in damages if damage.image_pk is not None])

"""Adopts images on disk that the ledger does not know: those that a job's manifest names, with the hash that they have.

The manifest is evidence here, not an authority. This program wrote it, whole, from a ledger that knew more; it says
which request an image belongs to, and the bytes must have the hash that it states. What it does not name stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pipeline.ledger.database import transaction
from pipeline.ledger.unrecorded_images import incomplete_requests, record_found_images, unknown_names
from pipeline.ordinary_file import open_ordinary
from pipeline.reports.manifest import FILE_NAME
from pipeline.reports.manifest_evidence import KEPT_NAME
from pipeline.storage import IMAGES_FOLDER, StoredImage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from pipeline.storage import LocalStore

_NUMBER = re.compile(r"images/[^/]+-([0-9]{1,9})\.\w+")  # of an image in its request, in the name of its file
_MOST_USD = 1e9
_MOST_PIXELS = 1e9  # of a side


def adopt_images(connection: sqlite3.Connection, folder: Path, images: LocalStore) -> tuple[int, list[str]]:
    """Record the images that the ledger does not know and its requests miss, if a manifest proves them.

    Returns their number, and the names of the other images that it does not know: some of them may only be not recorded
    yet unless this process holds the folder's lock. What a run is making now is left alone.
    """
    return _adopt_named(connection, folder, images, images.names())


def adopt_images_of(connection: sqlite3.Connection, folder: Path, images: LocalStore, job: str) -> None:
    """Do the same for one job that was queued beside a run: the run has looked for images when it began."""
    with contextlib.suppress(OSError):  # there is no such folder
        files = [path.name for path in images.job_folder(job).iterdir()]
        _adopt_named(connection, folder, images, [f"{job}/{IMAGES_FOLDER}/{file}" for file in files])


def _adopt_named(
    connection: sqlite3.Connection, folder: Path, images: LocalStore, on_disk: Iterable[str]
) -> tuple[int, list[str]]:
    unknown = unknown_names(connection, on_disk)
    adopted = 0
    for job, names in groupby(unknown, key=lambda name: name.partition("/")[0]):
        files = {name.partition("/")[2] for name in names}
        for manifest in (FILE_NAME, KEPT_NAME):
            if entries := _read_entries(folder / job / manifest, files):
                adopted += _adopt(connection, images, job, entries)
    return adopted, unknown_names(connection, unknown) if adopted else unknown


def _adopt(
    connection: sqlite3.Connection, images: LocalStore, job: str, entries: Mapping[str, Mapping[str, Any]]
) -> int:
    adopted = 0
    with transaction(connection):
        for key, request in incomplete_requests(connection, job, entries).items():
            entry = entries[key]
            proven = {
                found.number: found for listed_image in entry["images"] if (found := _prove(images, job, listed_image))
            }
            missing = [image for number, image in proven.items() if number not in request.numbers][: request.missing]
            if missing:
                cost, request_id = entry.get("cost_usd"), entry.get("request_id")
                total = float(cost) if isinstance(cost, int | float) and 0 <= cost < _MOST_USD else None
                known_id = request_id if isinstance(request_id, str) else None
                by_number = {_number(listed_image): listed_image.get("provider") for listed_image in entry["images"]}
                for provider, images_of_one in groupby(missing, key=lambda image: by_number[image.number]):
                    made_by = provider if isinstance(provider, str) and provider else None
                    record_found_images(connection, request, list(images_of_one), known_id, total, made_by)
                adopted += len(missing)
    return adopted


def _read_entries(manifest: Path, unknown: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the entries of a manifest that name unknown files, by key, each with these images only.

    A line that this program did not write is left out: it may hold anything.
    """
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError), open_ordinary(manifest) as lines:
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
                entry = json.loads(line)
                json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()
                images = [image for image in entry["images"] if image["file"] in unknown and _is_ours(image)]
                if images:
                    earlier = found.get(entry["key"], {"images": []})["images"]
                    found[entry["key"]] = {**entry, "images": earlier + images}
    return found


def _is_ours(shown: Mapping[str, Any]) -> bool:
    """Return whether the fields of an image have the types that this program writes."""
    sides = (shown["width"], shown["height"])
    words = (shown.get("revised_prompt"), shown.get("remark"))
    return (
        all(isinstance(side, int) and 0 < side <= _MOST_PIXELS for side in sides)
        and isinstance(shown["format"], str)
        and all(word is None or isinstance(word, str) for word in words)
    )


def _number(shown: Mapping[str, Any]) -> int | None:
    """Return the number of an image in its request, from the name of its file."""
    found = _NUMBER.fullmatch(shown["file"])
    return None if found is None else int(found[1])


def _prove(images: LocalStore, job: str, shown: Mapping[str, Any]) -> StoredImage | None:
    """Return the image that a manifest shows if the bytes on disk have its hash, else None."""
    number = _number(shown)
    try:
        content = images.read(f"{job}/{shown['file']}")
    except OSError:
        return None
    if number is None or hashlib.sha256(content).hexdigest() != shown.get("sha256"):
        return None
    fields = ("width", "height", "format", "revised_prompt", "remark")
    return StoredImage(
        number=number,
        file=shown["file"],
        sha256=shown["sha256"],
        bytes=len(content),
        root=images.root,
        spooled=int(images.is_spool),
        **{name: shown.get(name) for name in fields},  # type: ignore[arg-type]  # as the manifest has them
    )

"""Checks of this machine: the output folder, its locks, room on the disk, and open files."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.doctor.check import not_checked, problem, warning, well
from pipeline.file_descriptors import descriptors_for_calls, raise_descriptor_limit
from pipeline.files import write_whole
from pipeline.ledger import database
from pipeline.ledger.lock import supports_flock
from pipeline.models.batch_estimate import image_bytes
from pipeline.storage import LEDGER_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.provider import Provider
    from pipeline.doctor.check import Check
    from pipeline.doctor.next_run import Demand, NextRun

_MARGIN = 1.3
_STATE_BYTES = 60_000  # of an image beside it: its thumbnail, its rows and its line of the manifest
_STATE_FILES = 2  # of an image: the file itself and its thumbnail
_OTHER_FILES = 100  # of a job
_PROBE_BYTES = 64 * 1024


def check_output(next_run: NextRun) -> Iterator[Check]:
    """Yield whether the folders of results can be written, and can be locked. Nothing of the probe stays."""
    for folder in _folders(next_run):
        place = _existing(folder)
        try:
            with tempfile.TemporaryDirectory(prefix=".pipeline-doctor-", dir=place) as probe:
                write_whole(Path(probe) / "probe", bytes(_PROBE_BYTES))
                lockable = supports_flock(Path(probe)), database.supports_sqlite_locks(Path(probe) / LEDGER_FILE)
        except OSError as reason:
            what = f"{folder} cannot be written: {reason.strerror or reason}"
            yield problem("output", what, "change its permissions, or choose another `output`")
            continue
        unwritable = [path for path in _own_files(next_run, folder) if path.exists() and not os.access(path, os.W_OK)]
        if unwritable:
            what = f"{unwritable[0]} cannot be written"
            yield problem("output", what, "change its permissions, or choose another `output`")
        elif not lockable[1]:
            what = f"{folder} lies on a file system without locks, which the ledger needs"
            yield problem("output", what, "choose an `output` on a local disk")
        elif not lockable[0]:
            what = f"{folder} lies on a file system without locks: two runs could work on it at once"
            yield warning("output", what, "choose an `output` on a local disk, or start one run only")
        else:
            yield well("output", f"{folder} can be written and locked")


def _folders(next_run: NextRun) -> list[Path]:
    return list(dict.fromkeys([next_run.config.output, next_run.config.images_folder]))


def _own_files(next_run: NextRun, folder: Path) -> Iterator[Path]:
    yield folder / LEDGER_FILE
    for job in next_run.jobs:
        yield folder / job.name
        yield folder / job.name / "images"


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def check_disk(next_run: NextRun) -> Iterator[Check]:
    """Yield whether there is room, and are inodes, for what will come: 1.3 times the estimate."""
    images = sum(demand.images for demand in next_run.demands)
    if not images:
        yield not_checked("disk", "nothing is missing")
        return
    image_bytes_needed = sum(demand.images * _bytes_of_image(next_run, demand) for demand in next_run.demands)
    if isinstance(next_run.config.images, str):  # they are here until the object store has them
        image_bytes_needed = min(image_bytes_needed, next_run.config.spool_bytes)
    needed = dict.fromkeys(_folders(next_run), 0.0)
    needed[next_run.config.images_folder] += image_bytes_needed * _MARGIN
    needed[next_run.config.output] += images * _STATE_BYTES * _MARGIN
    files = (images * _STATE_FILES + _OTHER_FILES * len(next_run.jobs)) * _MARGIN
    for folder, size in needed.items():
        yield from _check_room(folder, size, math.ceil(files))


def _check_room(folder: Path, needed: float, files: int) -> Iterator[Check]:
    place = _existing(folder)
    try:
        usage = shutil.disk_usage(place)
    except OSError as reason:
        yield not_checked("disk", f"{folder}: {reason.strerror or reason}")
        return
    if not usage.total:  # not a disk
        yield not_checked("disk", f"{folder} states no size")
        return
    free = usage.free
    words = f"{folder} has {_size(free)} free, and about {_size(needed)} will come"
    if free < needed:
        yield problem("disk", words, "free some space, or choose another `output`")
    else:
        yield well("disk", words)
    if not hasattr(os, "statvfs"):
        return
    state = os.statvfs(place)
    if state.f_files and state.f_favail < files:  # some file systems make inodes as they need them, and count none
        what = f"{folder} has {state.f_favail:,} inodes free, and about {files:,} files will come"
        yield problem("inodes", what, "delete files there, or choose another `output`")


def _bytes_of_image(next_run: NextRun, demand: Demand) -> float:
    members = next_run.members(demand.service)
    model = next_run.models(members[0]).find(demand.model) if members else None
    return image_bytes(model.with_defaults(demand.served_by, demand.params) if model else demand.params)


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def check_open_files(next_run: NextRun) -> Iterator[Check]:
    """Yield whether the limit of open files allows as many calls at a time as the jobs can use."""
    limit = raise_descriptor_limit()
    calls = descriptors_for_calls(limit)
    for provider in next_run.providers():
        images = sum(demand.images for demand in next_run.demands_at(provider))
        useful = min(provider.concurrency, images, _reachable_calls(provider))
        if useful > calls:
            what = f"`{provider.name}`: {limit:,} open files allow {calls:,} calls at a time, and {useful:,} are useful"
            yield warning("open files", what, f"allow more with `ulimit -n {2 * useful + 64}`")
            return
    yield well("open files", f"{limit:,} allow {calls:,} calls at a time")


def _reachable_calls(provider: Provider) -> int:
    """Return how many calls can be in flight below the rate limit, if each takes as long as it may."""
    limit = provider.rate_limit
    return provider.concurrency if limit is None else math.ceil(limit.per_minute * provider.timeout_seconds / 60)

"""Uploads: brings paid images from the spool on the local disk to their object store, beside the calls.

Whole in the spool and known to the ledger, uploaded, confirmed, recorded, removed: a kill in between repeats a step and
buys nothing. A store that does not answer is waited for; one that refuses stops the run, and the spool stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.backoff import Backoff
from pipeline.engine.events import StoreAnswers, StoreSilent
from pipeline.engine.stop_policy import Withdrawn
from pipeline.errors import ConfigError, DiskFull, Stop, StoreRefused
from pipeline.files import disk_error
from pipeline.ledger import spooled_images
from pipeline.storage import candidate_names, media_type
from pipeline.stores.object_errors import StoreDown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pipeline.engine.events import Listener
    from pipeline.engine.stop_policy import StopPolicy
    from pipeline.ledger.folder_identity import HeldFolder
    from pipeline.ledger.queries import RecordedImage
    from pipeline.ledger.writer import Writer
    from pipeline.storage import LocalStore
    from pipeline.stores import Stores
    from pipeline.stores.object_store import RemoteStore

AT_ONCE = 16
"""Uploads at a time: the store's latency decides the speed, and one image of 5 MB is read into memory for each."""

GRACE_SECONDS = 5.0
"""How long uploads in progress may still take once the run is stopped; the next run makes those that do not end."""

_FIRST_WAIT, _LONGEST_WAIT = 0.25, 15.0  # seconds between two tries of an upload
_CHECKS, _CHECK_WAIT = 3, 1.0  # of a store, before the first call


@dataclass(frozen=True, slots=True)
class Places:
    """Where paid images go: the output folder, and the spool that has room for those that wait for their store."""

    held: HeldFolder
    spool: Spool


class Spool:
    """Paid images that wait for their store: how many, their bytes, and whether there is room for more."""

    def __init__(self, most_bytes: float = math.inf) -> None:
        self.images = 0
        self.changed = asyncio.Event()  # set at the next change, and then replaced
        self._most = most_bytes
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def has_room(self) -> bool:
        """Whether calls may be made; those in flight may bring the spool beyond its bound."""
        return self._room.is_set()

    async def admit(self) -> None:
        """Wait until there is room."""
        await self._room.wait()

    def count(self, images: int, size: int) -> None:
        """Count images that came, or left if negative, and their bytes."""
        self.images += images
        self._bytes += size
        (self._room.set if self._bytes < self._most else self._room.clear)()
        self.wake()

    def wake(self) -> None:
        """End all waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


async def check_store(store: RemoteStore, ledger_id: str) -> None:
    """Check that a small object can be put, read and deleted, and that the store is this ledger's. Raises ConfigError.

    An answer that may be better the next time is asked for again, since nothing can be bought without the store.
    """
    for left in reversed(range(_CHECKS)):
        try:
            await store.check(ledger_id)
        except StoreRefused as error:
            raise ConfigError(f"nothing is bought: {error}") from None
        except StoreDown as error:
            if not left:
                raise ConfigError(f"nothing is bought: {error}; run again when it does") from None
            await asyncio.sleep(_CHECK_WAIT)
        else:
            return


@dataclass(slots=True)
class Uploader:
    """Uploads everything in the spool while `working` is open. `keep_thumbnail` is called before an image leaves it."""

    stores: Stores
    spool: Spool
    writer: Writer
    stops: StopPolicy
    outage_hours: float
    emit: Listener
    keep_thumbnail: Callable[[RecordedImage], object]
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)  # by the images' primary keys
    _silent_since: float | None = None

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Upload what earlier runs have left, then what comes during the block, and the rest after it."""
        await self._take_over()
        async with asyncio.TaskGroup() as group:
            feeder = group.create_task(self._feed(group), name="uploads")
            try:
                await self._until_empty()
                yield
                await self._until_empty()
            finally:
                for task in (feeder, *self._tasks.values()):
                    task.cancel()

    async def _take_over(self) -> None:
        """Count what earlier runs have left, and delete what they had recorded as uploaded."""
        store = self.stores.spool
        found = {name: await asyncio.to_thread(_digest, store, name) for name in store.names()}
        images, size, uploaded = await self.writer.do(spooled_images.read_state, found)
        for name in uploaded:
            store.delete(name)
        self.spool.count(images, size)

    async def _until_empty(self) -> None:
        """Wait until everything is uploaded; once the run is stopped, only for uploads in progress, and not long."""
        signal = self.stops.halting
        with contextlib.suppress(Withdrawn):
            async with signal.interruptible():
                while self.spool.images:
                    await self.spool.changed.wait()
        if signal.is_set and self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=GRACE_SECONDS)

    async def _feed(self, group: asyncio.TaskGroup) -> None:
        """Start an upload for each image that comes."""
        while not self.stops.halting.is_set:
            changed = self.spool.changed
            room = AT_ONCE - len(self._tasks)
            if room and self.spool.images > len(self._tasks):
                for image in await self._read(room):
                    task = self._tasks[image.image_pk] = group.create_task(self._upload(image), name=image.name)
                    task.add_done_callback(functools.partial(self._ended, image.image_pk))
            await changed.wait()

    def _ended(self, image_pk: int, _task: asyncio.Task[None]) -> None:
        del self._tasks[image_pk]
        self.spool.wake()

    async def _read(self, most: int) -> list[RecordedImage]:
        try:
            return await self.writer.do(spooled_images.read_spooled, most, frozenset(self._tasks))
        except Stop as error:
            self.stops.stop(error, None)
            return []

    async def _upload(self, image: RecordedImage) -> None:
        """Upload one image, however long that takes; leave it in the spool if the run is stopped."""
        spool, store = self.stores.spool, self.stores.remote_at(image.root or "")
        try:
            content = await asyncio.to_thread(_read_whole, spool, store, image)
            file = image.file
            if content is not None:
                file = await self._put(store, image, content)
                await asyncio.to_thread(self.keep_thumbnail, image)
            await self.writer.do(spooled_images.record_upload, image.image_pk, file)
            await asyncio.to_thread(spool.delete, image.name)
        except Withdrawn:
            return
        except Stop as error:
            self.stops.stop(error, None)
        except OSError as reason:
            self.stops.stop(disk_error(reason, spool.job_folder(image.job)), None)
        else:
            self.spool.count(-1, -image.bytes)

    async def _put(self, store: RemoteStore, image: RecordedImage, content: bytes) -> str:
        """Put an image under the first name that no other content has, and return that. Raises Stop and Withdrawn."""
        kind = media_type(image.format)
        for file in candidate_names(image.file, image.sha256):
            backoff, since = Backoff(_FIRST_WAIT, _LONGEST_WAIT), time.monotonic()
            while True:
                try:
                    is_there = await store.upload(f"{image.job}/{file}", content, kind)
                except StoreDown as error:
                    self._is_silent(store, error, time.monotonic() - since)
                    async with self.stops.halting.interruptible():
                        await asyncio.sleep(backoff.next())
                else:
                    break
            self._answers(store)
            if is_there:
                return file
        raise StoreRefused(f"{store.root}/{image.job}/{file} is damaged; move it away, then run `pipeline run`")

    def _is_silent(self, store: RemoteStore, error: StoreDown, seconds: float) -> None:
        """Report that a store does not answer, once. Raises StoreRefused if it has not for as long as is allowed."""
        if seconds > self.outage_hours * 3600:
            raise StoreRefused(
                f"{error}, for {self.outage_hours:g} hours; paid images wait in the job's `spool/`: when it answers,"
                " run `pipeline run`, which uploads them first"
            )
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            self.emit(StoreSilent(store.root, str(error)))

    def _answers(self, store: RemoteStore) -> None:
        if self._silent_since is not None:
            self.emit(StoreAnswers(store.root, time.monotonic() - self._silent_since))
            self._silent_since = None


def _read_whole(spool: LocalStore, store: RemoteStore, image: RecordedImage) -> bytes | None:
    """Return the content of an image in the spool; None if it is gone from there and the store has it.

    An older copy of the ledger does not know that it was uploaded. Raises DiskFull if it is not what was stored.
    """
    with contextlib.suppress(FileNotFoundError):
        content = spool.read(image.name)
        if hashlib.sha256(content).hexdigest() == image.sha256:
            return content
    try:
        if hashlib.sha256(store.read(image.name)).hexdigest() == image.sha256:
            return None
    except FileNotFoundError:
        pass
    except ConfigError as error:
        raise StoreRefused(str(error)) from None
    raise DiskFull(
        f"{spool.local_path(image.name)} is missing or damaged, and {store.root} does not have it; to have it made"
        " again, run `pipeline verify --repair`"
    )


def _digest(spool: LocalStore, name: str) -> str:
    """Return the hash of a file in the spool, empty if it cannot be read."""
    try:
        return hashlib.sha256(spool.read(name)).hexdigest()
    except OSError:
        return ""

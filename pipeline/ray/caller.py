"""Caller whose calls and downloads are made by workers; batches go through the process of the run."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.engine.caller import CallResult, LocalCaller
from pipeline.errors import DiskFull, Invalid, PipelineError, RequestError
from pipeline.ray.messages import CallOrder, Failure, FetchOrder
from pipeline.storage import candidate_names
from pipeline.stores.object_errors import StoreDown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from pipeline.engine.caller import CallSpec, Target
    from pipeline.engine.image_writer import FileNames
    from pipeline.ray.messages import LeftBytes
    from pipeline.ray.pool import Pool
    from pipeline.ray.uploads import SharedInputs
    from pipeline.storage import LocalStore, StoredImage


class RayCaller(LocalCaller):
    """Hands the calls and downloads of one provider to a pool of workers."""

    is_elsewhere = True

    def __init__(
        self, target: Target, images: LocalStore, environment: Mapping[str, str], pool: Pool, inputs: SharedInputs
    ) -> None:
        super().__init__(target, images, environment)
        self._images = images
        self._pool = pool
        self._inputs = inputs
        self._calls = 0
        self._prepared: set[str] = set()  # jobs that have a folder for images

    async def __aenter__(self) -> Self:
        await self._pool.open(self._target)
        return await super().__aenter__()

    @property
    def in_flight(self) -> int:
        """Number of calls that workers have, or are about to get."""
        return self._calls

    async def call(
        self, spec: CallSpec, on_sent: Callable[[], None], on_answered: Callable[[], None] = lambda: None
    ) -> CallResult:
        """Do what `LocalCaller.call` does, on a worker; `on_sent` and `on_answered` are called when it reports that.

        The outcome is unknown if the worker is lost meanwhile. Raises Withdrawn if the call was not handed out.
        """
        try:
            await self._prepare(spec.names.job)
            call = await self._inputs.place(spec.call)
        except DiskFull as error:
            return CallResult("not_sent", None, time.time(), error)
        except (OSError, StoreDown, PipelineError) as reason:
            return CallResult("not_sent", None, time.time(), Invalid(f"an input cannot be shared: {reason}"))
        name = self._target.provider.name
        order = CallOrder(self._pool.next_id(), name, call, spec.names, spec.taken, spec.headers)
        self._calls += 1
        try:
            done, ticket = await self._pool.do(order, on_sent)
            value = await self._value(done.value, done.left, spec.names)
        except RequestError as error:
            return CallResult(error.outcome, time.time(), time.time(), error)
        finally:
            self._calls -= 1
        assert isinstance(value, CallResult)
        if value.error is None:
            on_answered()
        return _by_our_clock(value, ticket.sent_at, ticket.ahead)

    async def _prepare(self, job: str) -> None:
        """Create the folder of a job's images here: a network drive may not show what another node has created."""
        if not self._images.is_spool and job not in self._prepared:
            await asyncio.to_thread(self._images.prepare, job)
            self._prepared.add(job)

    async def fetch(
        self, url: str, expires_at: float, names: FileNames, number: int, *, is_last: bool = False
    ) -> StoredImage:
        """Do what `LocalCaller.fetch` does, on a worker; another one does it if that is lost."""
        provider = self._target.provider.name
        order = FetchOrder(self._pool.next_id(), provider, url, expires_at, names, number, is_last)
        done, _ = await self._pool.do(order)
        image: StoredImage = await self._value(done.value, done.left, names)
        return image

    async def _value(self, value: Any, left: Sequence[LeftBytes], names: FileNames) -> Any:
        """Return the value of an order, or raise its error, once what the worker could not store is in the spool."""
        renamed = await asyncio.to_thread(self._store_left, left, names) if left else {}
        if isinstance(value, Failure):
            raise value.error()
        if not renamed:
            return value
        if isinstance(value, CallResult):
            return replace(value, images=tuple(_spooled(image, renamed) for image in value.images))
        return _spooled(value, renamed)

    def _store_left(self, left: Sequence[LeftBytes], names: FileNames) -> dict[str, str]:
        """Put images into the spool, and put other bytes aside; return the names of the images there, by their own."""
        renamed = {}
        for item in left:
            if item.reason is not None:
                self._images.put_aside(names.job, names.stem, item.content, item.reason)
                continue
            file = item.name.removeprefix(f"{names.job}/")
            renamed[file] = _put(self._images, names.job, file, item.content)
        return renamed


def _put(images: LocalStore, job: str, file: str, content: bytes) -> str:
    """Store an image under the first name that no other content has; return that name. Raises DiskFull."""
    for name in candidate_names(file, hashlib.sha256(content).hexdigest()):
        try:
            images.put(f"{job}/{name}", content)
        except FileExistsError:
            continue
        return name
    raise DiskFull(f"{images.local_path(f'{job}/{name}')} is damaged; move it away, then run `pipeline run`")


def _spooled(image: StoredImage, renamed: Mapping[str, str]) -> StoredImage:
    file = renamed.get(image.file)
    return image if file is None else image._replace(file=file, spooled=1)


def _by_our_clock(result: CallResult, sent_at: float | None, ahead: float) -> CallResult:
    """Return a result with the moments of this machine's clock; `ahead` is by how much the worker's is ahead."""
    urls = tuple(replace(url, expires_at=url.expires_at - ahead) for url in result.urls) if result.urls else ()
    if result.outcome == "not_sent":
        sent_at = None
    return replace(result, sent_at=sent_at, ended_at=time.time(), urls=urls)

"""Inputs of edits on their way to the workers: put once where all nodes can read them, and read there."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.errors import Invalid, PipelineError
from pipeline.files import make_folder, write_new
from pipeline.stores.object_errors import StoreDown

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.client.request import Call, Upload
    from pipeline.stores import Stores
    from pipeline.stores.object_store import RemoteStore

_FOLDER = "inputs"


class SharedInputs:
    """Puts each input once below the root of the images, if that is not where it is already."""

    def __init__(self, stores: Stores, output: Path) -> None:
        self._stores = stores
        self._output = output
        self._placed: dict[Path, asyncio.Task[Path]] = {}

    async def place(self, call: Call) -> Call:
        """Return a call whose uploads every node can read. Raises PipelineError if one cannot be put there."""
        if not call.uploads or (self._stores.remote is None and self._stores.new.folder == self._output):
            return call
        uploads = [replace(upload, path=await self._place(upload)) for upload in call.uploads]
        return replace(call, uploads=uploads)

    async def _place(self, upload: Upload) -> Path:
        task = self._placed.get(upload.path)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._placed[upload.path] = asyncio.create_task(self._put(upload))
        return await asyncio.shield(task)

    async def _put(self, upload: Upload) -> Path:
        name = upload.path.relative_to(self._output)
        content = await asyncio.to_thread(upload.path.read_bytes)
        if self._stores.remote is not None:
            await self._stores.remote.upload(name.as_posix(), content, upload.content_type)
            return name
        path = self._stores.new.folder / name
        await asyncio.to_thread(make_folder, path.parent)
        with contextlib.suppress(FileExistsError):  # named by its content
            await asyncio.to_thread(write_new, str(path), content)
        return path


async def fetch_uploads(call: Call, remote: RemoteStore | None, folder: Path) -> Call:
    """Return a call whose uploads are local files: what is in an object store is read from there once."""
    if remote is None or not call.uploads:
        return call
    return replace(call, uploads=[await _fetch(upload, remote, folder) for upload in call.uploads])


async def _fetch(upload: Upload, remote: RemoteStore, folder: Path) -> Upload:
    path = folder / upload.path.name
    if not path.exists():
        try:
            content = await asyncio.to_thread(remote.read, upload.path.as_posix())
        except (OSError, StoreDown, PipelineError) as reason:
            raise Invalid(f"{remote.root}/{upload.path} cannot be read: {reason}; submit the job again") from None
        with contextlib.suppress(FileExistsError):
            await asyncio.to_thread(write_new, str(path), content)
    return replace(upload, path=path)

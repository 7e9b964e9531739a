"""Store of a worker: a folder that all nodes share, or an object store, into which it puts images itself."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.ray.messages import LeftBytes
from pipeline.storage import QUARANTINE_FOLDER, LocalStore, QuarantinedFile, media_type
from pipeline.stores.object_errors import StoreDown

if TYPE_CHECKING:
    from pipeline.stores.object_store import RemoteStore


class ObjectWriter(LocalStore):
    """An object store, to which images are written as to a folder.

    What the store does not take is kept in memory, for the run to put into its spool: nothing that is paid is lost.
    """

    def __init__(self, remote: RemoteStore) -> None:
        super().__init__(Path("/"), root=remote.root)
        self._remote = remote
        self._left: dict[str, list[LeftBytes]] = {}  # by the job and the stem of the files
        self._lock = threading.Lock()

    def put(self, name: str, content: bytes | memoryview) -> None:
        """Store an image. Raises FileExistsError if other content has the name."""
        whole = bytes(content)
        kind = Path(name).suffix.removeprefix(".").replace("jpg", "jpeg")
        try:
            is_there = asyncio.run(self._remote.upload(name, whole, media_type(kind)))
        except (StoreDown, PipelineError):  # down or refused: the run's own uploads wait, try again, and say so
            self._keep(LeftBytes(name, whole))
            return
        if not is_there:
            raise FileExistsError(name)

    def put_aside(self, job: str, stem: str, content: bytes, reason: str) -> QuarantinedFile:
        """Keep bytes that are not a valid image for the run, which puts them aside beside its ledger."""
        sha256 = hashlib.sha256(content).hexdigest()
        self._keep(LeftBytes(f"{job}/{stem}", content, reason))
        return QuarantinedFile(f"{QUARANTINE_FOLDER}/{stem}-{sha256[:8]}.bin", sha256, len(content), reason)

    def _keep(self, left: LeftBytes) -> None:
        with self._lock:
            self._left.setdefault(left.name.partition("/")[0], []).append(left)

    def take_left(self, job: str, stem: str) -> tuple[LeftBytes, ...]:
        """Return what was kept of one request, and forget it."""
        starts = (f"{job}/images/{stem}-", f"{job}/{stem}")
        with self._lock:
            kept = self._left.pop(job, [])
            taken = [left for left in kept if left.name.startswith(starts[0]) or left.name == starts[1]]
            if rest := [left for left in kept if left not in taken]:
                self._left[job] = rest
        return tuple(taken)

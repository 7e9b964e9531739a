"""Result images in an object store, through fsspec: whole under their names, and confirmed by a checksum.

The libraries' own retries are off, since they hide outages: whoever uploads waits and tries again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import ConfigError, StoreRefused
from pipeline.storage import IMAGES_FOLDER, QUARANTINE_FOLDER, SIDECAR
from pipeline.stores.object_errors import StoreDown, store_error

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from concurrent.futures import Future

T = TypeVar("T")

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
"""The extra of this program that brings the library for URLs of each scheme."""

MARKER = ".image-batch-pipeline"
"""Object that holds the id of the ledger whose images are below a root."""

_PROBE = ".image-batch-pipeline-probe"
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_LEAST_RATE = 50_000  # bytes a second: an upload that is slower is tried again
_NO_RETRIES = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS, "retries": {"max_attempts": 0}}


class RemoteStore:
    """All result images below one root, which is a URL that fsspec knows. It connects when it is first used.

    What raises StoreRefused and StoreDown is for a run, in its own event loop; the methods of an ImageStore block
    their thread and raise ConfigError.
    """

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        self.root = root
        self._scheme = root.partition("://")[0]
        self._options = dict(options)
        self._opening = threading.Lock()
        self._opened: Any = None

    @property
    def _is_s3(self) -> bool:
        return EXTRAS.get(self._scheme) == "s3"

    @property
    def _fs(self) -> Any:
        """The file system of fsspec, opened once. Raises ConfigError if its library is not installed."""
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
        return self._opened

    def _open(self) -> Any:
        extra = EXTRAS.get(self._scheme)
        install = f'pip install "image-batch-pipeline[{extra}]"' if extra else "pip install fsspec, and its library"
        try:
            import fsspec

            options = {"skip_instance_cache": True, "use_listings_cache": False, **self._options}
            if self._is_s3:
                options["config_kwargs"] = {**_NO_RETRIES, **options.get("config_kwargs", {})}
            opened = fsspec.filesystem(self._scheme, **options)
        except ImportError:
            raise ConfigError(f"`images: {self.root}` needs a library that is not installed: {install}") from None
        except (ValueError, TypeError) as reason:
            raise ConfigError(f"`images: {self.root}` cannot be opened: {reason}") from None
        if self._is_s3:
            opened.retries = 1
        if not opened.async_impl:
            from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

            opened = AsyncFileSystemWrapper(opened, asynchronous=False)
        return opened

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    async def _in_loop(self, work: Coroutine[Any, Any, T], seconds: float = 2 * _READ_SECONDS) -> T:
        """Do some work in the loop of fsspec, from any loop. Raises StoreRefused, StoreDown and FileNotFoundError."""
        return await asyncio.wrap_future(self._start(work, seconds))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work in the loop of fsspec and block until it is done. Raises ConfigError and FileNotFoundError."""
        try:
            return self._start(work, 10 * _READ_SECONDS).result()
        except (StoreRefused, StoreDown) as error:
            raise ConfigError(str(error)) from None

    def _start(self, work: Coroutine[Any, Any, T], seconds: float) -> Future[T]:
        try:
            loop = self._fs.loop
        except ConfigError:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(self._bounded(work, seconds), loop)

    async def _bounded(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except (ConfigError, StoreRefused, StoreDown, _NotThere):
            raise
        except TimeoutError:
            raise StoreDown(f"{self.root} did not answer within {seconds:.0f} seconds") from None
        except Exception as reason:  # noqa: BLE001 - of whichever library: `store_error` says what it means
            raise store_error(reason, self.root) from None

    def open(self) -> None:
        """Open the file system, whose library takes a second to import. Raises ConfigError if there is none."""
        assert self._fs is not None

    async def check(self, ledger_id: str) -> None:
        """Check that this ledger may put, read and delete objects here. Raises ConfigError, StoreRefused, StoreDown."""
        await asyncio.to_thread(self.open)
        await self._in_loop(self._check(ledger_id))

    async def _check(self, ledger_id: str) -> None:
        probe, content = self._path(f"{_PROBE}-{ledger_id[:8]}"), ledger_id.encode()
        await self._put(probe, content, "text/plain")
        if await self._cat(probe) != content:
            raise StoreDown(f"{self.root} returned other bytes than were put there")
        await self._remove(probe)
        marker = self._path(MARKER)
        try:
            owner = (await self._cat(marker)).decode("utf-8", "replace").strip()
        except _NotThere:
            await self._put(marker, content, "text/plain")
            owner = ledger_id
        if owner != ledger_id:
            raise ConfigError(
                f"`images: {self.root}` belongs to another ledger ({owner:.40}): choose another folder of the bucket."
                f" If that ledger is gone for good, delete the object {marker}"
            )

    async def upload(self, name: str, content: bytes, content_type: str) -> bool:
        """Put an image and confirm that the store has it; return False if other content has this name.

        An object that is there already is not replaced: it may be this image, whose confirmation was lost, or one
        that an older copy of the ledger paid. Raises StoreRefused and StoreDown.
        """
        work = self._upload(self._path(name), content, content_type)
        return await self._in_loop(work, 2 * _READ_SECONDS + len(content) / _LEAST_RATE)

    async def _upload(self, path: str, content: bytes, content_type: str) -> bool:
        try:
            size, checksum = await self._stat(path)
        except _NotThere:
            answer = await self._put(path, content, content_type)
            if answer != _sha256(content) and not await self._is_confirmed(path, content):
                await self._remove(path)  # nobody else has put an object there
                raise StoreDown(f"{path} has other bytes than were sent") from None
            return True
        if size == len(content) and checksum is not None:
            return checksum == _sha256(content)
        return size == len(content) and await self._cat(path) == content

    async def _put(self, path: str, content: bytes, content_type: str) -> str | None:
        """Put an object; return the SHA-256 that the store says it has, if it says so."""
        if self._is_s3:
            bucket, key, _ = self._fs.split_path(path)
            answer = await self._fs._call_s3(
                *("put_object",),
                Bucket=bucket,
                Key=key,
                Body=content,
                ContentType=content_type,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_sha256(content),
            )
            return answer.get("ChecksumSHA256")  # type: ignore[no-any-return]
        more: dict[str, Any] = {}
        match EXTRAS.get(self._scheme):
            case "gcs":
                more = {"content_type": content_type}
            case "azure":
                more = {"content_settings": {"content_type": content_type}}
        await self._fs._pipe_file(path, content, **more)
        return None

    async def _is_confirmed(self, path: str, content: bytes) -> bool:
        """Return whether the store has these bytes: by its checksum, else they are read back."""
        size, checksum = await self._stat(path)
        if size == len(content) and checksum is not None:
            return checksum == _sha256(content)
        if size == len(content) and EXTRAS.get(self._scheme) == "gcs":
            md5 = (await self._fs._info(path)).get("md5Hash")
            if md5 is not None:
                return bool(md5 == base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode())
        return await self._cat(path) == content

    async def _stat(self, path: str) -> tuple[int, str | None]:
        """Return the size of an object and its SHA-256, if the store keeps one. Raises FileNotFoundError."""
        try:
            if self._is_s3:
                bucket, key, _ = self._fs.split_path(path)
                head = await self._fs._call_s3("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
                return int(head["ContentLength"]), head.get("ChecksumSHA256")
            return int((await self._fs._info(path))["size"]), None
        except FileNotFoundError:
            raise _NotThere(path) from None

    async def _cat(self, path: str) -> bytes:
        try:
            return bytes(await self._fs._cat_file(path))
        except FileNotFoundError as reason:
            if _is_bucket_gone(reason):
                raise
            raise _NotThere(path) from None

    async def _remove(self, path: str) -> None:
        """Delete an object if there is one."""
        try:
            await self._fs._rm_file(path)
        except FileNotFoundError as reason:
            if _is_bucket_gone(reason):
                raise

    def read(self, name: str) -> bytes:
        """Return the content of an image."""
        return self._wait(self._cat(self._path(name)))

    def write(self, name: str, content: bytes, content_type: str) -> None:
        """Put what is no image beside an image, in place of what has the name."""
        self._wait(self._put(self._path(name), content, content_type))

    def find_fault(self, name: str, size: int, sha256: str) -> str | None:
        """Return what is wrong with an image by its size and the checksum that the store keeps, None if nothing is."""
        try:
            found, checksum = self._wait(self._stat(self._path(name)))
        except FileNotFoundError:
            self._wait(self._bucket_exists())
            return "is missing"
        if found != size:
            return f"has {found} bytes, recorded are {size}"
        if checksum is not None and base64.b64decode(checksum).hex() != sha256:
            return "has changed since it was stored: another hash than recorded"
        return None

    async def _bucket_exists(self) -> None:
        """Read the marker: without it, or without the bucket, no image is missing for sure. Raises StoreRefused."""
        try:
            await self._cat(self._path(MARKER))
        except _NotThere:
            raise FileNotFoundError(
                f"{self._path(MARKER)} is gone, and so is the bucket or all that was in it"
            ) from None

    def delete(self, name: str) -> None:
        """Delete an image if there is one of this name."""
        self._wait(self._remove(self._path(name)))

    def quarantine(self, name: str) -> str | None:
        """Move a damaged image to `<job>/quarantine/` in the store; return its new name, None if it is missing."""
        job, _, file = name.partition(f"/{IMAGES_FOLDER}/")
        target = f"{job}/{QUARANTINE_FOLDER}/{file}"
        while self._exists(target):
            stem, dot, kind = target.rpartition(".")
            target = f"{stem}+{dot}{kind}"
        return target if self._move(name, target) else None

    def _exists(self, name: str) -> bool:
        try:
            self._wait(self._stat(self._path(name)))
        except FileNotFoundError:
            return False
        return True

    def _move(self, name: str, target: str) -> bool:
        """Copy an object within the store, then delete it; return whether there was one."""
        if not self._exists(name):
            return False
        self._wait(self._fs._cp_file(self._path(name), self._path(target)))
        self.delete(name)
        return True

    def names(self) -> list[str]:
        """Return the names of all images, in no order."""
        names = [name for name in self._below("") if name.partition("/")[2].startswith(f"{IMAGES_FOLDER}/")]
        return [name for name in names if not name.endswith(SIDECAR)]

    def _below(self, folder: str) -> list[str]:
        """Return the names of all objects below a folder."""
        start = self._fs._strip_protocol(self.root).rstrip("/")
        try:
            found = self._wait(self._fs._find(f"{start}/{folder}".rstrip("/")))
        except FileNotFoundError:
            return []
        return [path[len(start) + 1 :] for path in found if path.startswith(f"{start}/")]

    def move_job(self, job: str, target: str | None) -> None:
        """Move all objects of a job to another name, or delete them if that is None."""
        for name in self._below(f"{job}/"):
            if target is None:
                self.delete(name)
            else:
                self._move(name, f"{target}{name.removeprefix(job)}")


class _NotThere(FileNotFoundError):
    """There is no object of this name in a bucket that answers."""


def _is_bucket_gone(reason: FileNotFoundError) -> bool:
    return "NoSuchBucket" in str(reason.__cause__)


def _sha256(content: bytes) -> str:
    """Return a SHA-256 as S3 writes it."""
    return base64.b64encode(hashlib.sha256(content).digest()).decode()

"""Reads the stored images of an export, each checked against its hash; what is damaged is named at the end."""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import BrokenImage
from pipeline.reports.verify import read_recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from pipeline.storage import StoredImage
    from pipeline.stores import Stores

T = TypeVar("T")
C = TypeVar("C")

_AT_ONCE = 16  # images of an object store: what takes time is its answer


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """An image that is not as recorded. `file` is `<job>/images/<file>`."""

    file: str
    what: str


class DamagedImages(BrokenImage):
    """Images of an export are missing or damaged, so nothing is exported."""

    def __init__(self, damaged: list[DamagedFile]) -> None:
        self.damaged = tuple(damaged)
        super().__init__("\n".join(f"{file.file}: {file.what}" for file in damaged))


class Originals:
    """The stored images of one job. `count` is called with how many images are done, of how many."""

    def __init__(self, stores: Stores, job: str, total: int, count: Callable[[int, int], object] | None) -> None:
        self.stores = stores
        self._job = job
        self._total = total
        self._count = count
        self._done = 0
        self._damaged: list[DamagedFile] = []

    def name(self, image: StoredImage) -> str:
        """Return the name of an image in an ImageStore."""
        return f"{self._job}/{image.file}"

    def read(self, image: StoredImage) -> bytes:
        """Return the content of an image. Raises BrokenImage, and ConfigError."""
        return read_recorded(self.stores, self.name(image), image)

    def check(self, image: StoredImage) -> None:
        """Check an image that is not copied; in an object store by its size and checksum. Raises BrokenImage."""
        if self.stores.local(image) is not None:
            self.read(image)
        elif fault := self.stores.remote_at(image.root or "").find_fault(self.name(image), image.bytes, image.sha256):
            raise BrokenImage(fault)

    def each(
        self, images: Iterable[tuple[C, StoredImage]], work: Callable[[StoredImage], T]
    ) -> Iterator[tuple[C, StoredImage, T]]:
        """Do some work on each image, in order, and yield what it returns; damaged images are left out.

        What comes with an image is yielded with it. The work is done ahead for a few images, in threads, if an object
        store has one.
        """
        with contextlib.closing(self._ahead(images, work)) as started:
            for context, image, result in started:
                if self._count is not None:
                    self._count(self._done, self._total)
                self._done += 1
                try:
                    found = result()
                except BrokenImage as reason:
                    self._damaged.append(DamagedFile(self.name(image), str(reason)))
                else:
                    yield context, image, found

    def _ahead(
        self, images: Iterable[tuple[C, StoredImage]], work: Callable[[StoredImage], T]
    ) -> Generator[tuple[C, StoredImage, Callable[[], T]]]:
        waiting: deque[tuple[C, StoredImage, Callable[[], T]]] = deque()
        with ThreadPoolExecutor(_AT_ONCE, "export") as pool:  # a thread starts with its first work
            try:
                for context, image in images:
                    is_remote = self.stores.local(image) is None
                    result = pool.submit(work, image).result if is_remote else functools.partial(work, image)
                    waiting.append((context, image, result))
                    if not is_remote or len(waiting) >= _AT_ONCE:
                        yield waiting.popleft()
                yield from waiting
            finally:
                pool.shutdown(cancel_futures=True)

    def check_none_damaged(self) -> None:
        """Raise DamagedImages if any image that was worked on is damaged."""
        if self._damaged:
            raise DamagedImages(self._damaged)

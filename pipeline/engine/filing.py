"""A request's pictures, as bytes or base64 → numbered files on disk, each checked and written in a thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pipeline.engine.check import check, decode
from pipeline.engine.store import FOLDER, store
from pipeline.errors import BrokenPicture

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from pipeline.engine.answer import Inline
    from pipeline.engine.store import StoredImage
    from pipeline.engine.threads import Threads


class Filing:
    """The files of one request below its job's `folder`. `numbers` are those that its pictures have already."""

    def __init__(self, folder: Path, params: Mapping[str, Any], numbers: Collection[int], threads: Threads) -> None:
        self.stem = ""  # how the files are named; known as soon as the request is marked as running
        self._threads = threads
        self._folder = folder
        self._params = params
        self._numbers = set(numbers)

    @property
    def place(self) -> Path:
        """The folder that the files are in."""
        return self._folder / FOLDER

    def take(self, count: int) -> list[int]:
        """Take the lowest free numbers."""
        highest = len(self._numbers) + count
        free = [number for number in range(1, highest + 1) if number not in self._numbers][:count]
        self._numbers.update(free)
        return free

    def give_back(self, number: int) -> None:
        """Free the number of a picture that will not come."""
        self._numbers.discard(number)

    async def keep(self, content: bytes | str, number: int, revised_prompt: str | None = None) -> StoredImage:
        """Check and file one picture. Raises BrokenPicture and DiskFull."""
        return await self._threads.run(
            _check_and_store, content, self._params, self._folder, self.stem, number, revised_prompt
        )

    async def keep_all(self, pictures: Sequence[Inline]) -> tuple[list[StoredImage], list[BrokenPicture]]:
        """Check and file pictures that came along; give those that are whole, and what is wrong with the others.

        Raises DiskFull.
        """
        numbers = self.take(len(pictures))
        results = await asyncio.gather(
            *(self.keep(one.base64, number, one.revised_prompt) for one, number in zip(pictures, numbers, strict=True)),
            return_exceptions=True,
        )
        whole: list[StoredImage] = []
        broken: list[BrokenPicture] = []
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, BrokenPicture):
                self.give_back(number)
                broken.append(result)
            elif not isinstance(result, BaseException):
                whole.append(result)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, BrokenPicture):
                raise result
        return whole, broken


def _check_and_store(
    content: bytes | str, params: Mapping[str, Any], folder: Path, stem: str, number: int, revised_prompt: str | None
) -> StoredImage:
    """Bytes, or base64 of them, → a file. Plain values in and out, for any thread or process."""
    image = check(decode(content) if isinstance(content, str) else content, params)
    return store(image, folder, stem, number, revised_prompt)

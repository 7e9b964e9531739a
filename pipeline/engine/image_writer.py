"""Writes a request's result images: decoded, validated, and stored as numbered files, in threads."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pybase64

from pipeline.errors import BrokenImage
from pipeline.images import inspect, png
from pipeline.storage import IMAGES_FOLDER, StoredImage, disk_error, make_folder, write_unnamed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from pipeline.client.response import InlineImage


class ImageWriter:
    """The files of one request below its job's `folder`. `numbers` are those that its pictures have already."""

    def __init__(self, folder: Path, params: Mapping[str, Any], numbers: Collection[int], threads: Executor) -> None:
        self.stem = ""  # how the files are named; known as soon as the request is marked as running
        self._threads = threads
        self._folder = folder
        self._params = params
        self._numbers = set(numbers)

    @property
    def place(self) -> Path:
        """The folder that the files are in."""
        return self._folder / IMAGES_FOLDER

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
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _check_and_store, content, self._params, self._folder, self.stem, number, revised_prompt
        )

    async def keep_all(self, pictures: Sequence[InlineImage]) -> tuple[list[StoredImage], list[BrokenImage]]:
        """Check and file pictures that came along; give those that are whole, and what is wrong with the others.

        Raises DiskFull.
        """
        numbers = self.take(len(pictures))
        results = await asyncio.gather(
            *(self.keep(one.base64, number, one.revised_prompt) for one, number in zip(pictures, numbers, strict=True)),
            return_exceptions=True,
        )
        whole: list[StoredImage] = []
        broken: list[BrokenImage] = []
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, BrokenImage):
                self.give_back(number)
                broken.append(result)
            elif not isinstance(result, BaseException):
                whole.append(result)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, BrokenImage):
                raise result
        return whole, broken


def _check_and_store(
    content: bytes | str, params: Mapping[str, Any], folder: Path, stem: str, number: int, revised_prompt: str | None
) -> StoredImage:
    """Bytes, or base64 of them, → a file. Plain values in and out, for any thread or process."""
    image = check(decode(content) if isinstance(content, str) else content, params)
    return store(image, folder, stem, number, revised_prompt)


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """A whole picture, its bytes as they came."""

    content: bytes
    sha256: str
    width: int
    height: int
    format: str  # png, jpeg, webp, gif, svg …


def check(content: bytes, params: Mapping[str, Any]) -> CheckedImage:
    """Decode a picture from its first byte to its last. Raises BrokenPicture.

    An SVG counts only where the request asked for one, and only without scripts; a whole picture of another kind than
    the one asked for counts, as it is paid.
    """
    if size := png.whole_size(content, inspect.MAX_PIXELS):
        return CheckedImage(content, hashlib.sha256(content).hexdigest(), *size, "png")
    svg = params.get("output_format") == "svg" and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    found = inspect.inspect_svg(content) if svg else inspect.inspect(content)
    return CheckedImage(content, hashlib.sha256(content).hexdigest(), found.width, found.height, found.format)


def decode(text: str) -> bytes:
    """Decode base64 strictly, save that lines may be wrapped and the padding left out. Raises BrokenPicture."""
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    joined = "".join(text.split()).rstrip("=")
    try:
        return pybase64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except (binascii.Error, ValueError) as reason:
        raise BrokenImage(f"has broken base64: {reason}") from None


def store(image: CheckedImage, folder: Path, stem: str, number: int, revised_prompt: str | None) -> StoredImage:
    """Write the picture as `<folder>/images/<stem>-<number>.<what its bytes are>`; the row that names it comes after,
    and the writer brings the file's name to disk before that row; see `Writer.settle`.

    A file of that name that no row owns is one that an earlier run wrote and could not record; it is replaced.
    Raises DiskFull.
    """
    name = f"{IMAGES_FOLDER}/{stem}-{number}.{inspect.extension(image.format)}"
    try:
        try:
            write_unnamed(folder / name, image.content)
        except FileNotFoundError:
            make_folder(folder / IMAGES_FOLDER)
            write_unnamed(folder / name, image.content)
    except OSError as reason:
        raise disk_error(reason, folder) from None
    return StoredImage(
        number=number,
        file=name,
        sha256=image.sha256,
        bytes=len(image.content),
        width=image.width,
        height=image.height,
        format=image.format,
        revised_prompt=revised_prompt,
    )

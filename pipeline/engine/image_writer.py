"""Image writer: validates the images of a response and stores them as numbered files, in threads."""

from __future__ import annotations

import asyncio
import binascii
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pybase64

from pipeline.errors import BrokenImage, DiskFull
from pipeline.images import inspect, png
from pipeline.images.container_check import SAVE_AS_IMAGE
from pipeline.images.limits import MAX_PIXELS, LargeImageError, MemoryBudget, memory_budget, small_images_only
from pipeline.storage import IMAGES_FOLDER, LocalStore, QuarantinedFile, StoredImage, candidate_names

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from concurrent.futures import Executor

    from pipeline.client.response import InlineImage


_LARGE_THREADS = 2
_OF_URLS = str.maketrans("-_", "+/")  # the alphabet of base64 in URLs (RFC 4648), in the usual one


@dataclass(frozen=True, slots=True)
class FileNames:
    """How the result images of a request are named: `<job>/images/<stem>-<number>.<format of the bytes>`.

    If another file has that name, part of the image's hash follows the stem.

    `output_format` is the one that the request asks for, None if it asks for none.
    """

    job: str
    stem: str
    output_format: str | None


@dataclass(frozen=True, slots=True)
class ValidImage:
    """An image that was decoded completely; `content` is as it arrived."""

    content: bytes
    sha256: str
    width: int
    height: int
    format: str  # png, jpeg, webp, gif, svg …
    remarks: tuple[str, ...] = ()  # what deviates and harms no pixel


class ImageWriter:
    """Writes images into a store; decoding and writing take place in `threads`.

    Large images wait for memory and may take long: they have threads of their own, so that no other waits for them.
    """

    def __init__(self, store: LocalStore, threads: Executor, max_pixels: int = MAX_PIXELS) -> None:
        self._store = store
        self._threads = threads
        self._max_pixels = max_pixels
        self._large_threads = ThreadPoolExecutor(_LARGE_THREADS, "large images")  # which start when they are needed

    async def write(
        self, content: bytes | str, names: FileNames, number: int, revised_prompt: str | None = None
    ) -> StoredImage:
        """Validate and store one image, given as bytes or base64. Raises BrokenImage and DiskFull."""
        loop = asyncio.get_running_loop()
        job = (content, self._store, names, number, revised_prompt, self._max_pixels)
        try:
            return await loop.run_in_executor(self._threads, _validate_and_store, *job, small_images_only)
        except LargeImageError:
            return await loop.run_in_executor(self._large_threads, _validate_and_store, *job)

    async def write_all(
        self, images: Sequence[InlineImage], names: FileNames, numbers: Sequence[int]
    ) -> tuple[list[StoredImage], list[QuarantinedFile]]:
        """Validate and store the images of a response; return those stored, and the others, which are put aside.

        Raises DiskFull.
        """
        results = await asyncio.gather(
            *(
                self.write(image.base64, names, number, image.revised_prompt)
                for image, number in zip(images, numbers, strict=True)
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, BrokenImage):
                raise result
        stored = [result for result in results if isinstance(result, StoredImage)]
        broken = [
            await self.put_aside(image.base64, names, str(result))
            for image, result in zip(images, results, strict=True)
            if isinstance(result, BrokenImage)
        ]
        return stored, broken

    async def put_aside(self, content: bytes | str, names: FileNames, reason: str) -> QuarantinedFile:
        """Store what is not a valid image, with the reason beside it: it is paid. Raises DiskFull."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, _put_aside, content, self._store, names, reason
        )


def free_numbers(taken: Collection[int], count: int) -> list[int]:
    """Return the lowest numbers that are not taken."""
    return [number for number in range(1, len(taken) + count + 1) if number not in taken][:count]


def _validate_and_store(
    content: bytes | str,
    store: LocalStore,
    names: FileNames,
    number: int,
    revised_prompt: str | None,
    max_pixels: int = MAX_PIXELS,
    budget: MemoryBudget = memory_budget,
) -> StoredImage:
    """Turn bytes, or base64 of them, into a stored image. Plain values in and out, for any thread or process."""
    decoded = decode(content) if isinstance(content, str) else content
    image = validate(decoded, names.output_format, max_pixels, budget)
    return StoredImage(
        number=number,
        file=_put(image, store, names, number),
        sha256=image.sha256,
        bytes=len(image.content),
        width=image.width,
        height=image.height,
        format=image.format,
        revised_prompt=revised_prompt,
        remark="; ".join(image.remarks) or None,
        root=store.root,
        spooled=int(store.is_spool),
    )


def _put(image: ValidImage, store: LocalStore, names: FileNames, number: int) -> str:
    """Store an image under the first name that no file of other content has; return the file's name in the job.

    Such a file is in no row of the ledger, for example since an older copy of the ledger was restored. It may be paid,
    so it stays. The names that contain the image's own hash cannot be those of another image of this response.
    """
    own_name = f"{IMAGES_FOLDER}/{names.stem}-{number}.{inspect.extension(image.format)}"
    for file in candidate_names(own_name, image.sha256):
        try:
            store.put(f"{names.job}/{file}", image.content)
        except FileExistsError:
            continue
        return file
    where = store.local_path(f"{names.job}/{file}")
    raise DiskFull(f"{where} is damaged; move it away, then run `pipeline run` to continue")


def _put_aside(content: bytes | str, store: LocalStore, names: FileNames, reason: str) -> QuarantinedFile:
    if isinstance(content, bytes):
        return store.put_aside(names.job, names.stem, content, reason)
    try:
        decoded = decode(content)
    except BrokenImage:
        decoded = content.encode("utf-8", "replace")
    return store.put_aside(names.job, names.stem, decoded, reason)


def validate(
    content: bytes, output_format: str | None, max_pixels: int = MAX_PIXELS, budget: MemoryBudget = memory_budget
) -> ValidImage:
    """Decode an image from its first byte to its last. Raises BrokenImage.

    SVG is valid only if the request asked for it, and only without scripts. A complete image of another format than
    the one that was asked for is valid, since it is paid.
    """
    if size := png.complete_png_size(content, max_pixels, budget):
        digest = hashlib.sha256(content).hexdigest()
        return ValidImage(content, digest, *size, "png")
    is_svg = output_format == "svg" and content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")
    try:
        found = inspect.inspect_svg(content) if is_svg else inspect.inspect(content, max_pixels, budget)
    except BrokenImage as error:
        raise BrokenImage(str(error).replace(f": {SAVE_AS_IMAGE}", ", a format that is not read here")) from None
    digest = hashlib.sha256(content).hexdigest()
    return ValidImage(content, digest, found.width, found.height, found.format, found.remarks)


def decode(text: str) -> bytes:
    """Decode base64 strictly; its lines may be wrapped, the padding omitted, the alphabet that of URLs, and it may be
    a data: URL. Raises BrokenImage.
    """
    try:
        return pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    joined = "".join(text.split()).rstrip("=")
    if joined[:5].lower() == "data:" and "," in joined:
        joined = joined.partition(",")[2]
    if "+" not in joined and "/" not in joined:  # one alphabet, not both
        joined = joined.translate(_OF_URLS)
    try:
        return pybase64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except (binascii.Error, ValueError) as reason:
        raise BrokenImage(f"has broken base64: {reason}") from None

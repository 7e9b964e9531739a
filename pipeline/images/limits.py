"""Limits of memory and time for images from elsewhere: what their decoding may take, in all threads together."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from pipeline.errors import BrokenImage

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20

MAX_PIXELS: Final = 89_478_485
"""Maximum pixels of one frame: Pillow's own limit, above which it warns of a bomb (a quarter of a GiB as RGB)."""

MAX_FRAMES: Final = 100
"""Maximum frames that are decoded; of the rest only the structure of the file is checked."""

MEMORY: Final = 768 * MIB
"""Bytes that all images in work may take together; an image that needs more is decoded while no other large one is."""

SMALL: Final = 32 * MIB
"""Bytes up to which an image never waits and is not counted: 2048x2048 as RGBA, twice."""

THREAD_PIXELS: Final = 40_000_000
"""Pixels, of all frames, up to which an image is decoded in a thread: about a second. Above, a process decodes it."""

SECONDS: Final = 30.0
"""Seconds that a process may decode one image. Then it is killed, and the image is refused."""

PROCESS_MEMORY: Final = 3 << 30
"""Bytes of address space of such a process: twice what the largest image of `MAX_PIXELS` was seen to take."""

MAX_SCANS: Final = 100
"""Scans of a JPEG. A progressive one has about ten; each of them may visit every pixel."""

MAX_PARTS: Final = 100_000
"""Chunks, segments, boxes, frames or tags of one file: 400 MB of a PNG in chunks of 4 KB."""

MAX_BLOCKS: Final = 2_000_000
"""Sub-blocks of a GIF, of up to 255 bytes each."""


def too_long(image_format: str, what: str) -> BrokenImage:
    """Return the error of an image whose structure asks for more work than any ordinary one."""
    return BrokenImage(f"is a {image_format.upper()} that takes too long to decode: it has more than {what}")


class MemoryBudget:
    """Weighted semaphore over the bytes that images in work take. Thread-safe."""

    def __init__(self, total: int = MEMORY, small: int = SMALL) -> None:
        self._total = total
        self._small = small
        self._used = 0
        self._entrance = threading.Lock()  # held by the one that waits for room, so that no smaller one overtakes it
        self._released = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes of all images in work that are counted."""
        return self._used

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and hold them within the block; more than there are is held alone."""
        if size <= self._small:
            yield
            return
        with self._entrance, self._released:
            self._released.wait_for(lambda: self._used == 0 or self._used + size <= self._total)
            self._used += size
        try:
            yield
        finally:
            with self._released:
                self._used -= size
                self._released.notify_all()


class LargeImageError(Exception):
    """An image is too large to be decoded without waiting."""


class SmallImagesOnly(MemoryBudget):
    """A budget of nothing: a large image raises LargeImageError, and the caller has it decoded where it may wait."""

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold a small size, as always; raise LargeImageError for any other."""
        if size > self._small:
            raise LargeImageError
        yield


memory_budget: Final = MemoryBudget()
"""The budget of this process."""

small_images_only: Final = SmallImagesOnly()

"""What the check of an image's container returns, and the words that all formats share."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import BrokenImage
from pipeline.images.limits import MAX_FRAMES, THREAD_PIXELS

Content = bytes | memoryview
Size = tuple[int, int]

NO_END = "its end mark is missing"
SAVE_AS_IMAGE = "save it as JPEG or PNG"  # what helps if an input image has another format

_SCANS_PER_DECODE = 16  # a further scan of a progressive JPEG costs a sixteenth of what decoding a pixel costs


@dataclass(frozen=True, slots=True)
class Container:
    """A container that holds all pixels of its image, as far as its structure shows.

    `content` is what the decoder reads: as it arrived, or without what the remarks name. If the structure does not show
    it, all of `same` must decode to the same pixels, and `other` to others; empty if nothing is to be compared.
    """

    content: Content
    size: Size  # width and height that it claims, of its largest frame
    remarks: tuple[str, ...] = ()
    same: tuple[bytes, ...] = ()
    other: bytes = b""
    frames: int = 1
    scans: int = 1  # of a JPEG
    is_opaque: bool = False  # whether the structure does not bound the work of the decoder

    @property
    def pixels(self) -> int:
        """Pixels of its largest frame."""
        return self.size[0] * self.size[1]

    @property
    def is_heavy(self) -> bool:
        """Whether a process decodes it, which can be ended, and not a thread, which cannot."""
        decodes = min(self.frames, MAX_FRAMES) + self.scans // _SCANS_PER_DECODE + len(self.same)
        return self.is_opaque or self.pixels * decodes > THREAD_PIXELS


def bytes_after(content: Content, end: int) -> tuple[str, ...]:
    """Return the remark on what follows the end of an image, which every viewer ignores; empty if nothing does."""
    extra = len(content) - end
    return (f"{extra:,} bytes follow its end",) if extra > 0 else ()


def cut_off(name: str, what: str) -> BrokenImage:
    """Return the error of a container that ends too early."""
    return BrokenImage(f"is a {name} that is cut off: {what}")

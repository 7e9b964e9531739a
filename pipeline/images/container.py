"""What the check of an image's container returns, and the words that all formats share."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import BrokenImage

Content = bytes | memoryview

NO_END = "its end mark is missing"


@dataclass(frozen=True, slots=True)
class Container:
    """A container that holds all pixels of its image, as far as its structure shows.

    `content` is what the decoder reads: as it arrived, or without what the remarks name. If the structure does not show
    it, all of `same` must decode to the same pixels, and `other` to others; empty if nothing is to be compared.
    """

    content: Content
    remarks: tuple[str, ...] = ()
    same: tuple[bytes, ...] = ()
    other: bytes = b""


def bytes_after(content: Content, end: int) -> tuple[str, ...]:
    """Return the remark on what follows the end of an image, which every viewer ignores; empty if nothing does."""
    extra = len(content) - end
    return (f"{extra:,} bytes follow its end",) if extra > 0 else ()


def cut_off(name: str, what: str) -> BrokenImage:
    """Return the error of a container that ends too early."""
    return BrokenImage(f"is a {name} that is cut off: {what}")

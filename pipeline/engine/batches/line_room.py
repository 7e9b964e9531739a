"""Line room: bounds the bytes and the number of lines of all batches that are decoded and stored at the same time."""

from __future__ import annotations

import asyncio

from pipeline.engine.retry import until_changed

_AT_ONCE = 24 * 2**20  # bytes, unless one line is larger
_MOST_LINES = 16


class LineRoom:
    """Bounds the bytes and the number of lines that are in work at the same time."""

    def __init__(self) -> None:
        self._bytes = self._lines = 0
        self._changed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait until a line of this size may be worked on; one that is too large for all is worked on alone."""
        while self._lines and (self._bytes + size > _AT_ONCE or self._lines >= _MOST_LINES):
            await until_changed(self._changed, None)
        self._bytes += size
        self._lines += 1

    def give(self, size: int) -> None:
        """The line is recorded."""
        self._bytes -= size
        self._lines -= 1
        self._changed.set()

"""Cache prepared input images for the requests that share them, and write them to disk once each, by hash."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from pipeline.errors import ImageError
from pipeline.files import make_folder, write_whole
from pipeline.images.prepare import PreparedInput, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.images.options import ImageOptions
    from pipeline.images.source import ImageSource
    from pipeline.models.model import ImageRequirements

MAX_CACHED = 256 * 1024 * 1024
"""Maximum bytes of prepared images in the cache."""


class PreparedCache:
    """LRU cache of prepared images; the key is path, time and size of every file, and the options.

    Thread-safe; two threads that ask for the same images at once may both prepare them.
    """

    def __init__(self, max_bytes: int = MAX_CACHED) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._prepared: OrderedDict[object, tuple[PreparedInput, ...]] = OrderedDict()  # least recently used first
        self._lock = threading.Lock()

    def prepare(
        self,
        images: Sequence[ImageSource],
        options: ImageOptions,
        requirements: ImageRequirements | None,
        model_name: str | None,
    ) -> tuple[PreparedInput, ...]:
        """Return what `prepare` returns, from the cache if it is there. Raises ImageError."""
        try:
            key = _key(images, options, requirements, model_name)
        except ImageError:
            return prepare(images, options, requirements, model_name)  # raises with all problems, not only the first
        with self._lock:
            if key in self._prepared:
                self._prepared.move_to_end(key)
                return self._prepared[key]
        prepared = prepare(images, options, requirements, model_name)
        with self._lock:
            self._add(key, prepared)
        return prepared

    def _add(self, key: object, prepared: tuple[PreparedInput, ...]) -> None:
        size = _size(prepared)
        if size > self._max_bytes or key in self._prepared:
            return
        self._prepared[key] = prepared
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, removed = self._prepared.popitem(last=False)
            self._bytes -= _size(removed)


def write_inputs(folder: Path, prepared: Sequence[PreparedInput]) -> None:
    """Write the images atomically under their `file` below `folder`; keep files of the same size. Raises OSError."""
    for image in prepared:
        path = folder / image.file
        try:
            is_written = path.stat().st_size == len(image.content)
        except FileNotFoundError:
            is_written = False
        if not is_written:
            make_folder(path.parent)
            write_whole(path, image.content)


def _key(
    images: Sequence[ImageSource],
    options: ImageOptions,
    requirements: ImageRequirements | None,
    model_name: str | None,
) -> object:
    sources = [*images, *([options.mask] if options.mask else [])]
    files = tuple((source.name, source.identity()) for source in sources)
    shape = (options.fit, options.resize, options.mask_edit, options.mask_box)
    return files, *shape, len(images), requirements, model_name


def _size(prepared: Sequence[PreparedInput]) -> int:
    return sum(len(image.content) for image in prepared)

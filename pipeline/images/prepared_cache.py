"""A picture from a path, bytes, a stream or Pillow → what the API accepts, stored once by hash.

The way of a picture: `options` says where it comes from and what the job asks, `preparation` judges it and sends it
through `transform` and `masks`; here it is remembered for the requests that share it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from pipeline.errors import BrokenImage, ImageError, Problem
from pipeline.images.masks import draw_mask
from pipeline.images.prepare import PreparedInput, prepare
from pipeline.storage import make_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.images.options import ImageOptions, Source
    from pipeline.models.model import ImageRequirements

MAX_REMEMBERED = 256 * 1024 * 1024
"""Bytes of prepared pictures that are remembered, at most."""


class PreparedCache:
    """Prepared pictures, remembered for requests that share them: by path, time and size of every file, and recipe.

    May be used from several threads; two that ask for the same at once may both prepare it.
    """

    def __init__(self, max_bytes: int = MAX_REMEMBERED) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._prepared: OrderedDict[object, tuple[PreparedInput, ...]] = OrderedDict()  # the longest unused first
        self._lock = threading.Lock()

    def prepare(
        self,
        images: Sequence[Source],
        options: ImageOptions,
        requirements: ImageRequirements | None,
        model_name: str | None,
    ) -> tuple[PreparedInput, ...]:
        """Do as `prepare`, or remember. Raises PictureError."""
        try:
            key = _key(images, options, requirements, model_name)
        except ImageError:
            return prepare(images, options, requirements, model_name)  # which names all problems, not the first alone
        with self._lock:
            if key in self._prepared:
                self._prepared.move_to_end(key)
                return self._prepared[key]
        prepared = prepare(images, options, requirements, model_name)
        with self._lock:
            self._remember(key, prepared)
        return prepared

    def store(self, folder: Path, prepared: Sequence[PreparedInput]) -> None:
        """Do as `store`."""
        store(folder, prepared)

    def _remember(self, key: object, prepared: tuple[PreparedInput, ...]) -> None:
        size = _size(prepared)
        if size > self._max_bytes or key in self._prepared:
            return
        self._prepared[key] = prepared
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, dropped = self._prepared.popitem(last=False)
            self._bytes -= _size(dropped)


def store(folder: Path, prepared: Sequence[PreparedInput]) -> None:
    """Write the pictures below the job's folder under their `file`, each once, whole or not at all. Raises OSError."""
    for one in prepared:
        path = folder / one.file
        try:
            is_there = path.stat().st_size == len(one.content)
        except FileNotFoundError:
            is_there = False
        if not is_there:
            make_folder(path.parent)
            write_whole(path, one.content)


def preview(prepared: Sequence[PreparedInput]) -> bytes:
    """Draw the part to edit over the first picture, tinted and outlined, as PNG. Raises PictureError."""
    first = next(one for one in prepared if one.role == "image")
    mask = next((one.content for one in prepared if one.role == "mask"), None)
    try:
        return draw_mask(first.content, mask)
    except BrokenImage as wrong:
        raise ImageError([Problem(first.source, str(wrong))]) from None


def _key(
    images: Sequence[Source], options: ImageOptions, requirements: ImageRequirements | None, model_name: str | None
) -> object:
    sources = [*images, *([options.mask] if options.mask else [])]
    known = tuple((source.name, source.identity()) for source in sources)
    return (
        known,
        options.fit,
        options.resize,
        options.mask_edit,
        options.mask_box,
        len(images),
        requirements,
        model_name,
    )


def _size(prepared: Sequence[PreparedInput]) -> int:
    return sum(len(one.content) for one in prepared)

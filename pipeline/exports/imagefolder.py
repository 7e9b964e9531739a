"""Writes a folder of images with `metadata.jsonl`, which Hugging Face's `datasets` loads as an imagefolder."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.exports.rows import json_bytes, plain_name, row
from pipeline.files import make_folder, whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.exports.listing import Listing
    from pipeline.exports.originals import Originals
    from pipeline.storage import StoredImage

METADATA = "metadata.jsonl"
IMAGES = "images"

_SPLIT = re.compile(
    r"(?<![^-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?=[-._ 0-9])",
    re.IGNORECASE,
)
"""Words that the loader takes for the name of a split if a file's name has them between signs or digits."""


def write_imagefolder(target: Path, listing: Listing, originals: Originals, *, link: bool = False) -> None:
    """Write the images of a listing into a folder; those that an earlier call has written are kept.

    With `link`, they are hard links. Raises OSError, and ConfigError if they cannot be linked.
    """
    folder = target / IMAGES
    make_folder(folder)

    def place(image: StoredImage) -> None:
        path = folder / _file_name(image)
        _link(image, path, originals) if link else _copy(image, path, originals)

    with whole_file(target / METADATA) as file:
        for request, image, _ in originals.each(listing.iter_images(exemplars_first=True), place):
            variables = listing.variables.shown(request.entry["variables"])
            file.write(json_bytes(row(request, image, f"{IMAGES}/{_file_name(image)}", variables)) + b"\n")


def _file_name(image: StoredImage) -> str:
    """Return the name of an image's file, in which no word is taken for the name of a split."""
    return _SPLIT.sub(r"\1+", plain_name(image))


def _copy(image: StoredImage, path: Path, originals: Originals) -> None:
    """Write an image, unless it is there already. Raises BrokenImage and OSError."""
    if path.exists() and path.stat().st_nlink == 1 and hashlib.sha256(path.read_bytes()).hexdigest() == image.sha256:
        return
    content = originals.read(image)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _link(image: StoredImage, path: Path, originals: Originals) -> None:
    """Make a hard link to an image. Raises BrokenImage, OSError and ConfigError."""
    local = originals.stores.local(image)
    if local is None:
        raise ConfigError(f"{image.file} is in an object store and cannot be linked: leave out --link")
    originals.read(image)
    path.unlink(missing_ok=True)
    try:
        os.link(local.local_path(originals.name(image)), path)
    except OSError as reason:
        what = f"{image.file} cannot be linked to {path.parent}: {reason.strerror or reason}"
        raise ConfigError(f"{what}; leave out --link, or choose a --dest on the same file system") from None

"""Writes a JSON file beside each image where it is: on the local disk, or in an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ConfigError
from pipeline.exports.rows import description, json_bytes, plain_name
from pipeline.files import PART, sync_all
from pipeline.storage import SIDECAR

if TYPE_CHECKING:
    from pipeline.exports.listing import ListedRequest, Listing
    from pipeline.exports.originals import Originals
    from pipeline.storage import StoredImage


def write_sidecars(listing: Listing, originals: Originals, *, force: bool, mode: int) -> None:
    """Write the sidecars of all images, those on the local disk with a mode; what is there already stays.

    If all are there, or others than these, ConfigError is raised, unless `force` replaces them. Nothing is written
    before every image was checked: Raises DamagedImages. Raises OSError.
    """
    missing, others = 0, []
    for request, image, found in originals.each(listing.iter_images(), lambda image: _checked(image, originals)):
        missing += found is None
        if found is not None and found != _content(request, image):
            others.append(_name(image, originals))
    originals.check_none_damaged()
    if not force:
        if others:
            more = f", and {len(others) - 1:,} more," if len(others) > 1 else ""
            raise ConfigError(f"{others[0]}{more} is there with other content: add --force to replace it")
        if not missing:
            raise ConfigError(f"the sidecars of job `{listing.job}` are there already: add --force to write them again")
    for request, image in listing.iter_images():
        _write(image, _content(request, image), originals, mode)
    sync_all()


def _content(request: ListedRequest, image: StoredImage) -> bytes:
    return json_bytes(description(request, image, plain_name(image))) + b"\n"


def _name(image: StoredImage, originals: Originals) -> str:
    """Return the name of an image's sidecar in the store that has the image."""
    return f"{originals.name(image).rpartition('.')[0]}{SIDECAR}"


def _checked(image: StoredImage, originals: Originals) -> bytes | None:
    """Check an image; return its sidecar, None if there is none. Raises BrokenImage, OSError and ConfigError."""
    if image.spooled:
        raise ConfigError(f"{image.file} waits until the object store has it: `pipeline run` uploads it first")
    originals.check(image)
    try:
        return originals.stores.of_image(image).read(_name(image, originals))
    except FileNotFoundError:
        return None


def _write(image: StoredImage, content: bytes, originals: Originals, mode: int) -> None:
    """Write a sidecar, whole or not at all. Raises OSError and ConfigError."""
    name = _name(image, originals)
    local = originals.stores.local(image)
    if local is None:
        originals.stores.remote_at(image.root or "").write(name, content, "application/json")
        return
    path = local.local_path(name)
    part = path.with_name(f".{path.name}{PART}")
    part.write_bytes(content)
    part.chmod(mode)
    part.replace(path)

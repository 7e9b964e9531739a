"""Writes shards of tar files, each image beside its prompt and its description, which `webdataset` reads."""

from __future__ import annotations

import io
import itertools
import tarfile
from typing import TYPE_CHECKING, NamedTuple

from pipeline.exports.rows import description, json_bytes, plain_name
from pipeline.files import make_folder, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.exports.listing import ListedRequest, Listing
    from pipeline.exports.originals import Originals
    from pipeline.storage import StoredImage

MOST_IMAGES = 10_000
MOST_BYTES = 10**9
"""Images and bytes of one shard, at most."""

_BLOCK = 512
_HEADERS = 4 * _BLOCK  # of a member: its own, and one for a long name
_END = 20 * _BLOCK  # with which a tar file ends


class _Member(NamedTuple):
    """An image in a shard, with the content of the two files beside it."""

    shard: int
    key: str
    image: StoredImage
    text: bytes
    described: bytes

    @property
    def size(self) -> int:
        """The number of bytes that it takes in a tar file, at most."""
        sizes = (self.image.bytes, len(self.text), len(self.described))
        return sum(_HEADERS + -(-size // _BLOCK) * _BLOCK for size in sizes)


def write_webdataset(target: Path, listing: Listing, originals: Originals) -> None:
    """Write the images of a listing into shards below a folder; shards that are there are kept. Raises OSError.

    The same images make the same bytes.
    """
    make_folder(target)
    for shard, members in itertools.groupby(_members(listing), key=lambda member: member.shard):
        path = target / f"shard-{shard:05}.tar"
        if not path.exists():
            with (
                whole_file(path) as file,
                tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
            ):
                pairs = ((member, member.image) for member in members)
                for member, image, content in originals.each(pairs, originals.read):
                    _add(tar, f"{member.key}{_kind(image)}", content)
                    _add(tar, f"{member.key}.txt", member.text)
                    _add(tar, f"{member.key}.json", member.described)


def _members(listing: Listing) -> Iterator[_Member]:
    """Yield the images of a listing, each with the number of its shard."""
    shard, images, size = 0, 0, _END
    keys: set[str] = set()
    for request, image in listing.iter_images():
        member = _member(shard, request, image, keys)
        if images and (images == MOST_IMAGES or size + member.size > MOST_BYTES):
            shard, images, size = shard + 1, 0, _END
        images += 1
        size += member.size
        yield member._replace(shard=shard)


def _member(shard: int, request: ListedRequest, image: StoredImage, keys: set[str]) -> _Member:
    """Return an image as a member; its key is the stem of its file, without dots and unlike all `keys`."""
    key = plain_name(image).removesuffix(_kind(image)).replace(".", "_")
    while key in keys:
        key += "_"
    keys.add(key)
    text = (request.entry["prompt"] or "").encode("utf-8", "replace")
    described = json_bytes(description(request, image, f"{key}{_kind(image)}"))
    return _Member(shard, key, image, text, described)


def _kind(image: StoredImage) -> str:
    return f".{image.file.rpartition('.')[2]}"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file without an owner or a time, so that the same images make the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))

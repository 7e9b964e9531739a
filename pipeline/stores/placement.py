"""Chooses the store of each image: a spool on the local disk, a local folder, or an object store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from pipeline.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.config.load import Config
    from pipeline.storage import ImageStore
    from pipeline.stores.object_store import RemoteStore


class PlacedImage(Protocol):
    """An image of which is known where it is."""

    @property
    def root(self) -> str | None:
        """The URL of the store that has it; None for the output folder."""

    @property
    def spooled(self) -> int:
        """1 if it waits on the local disk until the store at `root` has it."""


class Stores:
    """The stores of all images of an output folder.

    `images` is where new ones go: a local folder, the URL of an object store, or None for the output folder.
    """

    def __init__(
        self, output: Path, images: Path | str | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        self._output = output
        self._options = options or {}
        self._opened: dict[str, RemoteStore] = {}
        self.spool = LocalStore(output, is_spool=True)
        self.remote = self.remote_at(images) if isinstance(images, str) else None
        if isinstance(images, str):
            self.new = LocalStore(output, root=images, is_spool=True)
        else:
            folder = output if images is None else images
            self.new = LocalStore(folder, root=None if folder == output else folder.as_uri())

    @classmethod
    def of(cls, config: Config) -> Stores:
        """Return the stores that a config states."""
        return cls(config.output, config.images, config.images_options)

    def of_image(self, image: PlacedImage) -> ImageStore:
        """Return the store that has an image now."""
        return self.local(image) or self.remote_at(image.root or "")

    def local(self, image: PlacedImage) -> LocalStore | None:
        """Return the store that has an image now if that is on the local disk, else None."""
        if image.spooled:
            return self.spool
        if image.root is None:
            return LocalStore(self._output)
        folder = local_folder(image.root)
        return None if folder is None else LocalStore(folder, root=image.root)

    def remote_at(self, root: str) -> RemoteStore:
        """Return the object store at a root."""
        from pipeline.stores.object_store import RemoteStore

        if root not in self._opened:
            self._opened[root] = RemoteStore(root, self._options)
        return self._opened[root]

    def names(self) -> list[str]:
        """Return the names of all images where new ones go, those that wait included. Raises ConfigError."""
        return self.new.names() + ([] if self.remote is None else self.remote.names())

    def roots(self, known: Iterable[str]) -> tuple[list[Path], list[RemoteStore]]:
        """Return the folders and the object stores that have images of a job, if rows remember these roots."""
        places = {root: local_folder(root) for root in known}
        folders = [self._output, self.new.folder, *(folder for folder in places.values() if folder is not None)]
        remotes = [self.remote_at(root) for root, folder in places.items() if folder is None]
        return list(dict.fromkeys(folders)), remotes


def local_folder(root: str) -> Path | None:
    """Return the folder of a `file:` URL, None for any other."""
    url = urlsplit(root)
    return Path(unquote(url.path)) if url.scheme == "file" else None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where people see images: below `images_url` those of the root that it replaces, else below their root."""

    root: str | None = None
    images_url: str | None = None

    @classmethod
    def of(cls, config: Config) -> Addresses:
        """Return the addresses that a config states."""
        return cls(Stores.of(config).new.root, config.images_url)

    def public(self, job: str, file: str, image: PlacedImage) -> str | None:
        """Return the address of an image below `images_url`; None if it is not there."""
        if self.images_url is None or image.spooled or image.root != self.root:
            return None
        return f"{self.images_url}/{quote(f'{job}/{file}')}"

    def url(self, job: str, file: str, image: PlacedImage) -> str | None:
        """Return the address of an image; None while it waits on the local disk, or if that is its only place."""
        if image.spooled or (image.root is None and self.images_url is None):
            return None
        return self.public(job, file, image) or (image.root and f"{image.root}/{job}/{file}")

"""Holds the output folder of a run by its identity, not its name: a run notices if it is moved, removed or replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import disk_error, make_folder
from pipeline.ledger.database import FILE_NAME
from pipeline.storage import folder_gone

if TYPE_CHECKING:
    from pipeline.storage import LocalStore


class HeldFolder:
    """The output folder, its ledger file and the folder of the images, as they were when the run took its lock.

    `images` writes to the folder that was held then, wherever it is now. Where the system cannot do that, which is
    Windows, a folder with open files can be neither moved nor removed.
    """

    def __init__(self, folder: Path, images: LocalStore) -> None:
        """Open the folder of the images. Raises DiskFull."""
        images_folder = images.folder
        self._folder = folder
        self._descriptor: int | None = None
        try:
            make_folder(images_folder)
            if os.link in os.supports_dir_fd and os.mkdir in os.supports_dir_fd:
                self._descriptor = os.open(images_folder, os.O_RDONLY)
            paths = (str(folder), str(images_folder), str(folder / FILE_NAME))
            self._held = {path: _identity(path) for path in dict.fromkeys(paths)}
        except OSError as reason:
            self.close()
            raise disk_error(reason, images_folder) from None
        self.images = images.held(self._descriptor)

    def check(self) -> None:
        """Check that everything is where it was. Takes microseconds. Raises FolderGone."""
        for path, identity in self._held.items():
            if _identity_or_none(path) != identity:
                raise folder_gone(Path(path))

    @property
    def is_in_place(self) -> bool:
        """Whether the output folder is where it was, whatever became of the ledger in it."""
        path = str(self._folder)
        return _identity_or_none(path) == self._held[path]

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116 - before each call; pathlib takes twice the time
    return found.st_dev, found.st_ino


def _identity_or_none(path: str) -> tuple[int, int] | None:
    """Return None if nothing can be found at this path."""
    try:
        return _identity(path)
    except OSError:
        return None

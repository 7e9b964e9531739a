"""Store uploaded images as files, so that an image URL can be drawn again after a restart.

A file is named by the SHA-256 of its bytes and written atomically. It is removed after a day,
long after its URLs expired.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

KEPT_SECONDS: Final = 86400

_OWN_NAME: Final = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.[0-9a-f]{8}")
"""Names of the files that a store writes: stored ones, and those of a process that was killed while it wrote."""


def default_folder() -> Path:
    """Return a folder of this user's own among the temporary files."""
    owner = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"image-batch-pipeline-sandbox-{owner}"


class UploadStore:
    """A folder of uploaded images that only this user can read."""

    def __init__(self, folder: Path) -> None:
        """Create the folder and remove own files older than a day. Raises OSError, also if others may write to it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_private(folder)
        self._folder = folder
        oldest = time.time() - KEPT_SECONDS
        for file in folder.iterdir():
            if _OWN_NAME.fullmatch(file.name):
                with contextlib.suppress(OSError):  # another sandbox may clear the same folder
                    if file.lstat().st_mtime < oldest:
                        file.unlink()

    def put(self, sha256: str, content: bytes) -> None:
        """Store the bytes under their hash, or renew the age of a file that exists. Raises OSError."""
        path = self._folder / sha256
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return
        part = path.with_name(f".{sha256}.{secrets.token_hex(4)}")
        part.write_bytes(content)
        part.replace(path)

    def read(self, sha256: str) -> bytes:
        """Return the bytes with this hash. Raises LookupError if they are gone."""
        try:
            return (self._folder / sha256).read_bytes()
        except OSError as error:
            raise LookupError(sha256) from error


def _check_private(folder: Path) -> None:
    """Check that a folder is a real one, of this user, that nobody else may enter. Raises OSError.

    Its name is known to everyone: another user may have put a link there, to files that must not be removed.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{folder} is a link or a file, not a folder; remove it")
    if not hasattr(os, "getuid"):
        return
    if found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set TMPDIR to a folder of your own")
    if found.st_mode & 0o077:
        raise PermissionError(f"other users may enter {folder}; remove it, or run `chmod 700 {folder}`")

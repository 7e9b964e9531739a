"""Uploaded pictures become files, so that a URL can be drawn again after a restart.

A file is named by the SHA-256 of its bytes and appears whole. It may go after a day, long after its URLs have died.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import tempfile
import time
from pathlib import Path
from typing import Final

SHA256: Final = re.compile(r"[0-9a-f]{64}")
KEPT_SECONDS: Final = 86400


def default_folder() -> Path:
    """Name a folder of this user's own among the temporary files."""
    owner = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    return Path(tempfile.gettempdir()) / f"image-batch-pipeline-sandbox-{owner}"


class Spool:
    """A folder of uploaded pictures, for this user's eyes only."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and remove what is older than a day. Raises OSError, also where it is somebody else's."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        self._folder = folder
        oldest = time.time() - KEPT_SECONDS
        for file in folder.iterdir():
            with contextlib.suppress(OSError):  # another sandbox may clear the same folder
                if file.stat().st_mtime < oldest:
                    file.unlink()

    def keep(self, sha256: str, content: bytes) -> None:
        """Store the bytes under their hash, or make what is there young again. Raises OSError."""
        path = self._folder / sha256
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
            return
        part = path.with_name(f".{sha256}.{secrets.token_hex(4)}")
        part.write_bytes(content)
        part.replace(path)

    def read(self, sha256: str) -> bytes:
        """Return the bytes with this hash. Raises LookupError where they are gone."""
        try:
            return (self._folder / sha256).read_bytes()
        except OSError as error:
            raise LookupError(sha256) from error

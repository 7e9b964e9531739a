"""Open the folder in which files and batches are kept, for one sandbox at a time."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_SECONDS: Final = 5.0
"""How long a sandbox waits for an earlier one of the same folder, which ends soon after its parent."""


@contextlib.contextmanager
def open_spool(folder: Path | None) -> Iterator[Path]:
    """Yield the folder, locked; without one a temporary folder, which is removed at the end. Raises OSError."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="image-batch-pipeline-spool-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / "lock", timeout=LOCK_SECONDS))
        except Timeout as error:
            raise OSError(errno.EADDRINUSE, f"another sandbox uses {folder}") from error
        yield folder

"""File descriptors: raise the process's limit, and wait for a free one rather than fail.

A shell's default is 256 (macOS) or 1024 (Linux), less than the calls that may be in flight. Each call, each download
and each file that is written takes one.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Final, TypeVar

from pipeline.errors import TooManyOpenFiles

if sys.platform != "win32":  # which has no such limit
    import resource

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

MAX_LIMIT: Final = 65_536
"""The limit is not raised above this: some systems allow any number, and no run needs so many."""

OWN_FILES: Final = 64
"""Descriptors for the ledger, the log, images that are written, a web page and its streams, and the interpreter."""

WAIT_SECONDS = 60.0
"""How long `when_free` waits. Calls end within this time and release theirs, unless the limit is far too low."""

PAUSE = 0.05  # seconds between two tries


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, at most `MAX_LIMIT`; return the limit that holds now.

    Without the right to raise it, or on Windows, nothing changes.
    """
    if sys.platform == "win32":
        return MAX_LIMIT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_LIMIT
    wanted = MAX_LIMIT if hard == resource.RLIM_INFINITY else min(MAX_LIMIT, hard)
    while wanted > soft:  # macOS names an infinite hard limit, and refuses more than its own maximum
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            wanted //= 2
        else:
            return wanted
    return soft


def descriptors_for_calls(limit: int) -> int:
    """Return how many calls may be in flight below a limit of open files: half of what is not reserved, at least one.

    The other half is for downloads.
    """
    return max(1, (limit - OWN_FILES) // 2)


def is_exhausted(reason: OSError) -> bool:
    """Return whether an error means that no descriptor is free, in this process or in the whole system."""
    return reason.errno in {errno.EMFILE, errno.ENFILE}


def none_was_free(what: str) -> TooManyOpenFiles:
    """Return the error that says what could not be done without a descriptor, and how to allow more."""
    return TooManyOpenFiles(
        f"{what}: too many open files, and none was closed while this waited; allow more with "
        "`ulimit -n 4096`, or lower `concurrency` of the provider, then run `pipeline run` to continue"
    )


def none_free() -> bool:
    """Try whether a file can be opened, to explain an error that hides its cause."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as reason:
        return is_exhausted(reason)
    return False


def when_free(action: Callable[[], _T], seconds: float | None = None) -> _T:
    """Do what opens a file; while no descriptor is free, try again for up to `WAIT_SECONDS`. Blocks its thread.

    Raises OSError.
    """
    give_up = time.monotonic() + (WAIT_SECONDS if seconds is None else seconds)
    while True:
        try:
            return action()
        except OSError as reason:
            if not is_exhausted(reason) or time.monotonic() >= give_up:
                raise
        time.sleep(PAUSE)

"""The command with the world broken around it: `main([WHAT[:ARGUMENT...], "run", ...])` in a process of its own.

The program itself knows nothing of this: what is replaced is the clock, the disk, or a step that dies.

clock:SECONDS:FILE      the wall clock jumps by SECONDS when FILE appears
full:PATTERN:NUMBER     from the NUMBER-th on, files whose path matches PATTERN find no room, after their first bytes
sizes:BYTES             no file grows beyond BYTES
bug:NUMBER              the NUMBER-th answer meets a bug
stuck                   the thread of each image is in C code for minutes, where nothing can interrupt it
die:NUMBER              the process kills itself just before its NUMBER-th fsync, link, rename, unlink or commit
die_reading:NUMBER      the process kills itself just before it reads its NUMBER-th stored image
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def _clock(seconds: str, file: str) -> None:
    real = time.time
    time.time = lambda: real() + (float(seconds) if os.path.exists(file) else 0.0)  # noqa: PTH110 - asked all the time


def _room(descriptor: int) -> int:
    """Give how many bytes the next write may bring: ten, and then no more."""
    if os.lseek(descriptor, 0, os.SEEK_CUR) >= 10:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return 10


class _FullDisk(io.FileIO):
    """A file of which a few bytes fit."""

    def write(self, content: Any) -> int:
        return super().write(bytes(content)[: _room(self.fileno())])


def _full(pattern: str, number: str) -> None:
    """Both doors to the disk are watched: Python's files, and the system's descriptors."""
    real, real_open, real_write = io.open, os.open, os.write
    opened, full = itertools.count(1), set()

    def has_no_room(path: Any) -> bool:
        return bool(re.search(pattern, str(path))) and next(opened) >= int(number)

    def open_on_full_disk(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        writes = not set(mode).isdisjoint("wax+")
        if not (file in full if isinstance(file, int) else writes and has_no_room(file)):
            return real(file, mode, *args, **more)
        where = file if isinstance(file, int) else os.fspath(file)
        raw = io.BufferedWriter(_FullDisk(where, mode.replace("b", "").replace("t", ""), more.get("closefd", True)))
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding="utf-8")

    def open_descriptor(path: Any, flags: int, *args: Any, **more: Any) -> int:
        descriptor = real_open(path, flags, *args, **more)
        full.discard(descriptor)
        if flags & (os.O_WRONLY | os.O_RDWR) and has_no_room(path):
            full.add(descriptor)
        return descriptor

    def write(descriptor: int, content: Any) -> int:
        return real_write(descriptor, content[: _room(descriptor)] if descriptor in full else content)

    io.open = builtins.open = open_on_full_disk
    os.open, os.write = open_descriptor, write


def _sizes(most: str) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))


def _bug(number: str) -> None:
    from pipeline.ledger import attempts

    real, answered = attempts.record_response, itertools.count(1)

    def stumbling(*args: Any, **more: Any) -> Any:
        if next(answered) >= int(number):
            raise RuntimeError(f"a bug that a drill has put here, with {os.environ.get('STAGE_KEY')} in its words")
        return real(*args, **more)

    attempts.record_response = stumbling


def _stuck() -> None:
    import hashlib

    from pipeline.engine import image_writer

    def validate(*_: Any) -> Any:
        print("stuck", file=sys.stderr, flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)

    image_writer.validate = validate  # type: ignore[assignment]


def _dying(number: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a wrapper of functions, which together kill the process in place of their call of this number."""
    steps = itertools.count(1)

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            if next(steps) >= int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return step

    return dying


def _die_reading(number: str) -> None:
    from pipeline.storage import LocalStore

    LocalStore.read = _dying(number)(LocalStore.read)  # type: ignore[method-assign]


def _die(number: str) -> None:
    from pipeline.ledger.writer import Writer

    dying = _dying(number)
    for name in ("fsync", "link", "replace", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    Writer._commit = dying(Writer._commit)  # type: ignore[method-assign]


KINDS: dict[str, Callable[..., None]] = {
    "clock": _clock,
    "full": _full,
    "sizes": _sizes,
    "bug": _bug,
    "die": _die,
    "die_reading": _die_reading,
    "stuck": _stuck,
}


def main(words: list[str]) -> None:
    """Break what the first word says, then run the command with the others."""
    name, *arguments = words[0].split(":")
    KINDS[name](*arguments)
    from pipeline.cli.main import main as command

    command(words[1:])

"""Output that never waits for its reader: a pipe that nobody reads, or a terminal after Ctrl-S, must not halt a run.

While it is on, what is written to stdout and stderr is queued, and threads of their own pass it on. If a reader falls
too far behind, lines are left out, and a line in their place says how many. Nothing else about the streams changes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

LONGEST_WAIT_SECONDS = 30.0
"""How long the end of a command waits for a reader that reads nothing."""

MOST_BYTES = 8 * 2**20  # that wait to be read, of each file
_MOMENT = 0.02  # seconds, in which further lines may come that are written with the first one
_PIECE = 4096  # bytes: so many go into a pipe as a whole
_BEHIND = 16 * _PIECE
_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET}  # of a reader that does not come back
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of errors that say that a file has no room for what is printed."""

_RETRY_SECONDS = 1.0


class OutputQueue:
    """What waits to be written to one file, in its order, and the thread that writes it."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.most = most
        self.waiting = 0  # bytes
        self.changed = threading.Condition()
        self._pieces: deque[tuple[int, memoryview]] = deque()
        self._moved = time.monotonic()
        self._is_ending = threading.Event()
        self._is_gone = False
        self.failure: OSError | None = None  # of the last write, after which it is tried again
        self._thread: threading.Thread | None = None

    def put(self, descriptor: int, content: bytes) -> None:
        """Queue bytes. The caller holds the lock of `changed`."""
        if self._is_gone or not content:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._pass_on, name="output", daemon=True)
            self._thread.start()
        if not self._pieces:
            self._moved = time.monotonic()
        self._pieces.append((descriptor, memoryview(content)))
        self.waiting += len(content)
        self.changed.notify_all()

    def drain(self, longest_wait: float) -> bool:
        """Wait until all is written, as long as some of it is within so many seconds; return whether all is.

        What a full disk has no room for is tried no more.
        """
        began = time.monotonic()
        with self.changed:
            self.failure = None  # it is tried once more
            self._is_ending.set()
            while self._pieces:
                left = max(began, self._moved) + longest_wait - time.monotonic()
                if left <= 0 or self.failure is not None:
                    return False
                self.changed.wait(left)
        return True

    def give_up(self) -> None:
        """Forget what waits to be written, and what is written from now on."""
        with self.changed:
            self._remove(None)

    def _pass_on(self) -> None:
        while True:
            with self.changed:
                while not self._pieces:
                    self.changed.wait()
            self._is_ending.wait(_MOMENT if self.failure is None else _RETRY_SECONDS)
            with self.changed:
                if not self._pieces:  # they were given up
                    continue
                descriptor, piece = self._first()
            written, failure = _write(descriptor, piece)
            with self.changed:
                self.failure = failure
                self._remove(written)
                self.changed.notify_all()

    def _first(self) -> tuple[int, bytes]:
        """Return what is written next: whole lines as far as possible."""
        descriptor, piece = self._pieces[0][0], b""
        for other, content in self._pieces:
            if other != descriptor or len(piece) + len(content) > _PIECE:
                break
            piece += content
        return descriptor, piece or bytes(self._pieces[0][1][:_PIECE])

    def _remove(self, written: int | None) -> None:
        if written is None or self._is_gone:
            self._is_gone, self.waiting = True, 0
            self._pieces.clear()
            return
        if written:
            self._moved = time.monotonic()
        self.waiting -= written
        while written:
            descriptor, content = self._pieces.popleft()
            if written < len(content):
                self._pieces.appendleft((descriptor, content[written:]))
            written -= min(written, len(content))


def _write(descriptor: int, piece: bytes) -> tuple[int | None, OSError | None]:
    """Write bytes, and wait for the reader; return how many were written, None if nobody will ever read them.

    With them, the error after which it may be tried again.
    """
    try:
        return os.write(descriptor, piece), None
    except BlockingIOError:
        select.select([], [descriptor], [], _RETRY_SECONDS)
    except OSError as error:
        return (None, None) if error.errno in _GONE else (0, error)
    return 0, None


class QueuedStream(io.TextIOBase):
    """A text stream that queues what is written. `left_out` returns the text that stands for so many lines."""

    def __init__(self, inner: TextIO, queue: OutputQueue, left_out: Callable[[int], str]) -> None:
        self.inner = inner
        self.queue = queue
        self._left_out = left_out
        self._lost = 0  # lines
        self._is_at_line_start = True
        self._is_last = False

    def write(self, text: str, /) -> int:
        """Queue a text, or leave it out if too much waits already."""
        if not isinstance(text, str):
            raise TypeError(f"a text is written, not {type(text).__name__}")
        with self.queue.changed:
            content = self._encoded(text)
            if self._lost and self.queue.waiting <= self.queue.most // 2:
                self._say_lost()
            if not self._is_last and (self._lost or self.queue.waiting + len(content) > self.queue.most):
                self._lost += max(1, text.count("\n"))
            elif text:
                self._is_at_line_start = text.endswith("\n")
                self.queue.put(self.fileno(), content)
        return len(text)

    def begin_end(self) -> None:
        """Write what was left out, and queue everything from now on: what ends a command is short."""
        with self.queue.changed:
            self._is_last = True
            self._say_lost()

    def _say_lost(self) -> None:
        if self._lost:
            text = "\n" * (not self._is_at_line_start) + self._left_out(self._lost)
            self._lost, self._is_at_line_start = 0, True
            self.queue.put(self.fileno(), self._encoded(text))

    def _encoded(self, text: str) -> bytes:
        return text.encode(self.encoding, "backslashreplace")

    @property
    def is_behind(self) -> bool:
        """Whether the reader has not read for a while, so that a drawing of this moment would come late."""
        return self.queue.waiting > _BEHIND

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream within."""
        return self.inner.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """That of the stream within."""
        return self.inner.errors

    def fileno(self) -> int:
        """Return the descriptor of the stream within."""
        return self.inner.fileno()

    def isatty(self) -> bool:
        """Return whether the stream within is a terminal."""
        return self.inner.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True


_streams: dict[str, QueuedStream] = {}  # by their names in `sys`, while they are in place of these


def open_closed_streams() -> None:
    """Open the null device under each of the numbers 0 to 2 that is closed, and write stdout and stderr there.

    Otherwise the next socket or file takes the number: libuv aborts the process when it closes such a socket. Without
    stdin, `sys.stdin` stays None.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def queue_output(left_out: dict[str, Callable[[int], str]]) -> None:
    """Have stdout and stderr never wait from now on; what is no file of the system, as in a test, is left alone.

    `left_out` has for both names the text that stands for so many lines. Two streams to one file keep their order.
    """
    if _streams or os.name == "nt":  # there, a console is no file
        return
    queues: dict[tuple[int, int], OutputQueue] = {}
    for name in ("stdout", "stderr"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # none, closed, or without a descriptor
            inner = getattr(sys, name)
            if not isinstance(getattr(inner.buffer, "raw", inner.buffer), io.FileIO):
                continue  # a descriptor that it names would be another file's
            inner.flush()
            facts = os.fstat(inner.fileno())
            queue = queues.setdefault((facts.st_dev, facts.st_ino), OutputQueue())
            _streams[name] = QueuedStream(inner, queue, left_out[name])
            setattr(sys, name, _streams[name])


def begin_end() -> None:
    """Queue everything from now on at both streams."""
    for stream in _streams.values():
        stream.begin_end()


def deliver(longest_wait: float = LONGEST_WAIT_SECONDS) -> None:
    """Wait until all is read, as long as readers read some of it within so many seconds; else say what is not.

    Raises OSError if stdout is a file for which there is no room.
    """
    begin_end()
    unread = [name for name, stream in _streams.items() if not stream.queue.drain(longest_wait)]
    failure = _streams["stdout"].queue.failure if "stdout" in unread else None
    if failure is not None and failure.errno in NO_ROOM:
        _streams["stdout"].queue.give_up()
        raise OSError(failure.errno, f"stdout cannot be written: {failure.strerror}")
    for stream in _streams.values():
        if unread and stream.queue.waiting == 0:
            stream.write(f"warning: nobody reads {' and '.join(unread)}: the last lines were not written\n")
            stream.queue.drain(_RETRY_SECONDS)
            return


@contextlib.contextmanager
def output_restored() -> Iterator[None]:
    """After the block, put the streams of before in their places. What waits to be read then is lost."""
    try:
        yield
    finally:
        while _streams:
            name, stream = _streams.popitem()
            setattr(sys, name, stream.inner)

"""A terminal of a fixed size, and what a person reads on it: pyte plays the terminal, and the command runs in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CountingScreen(pyte.Screen):
    """A screen that counts the lines that have left it at the top."""

    scrolled = 0

    def index(self) -> None:
        """Move the cursor down; on the last line all lines go up."""
        self.scrolled += self.cursor.y == self.lines - 1
        super().index()

    def play(self, written: bytes) -> None:
        """Show what was written."""
        pyte.ByteStream(self).feed(written)


@dataclass
class Terminal:
    """The command at work in a terminal. `raw` is all that it has written."""

    process: subprocess.Popen[bytes]
    ours: int
    screen: pyte.Screen
    stream: pyte.ByteStream
    raw: bytearray = field(default_factory=bytearray)

    @property
    def lines(self) -> list[str]:
        """What stands there now, without empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    def cursor_is_hidden(self) -> bool:
        """Return whether the terminal has been left as no person wants it."""
        return bool(self.screen.cursor.hidden)

    def read_until(self, seen: Callable[[], object]) -> None:
        """Read what the command writes until this holds; insists that it does before the command ends."""
        while not seen():
            assert self._read(), f"the command has ended with:\n{self.text}"

    def read_to_the_end(self) -> int:
        """Read until the command has ended; give its exit code."""
        while self._read():
            pass
        return self.process.wait()

    def is_asleep(self) -> bool:
        """Return whether the command waits, as at a question: a signal before it waits is seen after it only."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "S"

    def press_ctrl_c(self) -> None:
        """Type it, so that the terminal signals everyone in it."""
        os.write(self.ours, b"\x03")

    def type_line(self, line: str) -> None:
        """Type a line, and Enter."""
        self.type_keys(f"{line}\n")

    def type_keys(self, keys: str) -> None:
        """Type these characters, such as Ctrl-D."""
        os.write(self.ours, keys.encode())

    def _read(self) -> bool:
        ended = self.process.poll() is not None
        if not select.select([self.ours], [], [], 0 if ended else 0.05)[0]:
            return not ended
        try:
            piece = os.read(self.ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += piece
        self.stream.feed(piece)
        return bool(piece)


@contextlib.contextmanager
def terminal(
    folder: Path, *arguments: object, columns: int = 80, rows: int = 24, stdout: int | None = None, **environment: str
) -> Iterator[Terminal]:
    """Run the command in a terminal of this size, its stdout there too unless another is given."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    unwanted = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
    inherited = {name: value for name, value in os.environ.items() if name not in unwanted}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=folder,
        env={
            **inherited,
            "TERM": "xterm-256color",
            "STAGE_KEY": "sk-stage-0123456789",
            "PYTHONUTF8": "1",
            **environment,
        },
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C needs a controlling terminal
    )
    os.close(theirs)
    screen = pyte.Screen(columns, rows)
    try:
        yield Terminal(process, ours, screen, pyte.ByteStream(screen))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)

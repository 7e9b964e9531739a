"""The line of a terminal that says what a command is at, how far it is, and since when, if that takes over a second."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import click

from pipeline.printable import printable

if TYPE_CHECKING:
    from types import TracebackType

    from pipeline.cli.options import Options

FIRST_SECONDS = 1.0
"""How long a command works before there is a line."""

_LINE_SECONDS = 0.2  # between two drawings
_BAR, _DONE, _LEFT = 20, "━", "─"


class WorkLine:
    """A context manager: a thread of its own rewrites the line on stderr, and erases it at the end."""

    def __init__(self, what: str, *, shown: bool) -> None:
        self._what = what
        self._numbers = ""
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, name="work line", daemon=True) if shown else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Erase the line for good."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def count(self, what: str, done: int, total: int, *, with_bar: bool = False) -> None:
        """Show from now on what is done, and how many of how many; also as a bar if asked for."""
        self._what, self._numbers = (
            what,
            f" {bar(done, total)}{done:,}/{total:,}" if with_bar else f" {done:,}/{total:,}",
        )

    def _keep_drawing(self) -> None:
        if self._over.wait(FIRST_SECONDS):
            return
        with contextlib.suppress(OSError):  # the terminal is gone
            while not self._over.is_set():
                _rewrite(f"{self._what}{self._numbers} · {time.monotonic() - self._began:.0f} s")
                self._over.wait(_LINE_SECONDS)
            _rewrite("")


def bar(done: int, total: int) -> str:
    """Return a bar of what is done, with a blank behind it."""
    full = _BAR * done // max(1, total)
    return f"{_DONE * full}{_LEFT * (_BAR - full)} "


def work_line(options: Options, what: str, *, as_json: bool = False) -> WorkLine:
    """Return the line of a command; it is shown on a terminal that nothing else writes to, unless --quiet is given."""
    from pipeline.progress.display import can_draw

    return WorkLine(what, shown=not options.quiet and can_draw(sys.stderr) and not (as_json and sys.stdout.isatty()))


def _rewrite(text: str) -> None:
    """Replace the line that has no end yet; it must not be longer than the terminal is wide."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns
    shown = text if len(text) < columns else f"{text[: max(0, columns - 2)]}…"
    click.echo(f"\r{printable(shown)}\x1b[K", nl=False, err=True)

"""Handle signals: the first one stops the run in order, the second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)]

END_SECONDS = 0.6
"""Seconds that a process has after the second signal, to close the ledger. Then it ends, whatever its threads do."""

_ONE_SIGNAL_SECONDS = 0.05
"""Seconds in which the same signal counts once: `timeout` and terminals send it to a process, and to its group."""

_WORDS_SECONDS = 0.2  # for the last line: a pipe that nobody reads must not keep the process


class ProcessEnd:
    """The end of the process at the second signal; exits with 128 + its number. A third signal ends it at once.

    The interpreter's own exit waits for every thread, and a thread in C code cannot be interrupted. `say` prints the
    last line.
    """

    def __init__(self, say: Callable[[], object]) -> None:
        self._say = say
        self.number: signal.Signals | None = None  # of the second signal
        self.is_interrupted = False  # by a SIGINT before anything handled signals
        self.is_stopping = False  # since the first signal

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, and remember it: in a callback, as one of each import, Python discards it."""
        self.is_interrupted = True
        signal.default_int_handler(number, frame)

    def begin(self, number: signal.Signals) -> None:
        """Start the time in which the process ends."""
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        timer = threading.Timer(END_SECONDS, self.finish)
        timer.daemon = True
        timer.start()

    def arm(self) -> None:
        """Handle the next signal here: it ends the process, also while the interpreter waits for threads."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError):  # not the main thread
                    signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> NoReturn:
        self.begin(signal.Signals(number))
        raise KeyboardInterrupt

    def finish(self) -> NoReturn:
        """Print the last line and end the process. Exit handlers do not run."""
        assert self.number is not None
        words = threading.Thread(target=self._say, daemon=True)
        words.start()
        words.join(_WORDS_SECONDS)
        os._exit(128 + self.number)


_process_end: ProcessEnd | None = None


@contextlib.contextmanager
def ending_process(say: Callable[[], object]) -> Iterator[ProcessEnd]:
    """Within the block, the second signal ends the process. Without it, as in a library, it only cancels the task."""
    global _process_end  # noqa: PLW0603 - a process has one end
    _process_end = end = ProcessEnd(say)
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with contextlib.suppress(ValueError):  # not the main thread
        if is_default:
            signal.signal(signal.SIGINT, end.interrupt)
    try:
        yield end
    finally:
        _process_end = None
        if signal.getsignal(signal.SIGINT) == end.interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def first_interrupt(stop: Callable[[], object]) -> Iterator[None]:
    """Within the block, call `stop` at the first SIGINT; a second one has its usual effect."""
    before = signal.getsignal(signal.SIGINT)

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop()

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, before)


class Shutdown:
    """The signal that asked this run to stop; None until one arrives."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self, stop: Callable[[signal.Signals], None]) -> Iterator[None]:
        """Within the block, call `stop` after the first signal, and cancel the current task at the second.

        The first one may have come before, so that a command may handle signals in several blocks. One that is the same
        and comes before `stop` is called is no second one: nobody can have reacted to it.
        """
        import asyncio  # not at the start of a command that needs no event loop

        task = asyncio.current_task()
        assert task is not None
        loop, end = asyncio.get_running_loop(), _process_end or ProcessEnd(lambda: None)

        stopping: asyncio.TimerHandle | None = None  # until `stop` is called

        def begin_to_stop(number: signal.Signals) -> None:
            nonlocal stopping
            stopping = None
            stop(number)

        def handle(number: signal.Signals) -> None:
            nonlocal stopping
            if self.signal is None and not end.is_stopping:
                self.signal, end.is_stopping = number, True
                stopping = loop.call_later(_ONE_SIGNAL_SECONDS, begin_to_stop, number)
            elif stopping is None or number != self.signal:
                if end is _process_end:
                    end.begin(number)
                task.cancel(f"second {number.name}")

        try:
            with contextlib.ExitStack() as handlers:
                for number in SIGNALS:
                    if signal.getsignal(number) is signal.SIG_IGN:  # nohup ignores SIGHUP
                        continue
                    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; another thread
                        loop.add_signal_handler(number, handle, number)
                        handlers.callback(loop.remove_signal_handler, number)
                if end.is_interrupted:
                    handle(signal.SIGINT)
                yield
        finally:
            if stopping is not None and self.signal is not None:
                stopping.cancel()
                stop(self.signal)
            if end.is_stopping and end is _process_end:
                end.arm()

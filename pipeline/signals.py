"""Handle signals: the first one stops the run in order, the second one cancels it at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNALS = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)]


class Shutdown:
    """The signal that asked this run to stop; None until one arrives."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self, stop: Callable[[signal.Signals], None]) -> Iterator[None]:
        """Within the block, call `stop` at the first signal, and cancel the current task at the second."""
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()

        def handle(number: signal.Signals) -> None:
            if self.signal is None:
                self.signal = number
                stop(number)
            else:
                task.cancel(f"second {number.name}")

        with contextlib.ExitStack() as handlers:
            for number in SIGNALS:
                if signal.getsignal(number) is signal.SIG_IGN:  # nohup ignores SIGHUP
                    continue
                with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; not the main thread
                    loop.add_signal_handler(number, handle, number)
                    handlers.callback(loop.remove_signal_handler, number)
            yield

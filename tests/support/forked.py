"""Processes that are forked from one in which the program is imported already: real ones, at a third of the time.

`python -m pipeline` spends half a second of processor time on imports, and the drills start hundreds of processes. A
fork server of the standard library imports once for each worker of pytest. A forked process has its own pid, signals,
descriptors and exit code; it differs from one that a shell starts only in what it has imported.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

_PRELOADED = [
    "pipeline.cli.main",
    "pipeline.cli.run_commands",
    "pipeline.engine.runner",
    "pipeline.engine.batches.executor",
    "pipeline.planning.planner",
    "pipeline.reports.write",
    "pipeline.sandbox.__main__",
    "tests.support.forked",
]


class Process:
    """A process that runs `main()` of a module with these arguments; used as `subprocess.Popen` is, with text pipes."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        keep_stdin: bool = False,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        stdin, self._stdin = context.Pipe(duplex=False)
        out, stdout = context.Pipe(duplex=False)
        err, stderr = context.Pipe(duplex=False)
        changes = (dict(environment), str(folder))
        self._process = context.Process(target=_run, args=(module, list(arguments), changes, (stdin, stdout, stderr)))
        self._process.start()
        for connection in (stdin, stdout, stderr):
            connection.close()
        if not keep_stdin:
            self._stdin.close()
        self.stdout, self.stderr = _reader(out), _reader(err)

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; a negative number is the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises TimeoutError after this many seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout} seconds")
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both pipes to their end, wait, and return what was read."""
        found: dict[str, str] = {}
        streams = {"stdout": self.stdout, "stderr": self.stderr}
        readers = [threading.Thread(target=_read, args=(name, one, found)) for name, one in streams.items()]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
        self.wait(timeout)
        self._close()
        return found["stdout"], found["stderr"]

    def send_signal(self, number: int) -> None:
        """Send a signal; no effect after the end."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """Kill the process if it still runs, and close its pipes."""
        self.kill()
        self.wait()
        self._close()

    def _close(self) -> None:
        for stream in (self._stdin, self.stdout, self.stderr):
            stream.close()


def _reader(connection: Connection) -> io.TextIOWrapper:
    return open(os.dup(connection.fileno()), encoding="utf-8", newline=None)  # noqa: PTH123 - of a descriptor


def _read(name: str, stream: io.TextIOWrapper, found: dict[str, str]) -> None:
    found[name] = "" if stream.closed else stream.read()


def _run(
    module: str,
    arguments: list[str],
    changes: tuple[dict[str, str], str],
    pipes: tuple[Connection, Connection, Connection],
) -> None:
    """Become the process of a command: its descriptors, folder, environment and arguments, then its `main`."""
    environment, folder = changes
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - of a descriptor
        for number, mode in enumerate(("r", "w", "w"))
    )
    os.chdir(folder)
    sys.path.insert(0, folder)  # as `python -m` does
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    code = importlib.import_module(module).main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)

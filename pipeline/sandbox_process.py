"""Start the sandbox of a provider as a separate process, and return its base URL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from pipeline.background import background_tasks
from pipeline.config.environment import BASIC_VARIABLES, PYTHON_VARIABLES, child_environment
from pipeline.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pipeline.config.load import Config, Provider

PORT_TAKEN = 3
"""Exit code of a sandbox whose port is in use."""

_RESTART_SECONDS = 0.5


def check_settings(config: Config, provider: Provider) -> None:
    """Check the mapping under `sandbox:` of a provider. Raises ConfigError."""
    from pipeline.sandbox.settings import SandboxSettings  # which no other provider needs

    try:
        SandboxSettings.from_mapping(provider.sandbox or {})
    except ValueError as reason:
        raise ConfigError([Problem(str(config.file), f"providers.{provider.name}.sandbox: {reason}")]) from None


@dataclass(frozen=True, slots=True)
class _Sandbox:
    """A sandbox at work; `errors` is its stderr."""

    process: asyncio.subprocess.Process
    base_url: str
    errors: IO[bytes]

    async def stop(self) -> None:
        """End it, if it has not ended, and wait for that."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        await self.process.wait()
        self.errors.close()


class SandboxProcesses:
    """The sandbox processes of one run. Each ends when its stdin closes, so also if this process is killed.

    One that ends before, as by the kernel for want of memory, is started again: a run would wait hours for its server.
    """

    def __init__(self, folder: Path, keepers: asyncio.TaskGroup) -> None:
        self._folder = folder
        self._keepers = keepers
        self._at_work: dict[str, _Sandbox] = {}

    async def base_url(self, provider: Provider) -> str:
        """Return a provider's base URL; a sandbox is started first, on the same port for the same folder if it is free.

        Raises ConfigError if the sandbox does not start.
        """
        if provider.base_url is not None:
            return provider.base_url
        if provider.name in self._at_work:
            return self._at_work[provider.name].base_url
        for port in _ports(self._folder, provider.name):
            if started := await _start(provider, port):
                self._at_work[provider.name] = started
                self._keepers.create_task(self._keep(provider, port), name=f"sandbox {provider.name}")
                return started.base_url
        raise ConfigError(f"the sandbox `{provider.name}` found no free port")

    async def _keep(self, provider: Provider, port: int) -> None:
        """Start a sandbox again on its port whenever it has ended."""
        while True:
            await self._at_work[provider.name].process.wait()
            await asyncio.sleep(_RESTART_SECONDS)
            with contextlib.suppress(ConfigError):
                if started := await _start(provider, port):
                    await self._at_work[provider.name].stop()
                    self._at_work[provider.name] = started

    async def stop(self) -> None:
        """End all, once nothing starts them again."""
        for sandbox in self._at_work.values():
            await sandbox.stop()


@contextlib.asynccontextmanager
async def sandbox_processes(folder: Path) -> AsyncIterator[SandboxProcesses]:
    """Have the sandbox processes of an output folder; all end with the block."""
    try:
        async with background_tasks() as keepers:
            processes = SandboxProcesses(folder, keepers)
            yield processes
    finally:
        await processes.stop()


async def _start(provider: Provider, port: int) -> _Sandbox | None:
    """Start a sandbox; return it once it listens, or None if the port is in use. Raises ConfigError."""
    with contextlib.ExitStack() as stack:
        try:
            errors = stack.enter_context(tempfile.TemporaryFile())  # since a pipe that nobody reads fills up
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "pipeline.sandbox", "--with-stdin", "--port", str(port)),
                *("--settings", json.dumps(dict(provider.sandbox or {}))),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=child_environment(os.environ, BASIC_VARIABLES | PYTHON_VARIABLES),
                start_new_session=True,  # Ctrl-C must not end the sandbox: calls in flight still need their responses
            )
        except OSError as reason:  # no such interpreter, too many processes, no memory, a full disk
            raise ConfigError(f"the sandbox `{provider.name}` does not start: {reason.strerror}") from None
        assert process.stdin is not None
        assert process.stdout is not None
        stack.callback(process.stdin.close)
        if line := await process.stdout.readline():
            stack.pop_all()
            return _Sandbox(process, str(json.loads(line)["base_url"]), errors)
        if await process.wait() == PORT_TAKEN:
            return None
        errors.seek(0)
        message = errors.read().decode("utf-8", "replace").strip()
        raise ConfigError(f"the sandbox `{provider.name}` does not start: {message[-2000:]}")


def _ports(folder: Path, name: str) -> Iterator[int]:
    """Yield the ports to try: the same for the same folder and provider, and below the ephemeral range."""
    first = zlib.crc32(f"{folder}\0{name}".encode())
    for step in range(20):
        yield 20_000 + (first + step) % 10_000

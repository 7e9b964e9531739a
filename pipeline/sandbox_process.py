"""Start the sandbox of a provider as a separate process, and return its base URL."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import zlib
from typing import TYPE_CHECKING

from pipeline.config.environment import BASIC_VARIABLES, PYTHON_VARIABLES, child_environment
from pipeline.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.config.load import Config, Provider

PORT_TAKEN = 3
"""Exit code of a sandbox whose port is in use."""


def check_settings(config: Config, provider: Provider) -> None:
    """Check the mapping under `sandbox:` of a provider. Raises ConfigError."""
    from pipeline.sandbox.settings import SandboxSettings  # which no other provider needs

    try:
        SandboxSettings.from_mapping(provider.sandbox or {})
    except ValueError as reason:
        raise ConfigError([Problem(str(config.file), f"providers.{provider.name}.sandbox: {reason}")]) from None


class SandboxProcesses:
    """The sandbox processes of one run. Each ends when its stdin closes, so also if this process is killed."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._base_urls: dict[str, str] = {}

    async def base_url(self, provider: Provider) -> str:
        """Return a provider's base URL; a sandbox is started first, on the same port for the same folder if it is free.

        Raises ConfigError if the sandbox does not start.
        """
        if provider.base_url is not None:
            return provider.base_url
        if provider.name in self._base_urls:
            return self._base_urls[provider.name]
        for port in _ports(self._folder, provider.name):
            if base_url := await self._start(provider, port):
                self._base_urls[provider.name] = base_url
                return base_url
        raise ConfigError(f"the sandbox `{provider.name}` found no free port")

    async def _start(self, provider: Provider, port: int) -> str | None:
        """Start a sandbox; return its base URL, or None if the port is in use. Raises ConfigError."""
        # stderr is a file, since a pipe that nobody reads fills up
        errors = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        try:
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
        except OSError as reason:  # no such interpreter, too many processes, no memory
            raise ConfigError(f"the sandbox `{provider.name}` does not start: {reason.strerror}") from None
        self._stack.push_async_callback(_stop, process)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line:
            return str(json.loads(line)["base_url"])
        if await process.wait() == PORT_TAKEN:
            return None
        errors.seek(0)
        message = errors.read().decode("utf-8", "replace").strip()
        raise ConfigError(f"the sandbox `{provider.name}` does not start: {message[-2000:]}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


def _ports(folder: Path, name: str) -> Iterator[int]:
    """Yield the ports to try: the same for the same folder and provider, and below the ephemeral range."""
    first = zlib.crc32(f"{folder}\0{name}".encode())
    for step in range(20):
        yield 20_000 + (first + step) % 10_000

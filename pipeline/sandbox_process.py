"""A provider that is a sandbox → a process of its own and its address."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import zlib
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError, Problem
from pipeline.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AsyncExitStack
    from pathlib import Path

    from pipeline.config.load import Config, Provider

PORT_TAKEN = 3  # the sandbox's exit code


def check_settings(config: Config, provider: Provider) -> None:
    """Check the mapping under `sandbox:` before anything is queued. Raises ConfigError."""
    try:
        SandboxSettings.from_mapping(provider.sandbox or {})
    except ValueError as reason:
        raise ConfigError([Problem(str(config.file), f"providers.{provider.name}.sandbox: {reason}")]) from None


class Sandboxes:
    """The sandboxes of a run, each a process of its own that ends with ours, even if ours is killed."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._started: dict[str, str] = {}

    async def address(self, provider: Provider) -> str:
        """Give a provider's base_url; a sandbox is started for it, if it can be on the port this folder always has.

        Raises ConfigError where it does not start.
        """
        if provider.base_url is not None:
            return provider.base_url
        if provider.name in self._started:
            return self._started[provider.name]
        for port in _ports(self._folder, provider.name):
            if base_url := await self._start(provider, port):
                self._started[provider.name] = base_url
                return base_url
        raise ConfigError(f"the sandbox `{provider.name}` finds no free port")

    async def _start(self, provider: Provider, port: int) -> str | None:
        # its last words go to a file, since a pipe that nobody reads fills up
        said = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pipeline.sandbox", "--with-stdin", "--port", str(port)),
            *("--settings", json.dumps(dict(provider.sandbox or {}))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # a Ctrl-C is for us: calls in flight are still to be answered
        )
        self._stack.push_async_callback(_end, process)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if line:
            return str(json.loads(line)["base_url"])
        if await process.wait() == PORT_TAKEN:
            return None
        said.seek(0)
        words = said.read().decode("utf-8", "replace").strip()
        raise ConfigError(f"the sandbox `{provider.name}` does not start: {words[-2000:]}")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


def _ports(folder: Path, name: str) -> Iterator[int]:
    """Yield ports to try: the same for the same folder and provider, below those that systems hand out themselves."""
    first = zlib.crc32(f"{folder}\0{name}".encode())
    for step in range(20):
        yield 20_000 + (first + step) % 10_000

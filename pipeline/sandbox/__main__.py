"""Serve the sandbox until stopped (`python -m pipeline.sandbox`), and print its address as one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.sandbox.server import serve
from pipeline.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_INPUT = 2
CANNOT_LISTEN = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code: 0 stopped, 2 bad settings or folder, 3 cannot listen on the port."""
    options = _parser().parse_args(arguments)
    try:
        settings = SandboxSettings.from_mapping(_mapping(options.settings))
    except ValueError as error:
        return _fail(f"settings: {error}", BAD_INPUT)
    try:
        asyncio.run(_serve_until_stopped(settings, options))
    except OSError as error:
        is_taken = error.errno in {errno.EADDRINUSE, errno.EACCES}
        return _fail(f"the sandbox cannot serve: {error}", CANNOT_LISTEN if is_taken else BAD_INPUT)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.sandbox", description="An Images API on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="the mapping under `sandbox:`, as JSON")
    parser.add_argument("--books", type=Path, metavar="FILE", help="append one JSON line for each call, file and line")
    parser.add_argument("--spool", type=Path, metavar="DIR", help="where files and batches are kept")
    parser.add_argument(
        "--with-stdin", action="store_true", help="stop when stdin ends, so that it ends with its parent"
    )
    return parser


def _mapping(text: str) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {text[:100]}")  # noqa: TRY004 - one kind of error for users
    return value


async def _serve_until_stopped(settings: SandboxSettings, options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_soon(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: stopped already
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_soon)  # not loop.add_signal_handler, which Windows lacks
    async with serve(settings, port=options.port, request_log=options.books, spool=options.spool) as sandbox:
        line = {"base_url": sandbox.base_url, "port": sandbox.port, "pid": os.getpid()}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        if options.with_stdin:
            threading.Thread(target=_watch_stdin, args=(stop_soon,), daemon=True).start()
        await stop.wait()


def _watch_stdin(stop: Callable[[], None]) -> None:
    """Call `stop` at the end of stdin; runs in a thread, since an event loop cannot wait on every kind of file."""
    with contextlib.suppress(OSError):  # a stdin that was closed from the start counts as ended
        while os.read(0, 4096):
            pass
    stop()


def _fail(sentence: str, code: int) -> int:
    line = "".join(letter if letter.isprintable() else " " for letter in sentence)
    sys.stderr.write(f"{line}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())

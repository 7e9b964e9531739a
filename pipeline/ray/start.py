"""Start Ray on this machine for one run, or connect to one that runs; its output goes to the run's log."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import math
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pipeline.engine.worker_events import EngineOutput
from pipeline.errors import ConfigError
from pipeline.ray import guard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from pipeline.config.workers import WorkerSettings
    from pipeline.engine.events import Listener

CONNECT_SECONDS = 3.0
"""How long a named address may take to answer."""

_SETTINGS = b"\x04"
_SHUTDOWN_SECONDS, _LOOK_SECONDS = 10.0, 0.05
_STORE_BYTES = 80 * 2**20  # the least that Ray takes: pictures do not go through its object store
_OWN = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: a Ray that is alone listens on loopback only
}
_token: str | None = None  # of every Ray that this process starts: its library reads it once


def check_installed() -> None:
    """Raise ConfigError if the library is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError('workers need Ray, which is not installed: pip install "image-batch-pipeline[ray]"')


@contextlib.asynccontextmanager
async def connected(settings: WorkerSettings, environment: Mapping[str, str], emit: Listener) -> AsyncIterator[str]:
    """Be connected to Ray within the block; yields the address of its control service. Raises ConfigError."""
    with contextlib.ExitStack() as stack:
        if settings.address is None:
            options = _own_options(settings, stack.enter_context(_short_folder()))
            with _own_environment():
                guarding = stack.enter_context(_guarded(options["_temp_dir"]))
                stack.enter_context(_output_to(emit))
                _init(**options)
            _name_helpers(guarding)
        else:
            address = await asyncio.to_thread(_resolve, settings.address, environment)
            stack.enter_context(_output_to(emit))
            _init(address=address, **_quiet())
        import ray

        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            await _shut_down()


@contextlib.contextmanager
def _guarded(folder: str) -> Iterator[IO[str]]:
    """Have a guard that cleans up if this process is killed within the block; yields its input."""
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-I", guard.__file__, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # who reads the run's output in a pipe sees the end of it with the run's
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield process.stdin
    finally:
        process.communicate(f" {guard.END}\n")


def _name_helpers(words: IO[str]) -> None:
    """Write to the guard which processes Ray's node has started."""
    from ray._private import worker as ray_worker

    for raylet in ray_worker.global_worker.node.all_processes.get("raylet", []):
        words.write("".join(f"{pid} " for pid in guard.children(raylet.process.pid)))
    words.flush()


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """Have a temporary folder with a short path, as the names of sockets need, within the block."""
    parent = Path("/tmp")  # noqa: S108 - the folder in it is this user's alone
    folder = tempfile.mkdtemp(prefix="ray-", dir=parent if parent.is_dir() else None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_options(settings: WorkerSettings, folder: str) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": math.ceil(settings.processes * settings.cpus) or 1,
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
        "_temp_dir": folder,
        **_quiet(),
    }


def _quiet() -> dict[str, Any]:
    return {"configure_logging": False, "log_to_driver": True}


@contextlib.contextmanager
def _own_environment() -> Iterator[None]:
    """Set what Ray and its processes read from the environment while it starts: a random token, and no statistics."""
    global _token  # noqa: PLW0603 - see there
    if _token is None and "ray" in sys.modules:
        raise ConfigError(
            "this program has imported Ray already, so none with a token of its own can be started: start one with"
            " `ray start --head` and write its address into `workers.address`"
        )
    _token = _token or secrets.token_hex(32)
    wanted = {**_OWN, "RAY_AUTH_TOKEN": _token}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _resolve(address: str, environment: Mapping[str, str]) -> str:
    """Return the address of a Ray that answers. Raises ConfigError."""
    if address == "auto" and (named := environment.get("RAY_ADDRESS", "").strip()) and named != "auto":
        address = named
    if address == "auto":
        from ray._private.utils import read_ray_address

        left = read_ray_address()
        if left is None:
            raise ConfigError(
                "`workers.address: auto` finds no Ray: $RAY_ADDRESS is not set, and `ray start` was not run here"
            )
        address = left
    fault = find_address_fault(address)
    if fault is not None:
        raise ConfigError(f"no Ray answers at {address}: {fault}; start it with `ray start`, or correct the address")
    return address


def find_address_fault(address: str, seconds: float = CONNECT_SECONDS) -> str | None:
    """Return why nothing at an address can be Ray's control service; None if something may be."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as connection:
            connection.settimeout(seconds)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            if len(answer := connection.recv(9)) > 3 and answer[3:4] != _SETTINGS:  # with which an HTTP/2 server begins
                return "what answers there is not Ray"
    except ConnectionResetError:
        return None
    except TimeoutError:
        return f"it does not answer within {seconds:.0f} seconds"
    except (OSError, ValueError) as reason:
        return getattr(reason, "strerror", None) or str(reason)
    return None


def _init(**options: Any) -> None:
    """Start Ray or connect to it. Raises ConfigError.

    It blocks: the system ends what a thread has started with that thread, so it must be the one of the event loop.
    """
    import ray

    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as reason:
        raise ConfigError(f"Ray cannot be used: {' '.join(str(reason).split())[:300]}") from None


async def _shut_down() -> None:
    """End Ray, or leave it; not for long, if it is dead itself."""
    import ray

    thread = threading.Thread(target=ray.shutdown, name="end of Ray", daemon=True)
    thread.start()
    give_up = time.monotonic() + _SHUTDOWN_SECONDS
    while thread.is_alive() and time.monotonic() < give_up:  # noqa: ASYNC110 - a thread sets no event
        await asyncio.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def _output_to(emit: Listener) -> Iterator[None]:
    """Send what Ray and its workers print to a listener, in place of this process's own streams."""
    import ray._private.worker as ray_worker

    loop = asyncio.get_running_loop()

    def listen(line: str) -> None:
        if line.strip():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(emit, EngineOutput(line))

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            listen(record.getMessage())

    def print_lines(data: Mapping[str, Any], **_more: object) -> None:
        for line in () if data.get("pid") == "autoscaler" else data.get("lines") or ():
            listen(f"{data.get('pid')}: {line}")

    logger, handler = logging.getLogger("ray"), Handler()
    before, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, print_lines
    propagates, logger.propagate = logger.propagate, False
    handlers, logger.handlers = logger.handlers, [handler]
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = before
        logger.propagate, logger.handlers = propagates, handlers

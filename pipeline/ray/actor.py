"""Actor that Ray places on the nodes: a thin shell around `Service`.

Ray ships it by value, so that it can say of a node which program is there, whatever that is. So this module imports
nothing of the program; its methods do.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import socket
from typing import Any


class WorkerActor:
    """A worker; the run sets it up after every start, which states `token`, and orders of another token are ignored."""

    def __init__(self) -> None:
        self._token = ""
        self._service: Any = None

    def facts(self) -> dict[str, Any]:
        """Return what this process runs, and on which machine: versions, names, and what tells machines apart."""
        import importlib.metadata

        import ray

        try:
            program = importlib.metadata.version("image-batch-pipeline")
        except importlib.metadata.PackageNotFoundError:
            program = None
        return {
            "program": program,
            "python": platform.python_version(),
            "ray": ray.__version__,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": _machine(),
            "node_id": ray.get_runtime_context().get_node_id(),
        }

    def check(self, work: bytes) -> list[str]:
        """Return what hinders work on this node: variables that are missing, a folder that is not shared."""
        from pipeline.ray.node_checks import find_hindrances

        return find_hindrances(*pickle.loads(work))  # noqa: S301 - the run's own bytes

    async def set_up(self, token: str, work: bytes) -> float:
        """Get ready for orders of this token; return the worker's clock, for its lease."""
        from pipeline.ray.lease import clock
        from pipeline.ray.service import Service

        self._service, self._token = Service(pickle.loads(work), self.end), token  # noqa: S301 - the same
        await self._service.prepare()
        return clock()

    def end(self) -> None:
        """End the process."""
        os._exit(0)

    async def open(self, token: str, target: bytes) -> str | None:
        """Open the sessions with a provider; return what is wrong with its variables here, if anything is."""
        from pipeline.errors import ConfigError

        self._check(token)
        try:
            await self._service.open(pickle.loads(target))  # noqa: S301 - the same
        except ConfigError as error:
            return str(error)
        return None

    async def take(self, token: str, stated: float, number: int, orders: bytes) -> None:
        """Take a block of orders."""
        if token == self._token:
            self._service.take(stated, number, pickle.loads(orders))  # noqa: S301 - the same

    async def poll(self, token: str, stated: float, confirmed: int) -> bytes:
        """Return the next reports."""
        self._check(token)
        return pickle.dumps(await self._service.poll(stated, confirmed))

    def _check(self, token: str) -> None:
        """Raise LookupError in a process that has replaced the one of this token."""
        if token != self._token:
            raise LookupError(token)


def _machine() -> str:
    """Return what is equal for two processes if each can reach the other's loopback addresses."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/etc/machine-id"):
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - without another import on a foreign node
                parts.append(file.read().strip())
        except OSError:
            continue
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/net"))  # noqa: PTH115 - the same
    return " ".join(parts)

"""Several nodes of Ray on this machine, each with a raylet of its own, for workers that can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.stage import HOME

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_SMALL = {"object_store_memory": 80 * 2**20, "include_log_monitor": False}


@dataclass
class Nodes:
    """A head without room for workers, and nodes with room for some each."""

    cluster: Any
    cpus: int
    environment: dict[str, str]
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The address for `workers.address`."""
        address: str = self.cluster.address
        return address

    @property
    def folder(self) -> Path:
        """The folder of the logs of all nodes."""
        return Path(self.cluster.head_node.get_session_dir_path())

    def add(self) -> None:
        """Start another node."""
        options = {**_SMALL, "env_vars": self.environment}
        self.nodes.append(self.cluster.add_node(wait=False, num_cpus=self.cpus, **options))

    def kill(self, chance: random.Random) -> None:
        """Kill the raylet of a node."""
        node = self.nodes.pop(chance.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def ray_nodes(count: int, cpus: int, **environment: str) -> Iterator[Nodes]:
    """Have so many nodes within the block, whose processes have these variables in their environment."""
    wanted = {**_QUIET, "PYTHONPATH": str(HOME)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    from ray.cluster_utils import Cluster

    head = {**_SMALL, "num_cpus": 0, "include_dashboard": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = Nodes(cluster, cpus, environment)
    try:
        for _ in range(count):
            nodes.add()
        cluster.wait_for_nodes()
        yield nodes
    finally:
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def processes(marker: str) -> dict[int, str]:
    """Return the command lines of the processes whose environment or command line holds a text, by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in words and int(path.name) != os.getpid():
            found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found

"""Connection to Ray: one that this process starts and ends, or one that runs; its nodes, and which of them are used."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pipeline.ray.actor
from pipeline.engine.worker_events import NodeRefused
from pipeline.errors import ConfigError, Problem
from pipeline.ray.actor import WorkerActor
from pipeline.ray.error_text import error_text
from pipeline.ray.node_checks import answer_file, find_difference, find_unreachable, question_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.config.load import Provider
    from pipeline.config.workers import WorkerSettings
    from pipeline.engine.caller import Target
    from pipeline.engine.events import Listener

_PROBE_SECONDS = 30.0
"""How long a node may take to start a process and check itself before the first call; else that is done later."""


@dataclass
class Cluster:
    """The Ray that this process is connected to. `is_own` if it was started for this run, on this machine."""

    settings: WorkerSettings
    is_own: bool
    emit: Listener
    folder: Path | None  # that all nodes must share; None if images go into an object store
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)  # by node id: (host, why it is not used)
    _checked: set[str] = field(default_factory=set)  # ids of nodes that may be used
    _nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def __post_init__(self) -> None:
        import ray
        from ray import cloudpickle

        cloudpickle.register_pickle_by_value(pipeline.ray.actor)
        self._actor = ray.remote(WorkerActor)
        self.facts = WorkerActor().facts()
        if self.is_own:
            self._checked.add(self.facts["node_id"])

    def actor(self, instead_of: Any = None) -> Any:
        """Ask Ray for a worker, on a node that may be used."""
        import ray

        if instead_of is not None:
            ray.kill(instead_of)
        options: dict[str, Any] = {"num_cpus": self.settings.cpus, "max_restarts": -1, "max_task_retries": 0}
        if self.refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self.refused)})"}
        return self._actor.options(**options).remote()

    def restart(self, actor: Any) -> None:
        """Have Ray replace a process that does not answer."""
        import ray

        ray.kill(actor, no_restart=False)

    def has_room(self) -> bool:
        """Return whether a node is large enough for a worker, and as many processors are free in all."""
        import ray

        cpus = self.settings.cpus
        nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self.refused]
        is_any_large = any(node["Resources"].get("CPU", 0) >= cpus for node in nodes)
        return is_any_large and ray.available_resources().get("CPU", 0) >= cpus

    def room(self) -> str:
        """Return how many processors the nodes have, in words."""
        import ray

        return f"its nodes have {ray.cluster_resources().get('CPU', 0):g} CPUs in all"

    def refuse(self, facts: dict[str, Any], reason: str) -> None:
        """Do not use a node any more."""
        if facts["node_id"] not in self.refused:
            self.refused[facts["node_id"]] = facts["host"], reason
            self.emit(NodeRefused(facts["host"], reason))

    async def admits(self, actor: Any, facts: dict[str, Any], targets: Sequence[Target]) -> bool:
        """Return whether a node may be used; one that came after the start is checked now."""
        node_id = facts["node_id"]
        if node_id in self.refused:
            return False
        if node_id not in self._checked:
            faults = await self._find_faults(actor, facts, [target.provider for target in targets])
            for fault in faults:
                self.refuse(facts, fault)
            if faults:
                return False
            self._checked.add(node_id)
        return True

    async def check(self, providers: Sequence[Provider]) -> None:
        """Check all nodes before the first call. Raises ConfigError with node and cause for what a person must mend.

        A node with another program, Python or Ray is named and not used.
        """
        if self.is_own:
            return
        if self.folder is not None:
            question_file(self.folder, self._nonce).write_text(self._nonce)
        import ray

        cpus = self.settings.cpus
        usable = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus]
        found = await asyncio.gather(*(self._probe(node, providers) for node in usable))
        if problems := [problem for problems in found for problem in problems]:
            raise ConfigError(problems)
        if self.refused and not self._checked:
            reasons = "; ".join(f"{host} {reason}" for host, reason in self.refused.values())
            raise ConfigError(f"no node of Ray can be used: {reasons}")

    async def _probe(self, node: dict[str, Any], providers: Sequence[Provider]) -> list[Problem]:
        """Check one node by a process of its own."""
        import ray
        from ray.exceptions import RayError, RayTaskError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        probe = self._actor.options(num_cpus=0, max_task_retries=0, scheduling_strategy=place).remote()
        facts = {"node_id": node["NodeID"], "host": node["NodeManagerHostname"]}
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                facts = await probe.facts.remote()
                if (difference := find_difference(self.facts, facts)) is not None:
                    self.refuse(facts, difference)
                    return []
                faults = await self._find_faults(probe, facts, providers)
        except RayTaskError as reason:  # another program is there, or none
            self.refuse(facts, f"cannot be used: {error_text(reason)}")
            return []
        except (RayError, TimeoutError):
            return []
        finally:
            ray.kill(probe)
        if not faults:
            self._checked.add(facts["node_id"])
        return [Problem(f"node {facts['host']}", fault) for fault in faults]

    async def _find_faults(self, actor: Any, facts: dict[str, Any], providers: Sequence[Provider]) -> list[str]:
        """Return what is wrong with a node."""
        import pickle

        if (difference := find_difference(self.facts, facts)) is not None:
            return [difference]
        reading = [] if self.settings.pass_keys else list(providers)  # from its own environment
        question = pickle.dumps((facts["node_id"], reading, self.folder, self._nonce))
        faults: list[str] = await actor.check.remote(question)
        if not faults and self.folder is not None and not self._has_answered(facts["node_id"]):
            faults.append(f"what it writes into {self.folder} does not arrive here: all nodes must share that folder")
        return faults + find_unreachable(self.facts, facts, providers)

    def _has_answered(self, node_id: str) -> bool:
        """Return whether the file of a node has arrived; delete it."""
        assert self.folder is not None
        answer = answer_file(self.folder, self._nonce, node_id)
        try:
            is_right = answer.read_text() == f"{self._nonce} {node_id}"
            answer.unlink()
        except OSError:
            return False
        return is_right

    def close(self) -> None:
        """Delete the file by which nodes see that they share the folder."""
        if self.folder is not None:
            question_file(self.folder, self._nonce).unlink(missing_ok=True)

"""Events about the workers of a run on other machines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkersReady:
    """So many of the workers that were asked for are ready, on so many nodes."""

    ready: int
    asked: int
    nodes: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker was lost, with so many calls in flight, whose outcome is unknown."""

    id: int
    node: str
    pid: int
    calls: int
    reason: str


@dataclass(frozen=True, slots=True)
class NodeRefused:
    """A node of Ray is not used, for this reason."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """A line that Ray, or a worker, has written."""

    line: str


@dataclass(frozen=True, slots=True)
class AwaitingLeases:
    """A run that was killed had workers, which may send calls for so many seconds more; nothing is sent until then."""

    seconds: float


WorkerEvent = AwaitingLeases | WorkersReady | WorkerLost | NodeRefused | EngineOutput
